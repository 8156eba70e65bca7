"""Stage expose: two halves of one scan, their provenance and their metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fly64_dose_overlap import provenance
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.dataset import read_base, read_scan, read_truth
from fly64_dose_overlap.pipeline.cells import BASE_FILE, dose_file
from fly64_dose_overlap.pipeline.stages import base, expose
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.study.dose import BLOCK_FRAMES, Simulation, draw_counts
from tiny_study import write_params

DOSE = 1000
FRAMES = 17 * 17


@pytest.fixture(autouse=True)
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = write_params(tmp_path, base={"step_px": 6.0})
    base.main(path)
    return path


def simulated(half: str) -> Scan:
    return read_scan(dose_file(DOSE, half))


def metrics() -> dict[str, Any]:
    return json.loads(Path(f"metrics/dose/{DOSE}.json").read_text())


def test_both_halves_hold_frames_of_the_one_scan(study: Path) -> None:
    expose.main(DOSE, study)
    source = read_base(BASE_FILE)
    assert FRAMES == len(source.positions_px) > BLOCK_FRAMES
    scan = Simulation(source).with_dose(DOSE)[0]
    counts = np.concatenate(list(draw_counts(scan, seed=42, dose=DOSE)))
    for half in ("train", "test"):
        data = simulated(half)
        np.testing.assert_array_equal(data.counts[:], counts[data.scan_index])
        np.testing.assert_array_equal(data.positions_px, source.positions_px[data.scan_index])
        np.testing.assert_array_equal(read_truth(dose_file(DOSE, half)), source.obj)
        np.testing.assert_array_equal(data.probe, scan.probe)
        assert data.groups is None


def test_the_gap_is_one_pixel_wider_than_a_frame_unless_set(study: Path, tmp_path: Path) -> None:
    expose.main(DOSE, study)
    low, high = simulated("train").positions_px[:, 0], simulated("test").positions_px[:, 0]
    assert np.floor(high).min() - np.ceil(low).max() >= 32
    assert metrics()["split"]["guard_gap_px"] == 33
    assert len(low) + len(high) + metrics()["split"]["frames_dropped"] == FRAMES
    expose.main(DOSE, write_params(tmp_path, expose={"guard_gap_px": 0.0}))
    assert len(simulated("train")) + len(simulated("test")) == FRAMES
    assert metrics()["split"]["frames_dropped"] == 0


def test_the_same_parameters_give_the_same_bytes(study: Path) -> None:
    files = [dose_file(DOSE, "train"), dose_file(DOSE, "test"), Path(f"metrics/dose/{DOSE}.json")]
    expose.main(DOSE, study)
    first = [path.read_bytes() for path in files]
    expose.main(DOSE, study)
    assert [path.read_bytes() for path in files] == first
    assert [path.name for path in sorted(files[0].parent.iterdir())] == ["test.npz", "train.npz"]


def test_another_seed_gives_other_counts_at_the_same_positions(study: Path, tmp_path: Path) -> None:
    expose.main(DOSE, study)
    first = simulated("train")
    expose.main(DOSE, write_params(tmp_path, expose={"seed": 43}))
    second = simulated("train")
    np.testing.assert_array_equal(first.positions_px, second.positions_px)
    assert not np.array_equal(first.counts[:], second.counts[:])


def test_measured_doses_are_those_of_the_files(study: Path) -> None:
    expose.main(DOSE, study)
    found = metrics()
    for half in ("train", "test"):
        data = simulated(half)
        photons = data.counts[:].sum(axis=(1, 2), dtype=np.float64)
        assert found[half]["frames"] == len(photons)
        assert found[half]["photons_per_frame_mean"] == pytest.approx(photons.mean(), rel=1e-12)
        assert found[half]["photons_per_pixel_mean"] == pytest.approx(photons.mean() / 32**2, rel=1e-12)
        assert found[half]["photons_per_frame_min"] == photons.min()
        assert found[half]["photons_per_frame_max"] == photons.max()
    assert found["photons_per_frame_nominal"] == DOSE
    assert found["whole"]["frames"] == FRAMES
    # The standard error of the scan's mean is sqrt(1000 / 289) photons.
    assert found["whole"]["photons_per_frame_mean"] == pytest.approx(DOSE, abs=8)


def test_provenance_continues_that_of_the_base_set(study: Path) -> None:
    expose.main(DOSE, study)
    data = simulated("test")
    record = data.record
    assert provenance.steps(record) == ["gauge", "simulate", "split_dataset"]
    _, drawn, split = (step["parameters"] for step in record["data_transformations"])
    assert record["additional_parameters"] == read_base(BASE_FILE).record["additional_parameters"]
    assert record["physics_parameters"]["photons_per_frame_nominal"] == DOSE
    assert drawn["measured"] == metrics()["whole"]
    assert drawn["seed"] == 42
    assert (drawn["parent"], drawn["parent_sha256"]) == ("data/base/base.npz", sha256_of(BASE_FILE))
    powers = [
        np.sum(np.abs(probe.astype(np.complex128)) ** 2) for probe in (data.probe, read_base(BASE_FILE).probe)
    ]
    assert drawn["amplitude_factor"] ** 2 == pytest.approx(powers[0] / powers[1], rel=1e-5)
    assert (split["half"], split["axis"], split["fraction"]) == ("test", "y", 0.5)
    assert split["measured"] == metrics()["test"]
    assert split["frames_test"] == len(data)
    assert split["frames_train"] + split["frames_test"] + split["frames_dropped"] == FRAMES
    assert (split["cut_px"], split["guard_gap_px"]) == (metrics()["split"]["cut_px"], 33.0)
    assert split["parent"] == "data/base/base.npz"


def test_a_dose_without_a_stage_is_refused(study: Path) -> None:
    with pytest.raises(StudyError, match=r"--dose: 3000 is not among doses"):
        expose.main(3000, study)


def test_a_gap_wider_than_the_scan_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    params = write_params(tmp_path, expose={"guard_gap_px": 500.0})
    with pytest.raises(StudyError, match=r"the training half is empty: none of 289 frames .*smaller"):
        expose.main(DOSE, params)
    assert not dose_file(DOSE, "train").exists()


def test_a_missing_base_set_is_named(study: Path) -> None:
    BASE_FILE.unlink()
    with pytest.raises(MissingFileError, match=r"data/base/base.npz: no such file"):
        expose.main(DOSE, study)
