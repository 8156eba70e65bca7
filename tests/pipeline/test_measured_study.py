"""A study of frames that an instrument recorded: nobody knows the object, and no photon counts twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny_scan
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import read_base, read_scan, read_truth
from fly64_dose_overlap.files.npz import NpzReader
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.pipeline import cells
from fly64_dose_overlap.pipeline.matrix.plan import overridden
from fly64_dose_overlap.pipeline.stages import (
    base,
    check,
    diagnose,
    evaluate,
    expose,
    limit,
    overlap,
    reconstruct,
    reference,
    train,
)
from fly64_dose_overlap.pipeline.study import all_methods, load_study
from fly64_dose_overlap.scan import Scan
from tiny_study import write_params

PHOTONS = 2e5
CHANGES: dict[str, Any] = {
    "doses": [1000, 10000],
    "base": {"source": "mine.npz"},
    "reference": {"epochs": 20},
    "learned": [],
    "iterative": ["map"],
    "methods": {"map": {"epochs": 12}},
    "view": "baseline",
    "limit": {"vectors": 1, "iterations": 20},
}


def two_modes() -> NDArray[np.complex64]:
    """Return a probe in units of its own, as files have it."""
    first = tiny_scan.scan().probe[0]
    second = 0.4 * np.rot90(first) * np.linspace(-1, 1, len(first))
    return np.stack([first, second]).astype(np.complex64) / 7


def rewrite(source: str, target: str, **rows: slice | None) -> None:
    """Write another file with some rows of an array, or without it."""
    with np.load(source) as file:
        kept = {key: file[key][rows.get(key, ...)] for key in file.files if rows.get(key, ...) is not None}
    np.savez(target, allow_pickle=False, **kept)


def write_file(path: Path, **changes: Any) -> NDArray[np.float32]:
    """Write a scan as an instrument might, without its object, and return its counts."""
    import torch

    scan, probe = tiny_scan.scan(), two_modes()
    model = ScanModel(torch.from_numpy(probe), scan.positions_px, scan.object_shape)
    expected = model.expected(torch.from_numpy(tiny_scan.truth()), slice(0, len(scan))).numpy()
    expected *= PHOTONS / expected.sum(axis=(1, 2)).mean()
    counts = np.random.default_rng(0).poisson(expected).astype(np.float32)
    arrays = {
        "objectGuess": np.ones(scan.object_shape, np.complex64),
        "probeGuess": probe,
        "ycoords": scan.positions_px[:, 0],
        "xcoords": scan.positions_px[:, 1],
        "counts": counts,
    }
    members: dict[str, Any] = {**arrays, **changes}
    np.savez(path, **members)
    return counts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of a study that has run."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("study")
        patch.chdir(folder)
        mask = np.ones((tiny_scan.SIDE, tiny_scan.SIDE), bool)
        mask[5, 6] = False
        write_file(folder / "mine.npz", mask=mask)
        params = write_params(folder, **CHANGES)
        for stage in (check, base, reference):
            stage.main(params)
        for dose in (1000, 10000):
            expose.main(dose, params)
            overlap.main(dose, "baseline", params)
        limit.main("baseline", params)
        diagnose.main(params)
        reconstruct.main("map", params)
        evaluate.main(params)
        yield folder


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def exposed(dose: int, half: str = "test") -> Scan:
    return read_scan(cells.dose_file(dose, half))


def measured_counts() -> NDArray[np.float32]:
    frames = read_base(cells.MEASURED_FILE).amplitude
    assert frames is not None
    return np.rint(frames[:] ** 2)


def power(probe: NDArray[np.complex64]) -> float:
    return float((np.abs(probe) ** 2).sum())


def test_every_photon_is_in_the_reference_or_in_the_study() -> None:
    kept = np.rint(np.asarray(read_base(cells.BASE_FILE).amplitude)[:] ** 2)
    held = read_scan(cells.HELD_FILE)
    np.testing.assert_array_equal(held.counts[:] + measured_counts(), kept)
    assert held.photons_per_frame == pytest.approx(0.7 * PHOTONS, rel=0.01)
    assert (exposed(10000).counts[:] <= measured_counts()).all()


def test_power_of_the_probe_is_that_of_the_photons() -> None:
    for scan in (read_scan(cells.HELD_FILE), exposed(1000), exposed(10000)):
        assert scan.probe.shape == (2, 32, 32)
        assert scan.photons_per_frame == pytest.approx(power(scan.probe), rel=0.05)
    assert exposed(1000).photons_per_frame == pytest.approx(1000, rel=0.02)


def test_networks_train_on_the_scan_itself() -> None:
    first, second = (cells.view_file(1000, "baseline", half).read_bytes() for half in cells.HALVES)
    assert first == second
    assert len(exposed(1000)) == len(tiny_scan.scan())
    assert json.loads(cells.dose_metrics(1000).read_text())["split"] is None


def test_a_mask_goes_with_the_frames_to_the_end() -> None:
    for path in (cells.HELD_FILE, cells.view_file(10000, "baseline", "test")):
        mask = read_scan(path).mask
        assert mask is not None
        assert np.argwhere(~mask[:]).tolist() == [[5, 6]]


def test_scores_name_their_reference_and_how_far_it_can_be_trusted() -> None:
    found = json.loads(cells.EVALUATION.read_text())
    conventions, own = found["conventions"], found["reference"]
    assert (conventions["frames"], conventions["split"]) == ("measured", "all")
    assert conventions["against"] == "the reference of 1.4e+05 photons per frame"
    scores = found["methods"]["MAP"]
    assert own["noise"]["phase_psnr_db"] > scores["phase"]["psnr_db"] + 3
    assert scores["phase"]["psnr_db"] < scores["beyond_noise"]["phase_psnr_db"]
    assert scores["beyond_noise"]["complex_nrmse"] < scores["complex_nrmse"]
    assert own["fit_of_other_photons"]["chi_square"] == pytest.approx(1, abs=0.1)
    assert own["modes"] == 2


def test_photons_that_no_method_saw_tell_methods_apart() -> None:
    methods = json.loads(cells.EVALUATION.read_text())["methods"]
    assert methods["MAP"]["fit"]["chi_square"] < methods["flat object"]["fit"]["chi_square"] / 3
    assert methods["MAP"]["fit"]["divergence"] > 0
    assert 1 < methods["MAP"]["fit"]["r_over_floor"] < methods["flat object"]["fit"]["r_over_floor"]


def test_the_reference_is_close_to_the_object_that_it_never_saw() -> None:
    from fly64_dose_overlap.scores.align import align_to
    from fly64_dose_overlap.scores.region import scan_region
    from fly64_dose_overlap.scores.scores import score

    held = read_scan(cells.HELD_FILE)
    region = scan_region(held.illumination(), held.positions_px, 0.1)
    truth = tiny_scan.truth()
    found = align_to(truth, read_truth(cells.HELD_FILE), region, upsampling=20).field
    error = score(truth, found, region)
    own = json.loads(cells.EVALUATION.read_text())["reference"]["noise"]
    # What its halves share, a prior and edges, is in the one and not in the other.
    assert own["phase_psnr_db"] - 6 < error["phase"]["psnr_db"]
    reference_object, inside = read_truth(cells.HELD_FILE), region.rectangle
    with NpzReader(cells.REFERENCE_HALVES) as reader:
        first, second = (reader.load(name)[inside] for name in ("first", "second"))
    # In one gauge: the mean of both halves is close to what all their photons give.
    apart = np.linalg.norm((first + second) / 2 - reference_object[inside])
    assert apart < 0.7 * np.linalg.norm(first - second)


def test_a_dose_that_was_not_measured_is_refused(folder: Path) -> None:
    params = write_params(folder, **{**CHANGES, "doses": [1000, 10000, 70000]})
    left = cells.MEASURED_FILE.read_bytes()
    with pytest.raises(
        StudyError, match=r"^dose 70000: the frames have 5\d{4}\.?\d* photons .*; take it out of doses"
    ):
        expose.main(70000, params)
    with pytest.raises(StudyError, match=r"^dose 70000: the frames have"):
        reference.main(params)
    assert cells.MEASURED_FILE.read_bytes() == left


def test_without_a_truth_nothing_learns_from_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = write_params(folder, **{**CHANGES, "learned": ["supervised"]})
    with pytest.raises(StudyError, match=r"learned: supervised learns from the true object, .*; take it out"):
        check.main(params)
    with pytest.raises(StudyError, match=r"^supervised: learns from the true object"):
        train.main("supervised", params)
    assert "supervised" not in all_methods(load_study(params))["learned"]
    assert "left out: supervised" in capsys.readouterr().err
    simulated = overridden(params, ["base.frames=simulated", "learned=[]"])
    assert "supervised" in all_methods(simulated)["learned"]
    made = write_params(tmp_path, **{**CHANGES, "base": {"source": "synthetic"}})
    assert "supervised" not in all_methods(overridden(made, ["base.source=mine.npz"]))["learned"]
    write_params(folder, **{**CHANGES, "base": {"source": "mine.npz", "frames": "simulated"}})


def test_frames_must_be_there_to_be_measured(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_file(tmp_path / "mine.npz")
    rewrite("mine.npz", "bare.npz", counts=None)
    changed = {**CHANGES, "base": {"source": "bare.npz", "frames": "measured"}}
    with pytest.raises(StudyError, match=r"^bare.npz: has no frames; base.frames: simulated"):
        base.main(write_params(tmp_path, **changed))
    for own in (
        {"counts_per_photon": 3.0},
        {"fields": {"frames": "a"}},
        {"mend": {"turn": ["invert_y"], "bad_pixels": [], "leave_out": []}},
    ):
        params = write_params(tmp_path, **{**CHANGES, "base": {"source": "synthetic", **own}})
        with pytest.raises(
            StudyError, match="fields, counts_per_photon and mend are of a file, and source is"
        ):
            check.main(params)
    with pytest.raises(StudyError, match="frames: measured needs a file, and source is synthetic"):
        write_and_load(tmp_path, {"source": "synthetic", "frames": "measured"})


def write_and_load(folder: Path, section: dict[str, Any]) -> None:
    load_study(write_params(folder, base=section))


def test_units_of_a_detector_are_refused_until_it_is_said_how_many_make_a_photon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    counts = write_file(tmp_path / "plain.npz") * (1e4 / PHOTONS)
    photons = np.random.default_rng(1).poisson(counts)
    write_file(tmp_path / "mine.npz", counts=np.rint(4.4 * photons).astype(np.uint16))
    changed = {**CHANGES, "base": {"source": "mine.npz"}}
    message = (
        r"^mine.npz: counts do not scatter as photons do: .*; state base.counts_per_photon, [34].* whiten"
    )
    with pytest.raises(StudyError, match=message):
        base.main(write_params(tmp_path, **changed))
    changed["base"] = {"source": "mine.npz", "counts_per_photon": 4.4}
    base.main(write_params(tmp_path, **changed))
    found = read_base(cells.BASE_FILE).amplitude
    assert found is not None
    np.testing.assert_array_equal(np.rint(found[:] ** 2), photons)


def test_charge_that_pixels_share_is_whitened_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    units = 10 * rng.poisson(write_file(tmp_path / "plain.npz") * (1e3 / PHOTONS))
    kept = rng.binomial(units, 0.5)
    right = rng.binomial(units - kept, 0.5)
    shared = kept + np.roll(right, 1, axis=2) + np.roll(units - kept - right, 1, axis=1)
    write_file(tmp_path / "mine.npz", counts=shared.astype(np.uint16))
    changed = {**CHANGES, "base": {"source": "mine.npz", "noise": "whiten"}}
    base.main(write_params(tmp_path, **changed))
    noise = json.loads(cells.BASE_METRICS.read_text())
    assert noise["units_per_photon"] == pytest.approx(10, rel=0.2)
    assert noise["fano_before"] > 3 > 1.2 > noise["fano_after"] > 0.8
    assert noise["neighbours_before"] > 0.5 > 0.1 > abs(noise["neighbours_after"])
    found = read_base(cells.BASE_FILE)
    assert found.amplitude is not None
    whole = found.amplitude[:] ** 2
    np.testing.assert_allclose(whole, np.rint(whole), atol=1e-4)
    assert found.record["data_transformations"][-2]["operation"] == "divide_by_noise_spectrum"


def test_whitening_is_for_measured_frames_alone(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="noise: whiten is for measured frames"):
        write_and_load(tmp_path, {"source": "synthetic", "noise": "whiten"})
    with pytest.raises(StudyError, match="counts_per_photon must be null"):
        write_and_load(tmp_path, {"source": "mine.npz", "noise": "whiten", "counts_per_photon": 4.0})


def test_a_single_frame_is_refused_before_its_reference_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_file(tmp_path / "all.npz")
    rewrite("all.npz", "mine.npz", **dict.fromkeys(("counts", "xcoords", "ycoords"), slice(1)))
    write_params(tmp_path, **{**CHANGES, "base": {"source": "mine.npz"}})
    base.main()
    monkeypatch.setattr("fly64_dose_overlap.pipeline.reference._reconstructed", None)
    with pytest.raises(StudyError, match=r"frames light 1 x 1 object pixels evenly|scoring region"):
        reference.main()


def test_frames_are_not_looked_at_where_others_are_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    counts = write_file(tmp_path / "mine.npz")
    rng = np.random.default_rng(1)
    shape = (100, 100)
    obj = (1 + 0.1 * rng.random(shape) + 0.1j * rng.random(shape)).astype(np.complex64)
    write_file(tmp_path / "mine.npz", counts=counts / counts.max(), objectGuess=obj)
    with pytest.raises(StudyError, match="must hold counted photons"):
        base.main(write_params(tmp_path, **{**CHANGES, "base": {"source": "mine.npz"}}))
    changed = {"source": "mine.npz", "frames": "simulated"}
    base.main(write_params(tmp_path, **{**CHANGES, "base": changed}))
    assert read_base(cells.BASE_FILE).amplitude is None


def test_a_choice_for_frames_is_refused_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_file(tmp_path / "all.npz")
    rewrite("all.npz", "mine.npz", counts=None)
    for choice in ({"noise": "whiten"}, {"counts_per_photon": 3.0}):
        with pytest.raises(StudyError, match=r"^mine.npz: gives no frames whose noise could be changed; "):
            base.main(write_params(tmp_path, **{**CHANGES, "base": {"source": "mine.npz", **choice}}))


def test_no_measured_cell_is_scored_as_a_simulated_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A queued experiment starts without data/reference: it is fetched, or the cell fails."""
    asked: list[tuple[str, ...]] = []

    def run_command(*line: str, where: str) -> str:
        asked.append(line)
        cells.REFERENCE.symlink_to(tmp_path / "reference")
        return where

    monkeypatch.setattr(evaluate, "run_command", run_command)
    cells.REFERENCE.rename(tmp_path / "reference")
    params = write_params(folder, **CHANGES)
    with pytest.raises(StudyError, match=r"data/reference/measured.npz: no such file"):
        expose.main(1000, params)
    evaluate.main(params)
    assert asked == [("dvc", "pull", "data/reference")]
    assert json.loads(cells.EVALUATION.read_text())["conventions"]["frames"] == "measured"


def test_few_photons_make_no_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fly64_dose_overlap.config import ReferenceParams
    from fly64_dose_overlap.pipeline.reference import make_reference

    found = read_base(cells.BASE_FILE)
    dim = np.zeros((len(found.positions_px), 32, 32), np.float32)
    dim[:, 16, 16] = 1
    with pytest.raises(StudyError, match=r"^reference: of 81 photons in all, .* has 24\.3; it takes 1000"):
        make_reference(replace(found, amplitude=dim), ReferenceParams(seed=1, fraction=0.7, epochs=5))


@pytest.mark.slow
def test_a_reference_finds_a_probe_and_doses_keep_the_one_that_was_given() -> None:
    from fly64_dose_overlap.config import NOTHING_TO_REFINE, ReferenceParams
    from fly64_dose_overlap.methods.searches import defocused
    from fly64_dose_overlap.pipeline.reference import make_reference

    found = read_base(cells.BASE_FILE)
    wrong = replace(found, probe=defocused(found.probe, 1.5))
    settings = ReferenceParams(seed=1, fraction=0.7, epochs=20)
    told = make_reference(wrong, settings)
    blind = make_reference(wrong, settings, refine=NOTHING_TO_REFINE.model_copy(update={"probe": True}))
    errors = [each.figures["fit_of_other_photons"]["divergence"] for each in (blind, told)]
    assert errors[0] < 0.5 * errors[1]
    given, kept = (each / np.linalg.norm(each) for each in (wrong.probe, blind.study.probe))
    np.testing.assert_allclose(kept, given, atol=1e-5)
