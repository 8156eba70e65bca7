"""The trainer, on a real scan of a few frames."""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fly64_dose_overlap.learning.physics_informed import PhysicsInformed
from fly64_dose_overlap.learning.validation import Validation
from torch import Tensor, nn

import tiny_scan
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import write_dataset
from fly64_dose_overlap.learning import TrainingJob, physics_informed, trainer, validation
from fly64_dose_overlap.learning.bundle import load_bundle
from fly64_dose_overlap.learning.checkpoint import CheckpointStore
from fly64_dose_overlap.learning.trainer import resolve_precision, train_cell
from fly64_dose_overlap.results.timings import Stopwatch, Timing, read_timing

EPOCHS = 6
CROPS = 4
KEPT = 4
DATA = Path("train.npz")
JOB = TrainingJob(10000, "dense", 2, DATA, DATA, Path("model"), Path("model/train.log"), Path("curves"))
BUNDLE = JOB.artifact_dir / trainer.BUNDLE_NAME


def train(**changes: Any) -> dict[str, Any]:
    values = {"epochs": EPOCHS, "steps_per_epoch": 2, "start_iterations": 1, "least_seen": 0.1, **changes}
    return train_cell(
        PhysicsInformed, config=tiny_scan.train_params(**values), job=JOB, log=logging.Logger("test")
    )


def results() -> dict[str, bytes]:
    paths = [BUNDLE, *(path for path in JOB.curves_dir.rglob("*") if path.is_file())]
    return {str(path): path.read_bytes() for path in paths}


def curve(name: str) -> list[float]:
    with (JOB.curves_dir / f"plots/metrics/{name}.tsv").open() as file:
        return [float(row[name.split("/")[1]]) for row in csv.DictReader(file, delimiter="\t")]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    write_dataset(root / DATA, tiny_scan.scan_dataset())
    return root


@pytest.fixture(scope="module")
def undisturbed(study: Path) -> dict[str, bytes]:
    """Return the files of a training without incident."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(study)
        patch.setattr(validation, "CROPS", CROPS)
        patch.setattr(physics_informed, "KEPT_REALISATIONS", KEPT)
        outcome = train()
        assert outcome["resumed_from_epoch"] == 0
        return results()


@pytest.fixture(autouse=True)
def _in_study(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "CROPS", CROPS)
    monkeypatch.setattr(physics_informed, "KEPT_REALISATIONS", KEPT)
    monkeypatch.chdir(tmp_path)
    shutil.copy(study / DATA, DATA)


def test_outcome_and_bundle_agree() -> None:
    outcome = train(epochs=2)
    _, info = load_bundle(BUNDLE)
    dataset = tiny_scan.scan_dataset()
    assert (info.frame_side_px, info.support_side_px, info.gridsize) == (32, 28, 2)
    assert info.photons_per_frame == pytest.approx(float((dataset.amplitude[:] ** 2).sum()) / 81, rel=1e-5)
    assert info.record == dataset.record
    for key in ("epochs", "best_epoch", "train_loss", "val_loss"):
        assert outcome[key] == (2 if key == "epochs" else info.training[key])
    assert outcome["status"] == "success"
    assert outcome["size_bytes"] == BUNDLE.stat().st_size
    timing = read_timing(Path.cwd(), outcome["sha256"])
    assert timing is not None
    assert 0 < timing.cpu_seconds < 60
    assert not list(Path(".dvc/tmp/checkpoints").iterdir())


def test_two_trainings_give_equal_bytes(undisturbed: dict[str, bytes]) -> None:
    train()
    assert results() == undisturbed
    assert all(len(curve(name)) == EPOCHS for name in ("train/loss", "val/loss", "val/psnr", "val/ssim"))


def test_validation_loss_falls() -> None:
    outcome = train(epochs=4, steps_per_epoch=12, start_iterations=3, learning_rate=0.005)
    losses = curve("val/loss")
    assert outcome["val_loss"] == min(losses)
    assert losses[-1] < losses[0] - 0.003


@pytest.mark.parametrize("finished", [1, 5])
def test_an_interrupted_training_ends_as_if_it_had_not_been(
    finished: int,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    losses, calls = physics_informed.loss_of, 0

    def interrupted(*arguments: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 2 * finished + 2:
            raise KeyboardInterrupt
        return losses(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(physics_informed, "loss_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train()
    assert not BUNDLE.exists()
    capsys.readouterr()
    assert train()["resumed_from_epoch"] == finished
    assert f"resumed from the checkpoint of epoch {finished}/{EPOCHS}" in capsys.readouterr().err
    assert results() == undisturbed


def test_a_damaged_checkpoint_costs_one_epoch_and_changes_nothing(
    undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(physics_informed, "save_bundle", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            train()
    (last,) = Path(".dvc/tmp/checkpoints").glob("*/last.pt")
    last.write_bytes(last.read_bytes()[:-100])
    capsys.readouterr()
    assert train()["resumed_from_epoch"] == EPOCHS - 1
    assert "checkpoint last.pt is damaged" in capsys.readouterr().err
    assert results() == undisturbed


def test_a_checkpoint_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(physics_informed, "save_bundle", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(epochs=1, steps_per_epoch=1)
    (folder,) = Path(".dvc/tmp/checkpoints").iterdir()
    CheckpointStore(folder).save({"weights": {}, "spent": {"seconds": 1.0, "cpu_seconds": 1.0}})
    with pytest.raises(StudyError, match=r"holds a checkpoint that does not fit .*; delete the folder$"):
        train(epochs=1, steps_per_epoch=1)


def test_the_checkpoint_of_another_training_is_not_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(physics_informed, "save_bundle", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(epochs=1, steps_per_epoch=1)
    assert train(epochs=1, steps_per_epoch=1, seed=9)["resumed_from_epoch"] == 0
    assert train(epochs=1, steps_per_epoch=1)["resumed_from_epoch"] == 1


def test_time_before_an_interruption_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(physics_informed, "save_bundle", _interrupt)
        patch.setattr(trainer, "Stopwatch", hour_old)
        with pytest.raises(KeyboardInterrupt):
            train(epochs=1)
    timing = read_timing(Path.cwd(), train(epochs=1)["sha256"])
    assert timing is not None
    assert 3600 < timing.seconds < 3900
    assert 1800 < timing.cpu_seconds < 1900


def hour_old() -> Stopwatch:
    stopwatch = Stopwatch()
    stopwatch.add(Timing(seconds=3600, cpu_seconds=1800))
    return stopwatch


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def diverge_at(call: int, value: float = torch.nan) -> Callable[..., Tensor]:
    calls = 0
    losses = physics_informed.loss_of

    def loss_of(*arguments: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return losses(*arguments) * (value if calls == call else 1)

    return loss_of


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_stops_with_one_line(
    value: float, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = (
        rf"^train dense/dose=10000: the loss is {value} in epoch 2, step 2; "
        r"the last checkpoint is kept; lower train\.learning_rate$"
    )
    with monkeypatch.context() as patch:
        patch.setattr(physics_informed, "loss_of", diverge_at(4, value))
        with pytest.raises(StudyError, match=message):
            train()
    assert not BUNDLE.exists()
    assert train()["resumed_from_epoch"] == 1
    assert results() == undisturbed


def test_a_validation_loss_that_is_not_finite_stops_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "loss_of", diverge_at(1))
    message = r"^train dense/dose=10000: the validation loss is nan in epoch 1; the last checkpoint is kept"
    with pytest.raises(StudyError, match=message):
        train(epochs=1, steps_per_epoch=1)


def test_training_stops_without_progress_and_keeps_the_best_network(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, 0.5, 0.7, 0.5, 0.1])
    seen: list[dict[str, Tensor]] = []

    def measure(_: Validation, network: nn.Module) -> dict[str, float]:
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return {"val/loss": next(losses)}

    monkeypatch.setattr(Validation, "measure", measure)
    outcome = train(patience=2)
    assert (outcome["epochs"], outcome["best_epoch"], outcome["val_loss"]) == (4, 2, 0.5)
    assert outcome["train_loss"] == curve("train/loss")[1]
    weights = load_bundle(BUNDLE)[0].state_dict()
    same = [all(torch.equal(w, epoch[name]) for name, w in weights.items()) for epoch in _plain(seen)]
    assert same == [False, True, False, False]


def _plain(seen: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    prefixes = ("_forward_module.", "_original_module.")
    return [
        {name.removeprefix(prefixes[0]).removeprefix(prefixes[1]): tensor for name, tensor in state.items()}
        for state in seen
    ]


@pytest.mark.parametrize("changes", [{"loss": "mae"}, {"target": "same"}, {"start_iterations": 0}])
def test_options_train(changes: dict[str, Any]) -> None:
    outcome = train(epochs=1, **changes)
    assert outcome["status"] == "success"
    assert 0 < outcome["val_loss"] < 100
    assert load_bundle(BUNDLE)[1].training.items() >= changes.items()


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    train(epochs=1, steps_per_epoch=1, threads=2 if before == 1 else 1)
    assert torch.get_num_threads() == before


def test_precision_may_be_fixed_or_found() -> None:
    assert resolve_precision(tiny_scan.train_params(precision="bf16-mixed")) == "bf16-mixed"
    assert resolve_precision(tiny_scan.train_params(precision="auto")) in {"bf16-mixed", "32-true"}
