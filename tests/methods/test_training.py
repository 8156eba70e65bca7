"""Learned methods, trained on a tiny scan: the same bytes whatever happens, and what they give."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tiny_scan
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.dataset import write_scan
from fly64_dose_overlap.learning import correction, trainer
from fly64_dose_overlap.methods.base import Learned, Training
from fly64_dose_overlap.methods.held_out import HeldOut
from fly64_dose_overlap.physics.likelihood import scan_deviance
from fly64_dose_overlap.scores.monitor import TruthMonitor

EPOCHS = 4
STOP = HeldOut(0.1, 3, seed=1)
LEARNED = ("network", "refined", "supervised")
WHERE: dict[str, Any] = {"bundle": Path("model"), "curves": Path("curves"), "checkpoints": Path("states")}
every_method = pytest.mark.parametrize("name", LEARNED)


def method(name: str, **changes: Any) -> Learned:
    values = {"epochs": EPOCHS, "steps_per_epoch": 2, **changes}
    if name != "supervised":
        values = {"iterations": 2, "least_seen": 0.1, **values}
    made = tiny_scan.method(name, **values)
    assert isinstance(made, Learned)
    return made


def train(name: str, *, training: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    made = method(name, **changes)
    truth = tiny_scan.truth() if made.needs_truth else None
    where: dict[str, Any] = {"seed": 1, **WHERE, **(training or {})}
    return made.train(tiny_scan.scan(), Training(**where), truth)[0]


def results() -> dict[str, bytes]:
    paths = [WHERE["bundle"], *(path for path in WHERE["curves"].rglob("*") if path.is_file())]
    return {str(path): path.read_bytes() for path in paths}


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Few, so that some are left out at the end and made again after an interruption.
    monkeypatch.setattr(correction, "KEPT_REALISATIONS", 3)
    monkeypatch.setattr(correction, "VALIDATION_CROPS", 4)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module", params=LEARNED)
def undisturbed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, bytes]]:
    """Return a method and the files of its training without incident."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp(request.param))
        patch.setattr(correction, "KEPT_REALISATIONS", 3)
        patch.setattr(correction, "VALIDATION_CROPS", 4)
        train(request.param)
        return request.param, results()


@pytest.mark.parametrize("finished", [1, EPOCHS - 1])
def test_an_interrupted_training_ends_as_if_it_had_not_been(
    finished: int,
    undisturbed: tuple[str, dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, wanted = undisturbed
    backward, calls = torch.Tensor.backward, 0

    def interrupted(*arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2 * finished + 2:
            raise KeyboardInterrupt
        backward(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(name)
    assert not WHERE["bundle"].exists()
    capsys.readouterr()
    train(name)
    assert f"{name}: resumed from the checkpoint of epoch {finished}/{EPOCHS}" in capsys.readouterr().err
    assert results() == wanted


def test_the_monitor_is_only_logged(undisturbed: tuple[str, dict[str, bytes]]) -> None:
    name, wanted = undisturbed
    data = Path("train.npz")
    write_scan(data, tiny_scan.scan(), tiny_scan.truth())
    whole = (slice(0, 100), slice(0, 100))
    train(name, training={"monitor": TruthMonitor(data, tiny_scan.scan(), whole)})
    found = results()
    assert found["model"] == wanted["model"]
    added = {Path(path).name for path in found.keys() - wanted.keys()}
    assert added == {"psnr.tsv", "ssim.tsv"}
    same = [path for path in wanted if not path.endswith("metrics.json")]
    assert {path: found[path] for path in same} == {path: wanted[path] for path in same}


def test_one_thread_and_two_train_the_same(
    undisturbed: tuple[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, wanted = undisturbed
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    train(name)
    assert results() == wanted


@every_method
def test_the_seed_decides(name: str) -> None:
    models: list[bytes] = []
    for seed in (1, 2):
        train(name, epochs=1, training={"seed": seed, "curves": None, "checkpoints": None})
        models.append(WHERE["bundle"].read_bytes())
    assert models[0] != models[1]


@every_method
def test_outcome_and_bundle_agree(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = train(name, epochs=2)
    made = method(name)
    made.load(WHERE["bundle"])
    info, scan = vars(made)["_info"], tiny_scan.scan()
    assert (info.frame_side_px, info.support_side_px, info.width) == (32, 28, 4)
    assert info.record == scan.record
    assert outcome["sha256"] == sha256_of(WHERE["bundle"]) == made.model["model_sha256"]
    assert outcome["size_bytes"] == WHERE["bundle"].stat().st_size
    assert outcome["epochs"] == 2
    assert all(outcome[key] == info.training[key] for key in ("best_epoch", "train_loss", "val_loss"))
    assert info.training.items() >= {**method(name).settings.model_dump(), "epochs": 2}.items()
    assert f"{name}: epoch 2/2: train/loss " in capsys.readouterr().err
    if name == "supervised":
        frames = scan.counts[:][trainer.split_frames(scan.positions_px, 0.4)[0]]
        photons = float(frames.sum(dtype=np.float64)) / len(frames)
        mean_frame = np.sqrt(frames).mean(axis=0) / (photons / 32**2) ** 0.5
        np.testing.assert_allclose(
            vars(made)["_network"].mean_frame.numpy(), mean_frame, rtol=1e-4, atol=1e-6
        )
    else:
        photons = scan.photons_per_frame
        assert info.gridsize == 2
        assert info.start == {"iterations": 2} | ({"weight": 0.4} if name == "refined" else {})
    assert info.photons_per_frame == pytest.approx(photons, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("network", {"steps_per_epoch": 12, "iterations": 3, "learning_rate": 0.005}),
        ("supervised", {"steps_per_epoch": 20, "frames_per_step": 24, "learning_rate": 0.005}),
    ],
)
def test_validation_loss_falls(name: str, changes: dict[str, Any]) -> None:
    outcome = train(name, **changes)
    with (WHERE["curves"] / "plots/metrics/val/loss.tsv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file, delimiter="\t")]
    assert outcome["val_loss"] == min(losses)
    assert losses[-1] < losses[0] - 0.003


@pytest.mark.parametrize("changes", [{"loss": "mae"}, {"target": "same"}, {"iterations": 0}])
def test_options_train(changes: dict[str, Any]) -> None:
    outcome = train("network", epochs=1, **changes)
    assert 0 < outcome["val_loss"] < 100


# What they give


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the models of all methods, trained for an epoch."""
    root = tmp_path_factory.mktemp("models")
    for name in LEARNED:
        train(name, epochs=1, training={"bundle": root / name, "curves": None, "checkpoints": None})
    return {name: root / name for name in LEARNED}


def loaded(name: str, trained: dict[str, Path]) -> Learned:
    made = method(name, **({"likelihood_epochs": 3} if name == "network" else {}))
    made.load(trained[name])
    return made


def test_results_of_the_network(trained: dict[str, Path]) -> None:
    scan, model = tiny_scan.scan(), {"model_sha256": sha256_of(trained["network"])}
    start, image, likelihood = loaded("network", trained).results(scan, STOP)
    assert [each.name for each in (start, image, likelihood)] == ["group_start", "network", "network_ml"]
    assert [each.label for each in (start, image, likelihood)] == ["group start", "network", "network + ML"]
    assert [each.kind for each in (start, image, likelihood)] == ["reference", "learned", "learned"]
    assert (start.settings, image.settings) == ({}, model)
    epochs = likelihood.settings["epochs"]
    assert likelihood.settings == {"epochs": epochs, "stop": "held-out photons", **model}
    assert 0 <= epochs <= 3
    assert epochs == int(np.argmin(likelihood.loss))
    deviances = [scan_deviance(scan.model, scan.counts, each.state.obj) for each in (image, likelihood)]
    assert (deviances[1] < deviances[0]) == (epochs > 0)
    assert start.timing.seconds < image.timing.seconds < likelihood.timing.seconds
    (state,) = loaded("network", trained).run(scan, 1)
    assert torch.equal(state.obj, image.state.obj)


def test_the_image_that_chooses_has_not_seen_the_held_out_photons(
    trained: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    photons: list[float] = []
    estimate = correction.Imager.estimate

    def watched(self: Any, scan: Any, fraction: float = 1.0) -> Any:
        photons.extend((float(scan.counts[:].sum()), fraction))
        return estimate(self, scan, fraction)

    monkeypatch.setattr(correction.Imager, "estimate", watched)
    list(loaded("network", trained).results(tiny_scan.scan(), STOP))
    whole = float(tiny_scan.scan().counts[:].sum())
    assert photons == [whole, 1.0, float(STOP.split(tiny_scan.scan())[0].counts[:].sum()), 0.9]


@pytest.mark.parametrize("name", ["refined", "supervised"])
def test_results_of_the_others_are_one_image(name: str, trained: dict[str, Path]) -> None:
    (found,) = loaded(name, trained).results(tiny_scan.scan(), STOP)
    assert (found.name, found.label, found.kind) == (name, name, "learned")
    assert found.settings == {"model_sha256": sha256_of(trained[name])}
    assert found.state.obj.shape == tiny_scan.scan().object_shape
    assert found.timing.seconds > 0


@every_method
def test_the_settings_of_the_estimate_are_those_of_the_training(name: str, trained: dict[str, Path]) -> None:
    if name == "supervised":
        return
    made = method(name, iterations=9)
    made.load(trained[name])
    (first,), (second,) = (each.run(tiny_scan.scan(), 1) for each in (made, loaded(name, trained)))
    assert torch.equal(first.obj, second.obj)


@every_method
def test_one_thread_and_two_reconstruct_the_same(
    name: str, trained: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bytes] = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        results_of = loaded(name, trained).results(tiny_scan.scan(), STOP)
        found.append(b"".join(each.state.obj.numpy().tobytes() for each in results_of))
    assert found[0] == found[1]


@every_method
def test_another_methods_model_is_refused(name: str, trained: dict[str, Path]) -> None:
    other = trained["network" if name != "network" else "refined"]
    with pytest.raises(StudyError, match=r"is no model bundle of format fly64-dose-overlap/.*; train again$"):
        method(name).load(other)
    with pytest.raises(MissingFileError, match=r"^none: no such model bundle; train the method first$"):
        method(name).load(Path("none"))


@pytest.mark.parametrize("name", ["network", "refined"])
def test_a_scan_in_other_groups_is_refused(name: str, trained: dict[str, Path]) -> None:
    made = loaded(name, trained)
    with pytest.raises(StudyError, match=r"^scan: has groups of 1 frames, the network was trained on groups"):
        list(made.run(tiny_scan.scan(1), 1))


def test_a_truth_is_needed_by_the_supervised_network_alone() -> None:
    assert [method(name).needs_truth for name in LEARNED] == [False, False, True]
    with pytest.raises(StudyError, match=r"^supervised: needs the true object; leave the method out"):
        method("supervised").train(tiny_scan.scan(), Training(1, Path("model")))


# The supervised network


def test_frames_that_are_held_back_and_their_object_teach_nothing(tmp_path: Path) -> None:
    scan, truth = tiny_scan.scan(), tiny_scan.truth()
    y = scan.positions_px[:, 0]
    held_back = y > y.max() - 0.4 * np.ptp(y)
    counts, obj = scan.counts[:].copy(), truth.copy()
    counts[held_back] = 81
    obj[int(np.ceil(y[~held_back].max())) + 15 :] = 5
    bundles: list[bytes] = []
    for each, taught in ((scan, truth), (scan.with_counts(counts, 1.0), obj)):
        made = method("supervised", epochs=1)
        made.train(each, Training(1, tmp_path / "bundle"), taught)
        made.load(tmp_path / "bundle")
        weights = vars(made)["_network"].state_dict()
        bundles.append(b"".join(tensor.numpy().tobytes() for tensor in weights.values()))
    assert bundles[0] == bundles[1]


def supervised_task(truth: NDArray[np.complex64], **changes: Any) -> Any:
    from fly64_dose_overlap.methods.supervised import SupervisedTask

    settings: Any = method("supervised", **changes).settings
    return SupervisedTask(settings, tiny_scan.scan(), truth, Training(1, Path("model")))


def test_a_step_takes_no_more_frames_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from fly64_dose_overlap.methods import supervised

    counted: list[int] = []
    errors = supervised.patch_errors

    def count(found: torch.Tensor, *rest: Any) -> torch.Tensor:
        counted.append(len(found))
        return errors(found, *rest)

    monkeypatch.setattr(supervised, "patch_errors", count)
    for frames in (5, 1000):
        task = supervised_task(tiny_scan.truth(), frames_per_step=frames)
        task.loss(task.network, np.random.default_rng(0))
    training = trainer.split_frames(tiny_scan.scan().positions_px, 0.4)[0]
    assert counted == [5, len(training)]


def test_the_untrained_error_is_that_of_the_empty_object() -> None:
    task = supervised_task(np.full((100, 100), 0.8 * np.exp(0.5j), np.complex64))
    assert task.loss(task.network, np.random.default_rng(0)).item() == pytest.approx(0.7, rel=1e-5)


def test_errors_add_amplitude_and_phase_and_count_by_the_light() -> None:
    from fly64_dose_overlap.methods.supervised import patch_errors

    truth = torch.polar(torch.tensor([[[2.0, 1.0]]]), torch.tensor([[[0.5, -3.0]]]))
    found = torch.tensor([[[[1.5, 1.0]], [[0.25, 3.0]]]])
    light = torch.tensor([[3.0, 1.0]])
    wanted = 0.75 * (0.5 + 0.25) + 0.25 * 6.0
    assert patch_errors(found, truth, light).item() == pytest.approx(wanted)
    assert patch_errors(found, truth, 7 * light).item() == pytest.approx(wanted)
    exact = torch.stack((truth.abs(), truth.angle()), dim=1)
    assert patch_errors(exact, truth, light).item() == 0
