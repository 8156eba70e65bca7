"""The trainer, on a network of two numbers."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dvclive import studio
from torch import Tensor, nn

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.learning import trainer
from fly64_dose_overlap.learning.bundle import load_bundle, save_bundle
from fly64_dose_overlap.learning.checkpoint import CheckpointStore
from fly64_dose_overlap.learning.layers import build_seeded
from fly64_dose_overlap.learning.trainer import TrainingSettings, resolve_precision, train
from fly64_dose_overlap.learning.training import Training
from fly64_dose_overlap.timing import Stopwatch, Timing

EPOCHS = 6
BUNDLE, CURVES, CHECKPOINTS = Path("model.safetensors"), Path("curves"), Path("checkpoints")
SETTINGS = TrainingSettings(
    epochs=EPOCHS, steps_per_epoch=3, learning_rate=0.05, patience=9, device="cpu", precision="32-true"
)


@dataclass(frozen=True)
class LineInfo:
    """What the weights of a line belong to."""

    outcome: dict[str, Any]


class Line:
    """Learns y = 2 x; the loss is multiplied by what a test wants in some call."""

    name = "line"

    def __init__(
        self, factors: dict[int, float] | None = None, validation: Callable[[int], float] | None = None
    ) -> None:
        self.network: nn.Module = build_seeded(lambda: nn.Linear(1, 1), seed=3)
        self.epochs: list[int] = []
        self.calls = 0
        self.seen: list[dict[str, Tensor]] = []
        self._factors = factors or {}
        self._validation = validation

    def start_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def loss(self, network: nn.Module, rng: np.random.Generator) -> Tensor:
        self.calls += 1
        if self._factors.get(self.calls) == 0:
            raise KeyboardInterrupt
        x = torch.from_numpy(rng.normal(size=(8, 1)).astype(np.float32))
        return (network(x) - 2 * x).square().mean() * self._factors.get(self.calls, 1.0)

    def validate(self, network: nn.Module) -> dict[str, float]:
        self.seen.append({name: tensor.clone() for name, tensor in self.network.state_dict().items()})
        if self._validation:
            return {"val/loss": self._validation(len(self.seen))}
        x = torch.linspace(-1, 1, 9)[:, None]
        with torch.no_grad():
            return {"val/loss": float((network(x) - 2 * x).square().mean()), "val/more": 1.0}

    def save(self, path: Path, outcome: dict[str, Any]) -> None:
        save_bundle(path, self.network, LineInfo(outcome), "line/1")


def line_of_bundle() -> tuple[nn.Module, LineInfo]:
    return load_bundle(BUNDLE, "line/1", LineInfo, lambda _: build_seeded(lambda: nn.Linear(1, 1), seed=0))


def train_line(task: Line | None = None, *, seed: int = 1, **changes: Any) -> tuple[dict[str, Any], Timing]:
    settings = SETTINGS.model_copy(update=changes)
    return train(task or Line(), settings, Training(seed, BUNDLE, CURVES, CHECKPOINTS))


def results() -> dict[str, bytes]:
    paths = [BUNDLE, *(path for path in CURVES.rglob("*") if path.is_file())]
    return {str(path): path.read_bytes() for path in paths}


def curve(name: str) -> list[float]:
    return [float(row[name.split("/")[1]]) for row in rows_of(name)]


def rows_of(name: str) -> list[dict[str, str]]:
    with (CURVES / f"plots/metrics/{name}.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files of a training without incident."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("undisturbed"))
        train_line()
        return results()


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_outcome_and_bundle_agree(capsys: pytest.CaptureFixture[str]) -> None:
    outcome, timing = train_line()
    assert outcome["sha256"] == sha256_of(BUNDLE)
    assert outcome["size_bytes"] == BUNDLE.stat().st_size
    assert line_of_bundle()[1].outcome == {
        key: value for key, value in outcome.items() if key not in ("sha256", "size_bytes")
    }
    assert outcome["epochs"] == EPOCHS
    assert [int(row["step"]) for row in rows_of("val/loss")] == list(range(1, EPOCHS + 1))
    assert outcome["val_loss"] == min(curve("val/loss"))
    assert outcome["train_loss"] == curve("train/loss")[outcome["best_epoch"] - 1]
    assert 0 < timing.cpu_seconds < 60
    told = capsys.readouterr().err
    assert "line: epoch 6/6: train/loss " in told
    assert f"line: kept the network of epoch {outcome['best_epoch']}, validation loss" in told
    assert "resumed" not in told


def test_validation_loss_falls() -> None:
    train_line(steps_per_epoch=30)
    losses = curve("val/loss")
    assert losses[-1] < 0.1 * losses[0]


def test_every_metric_has_a_curve_and_a_last_value() -> None:
    train_line()
    assert all(len(curve(name)) == EPOCHS for name in ("train/loss", "val/loss", "val/more"))
    last = json.loads((CURVES / "metrics.json").read_text())
    assert last["val"]["loss"] == curve("val/loss")[-1]


def test_two_trainings_give_equal_bytes(undisturbed: dict[str, bytes]) -> None:
    train_line()
    assert results() == undisturbed


def test_another_seed_gives_another_network(undisturbed: dict[str, bytes]) -> None:
    train_line(seed=2)
    assert results()[str(BUNDLE)] != undisturbed[str(BUNDLE)]


def test_neither_curves_nor_checkpoints_are_needed(undisturbed: dict[str, bytes]) -> None:
    train(Line(), SETTINGS, Training(1, BUNDLE))
    assert list(Path().iterdir()) == [BUNDLE]
    assert BUNDLE.read_bytes() == undisturbed[str(BUNDLE)]


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "Slurm": {f"SLURM_{name}": "1" for name in ("JOB_ID", "PROCID", "LOCALID", "NODEID")}
    | {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "study", "SLURM_NODELIST": "n1"},
    "torchrun": {name: "1" for name in ("RANK", "LOCAL_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE")}
    | {"WORLD_SIZE": "4", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "1"},
    "Lightning": {"LT_PRECISION": "bf16-true", "LT_DEVICES": "3", "LT_STRATEGY": "ddp", "LT_CLI_USED": "1"},
    "dvclive": {"DVCLIVE_RESUME": "1", "DVCLIVE_TEST": "1", "DVC_EXP_NAME": "mine"},
    "DVC Studio": {f"DVC_STUDIO_{name}": "mine" for name in ("TOKEN", "REPO_URL", "URL")},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_training_asks_no_variable_of_a_cluster_or_a_service(
    name: str, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    posted: list[Any] = []
    monkeypatch.setattr(studio, "post_live_metrics", lambda *call, **_: posted.append(call))
    for variable, value in ENVIRONMENTS[name].items():
        monkeypatch.setenv(variable, value)
    for _ in range(2):
        train_line()
        assert results() == undisturbed
        CheckpointStore(CHECKPOINTS).clear()
    assert posted == []
    assert {variable: os.environ[variable] for variable in ENVIRONMENTS[name]} == ENVIRONMENTS[name]


@pytest.mark.parametrize("finished", [1, 5])
def test_an_interrupted_training_ends_as_if_it_had_not_been(
    finished: int, undisturbed: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_line(Line({3 * finished + 2: 0.0}))
    assert not BUNDLE.exists()
    capsys.readouterr()
    again = Line()
    train_line(again)
    assert again.epochs == list(range(finished, EPOCHS))
    assert f"line: resumed from the checkpoint of epoch {finished}/{EPOCHS}" in capsys.readouterr().err
    assert results() == undisturbed


@pytest.fixture
def finished_but_not_saved() -> None:
    """Leave the checkpoints of a training that was interrupted before its bundle was written."""

    class Unsaved(Line):
        def save(self, path: Path, outcome: dict[str, Any]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_line(Unsaved())


@pytest.mark.usefixtures("finished_but_not_saved")
def test_a_finished_training_is_only_saved(undisturbed: dict[str, bytes]) -> None:
    again = Line()
    train_line(again)
    assert again.epochs == []
    assert results() == undisturbed


@pytest.mark.usefixtures("finished_but_not_saved")
def test_a_damaged_checkpoint_costs_one_epoch_and_changes_nothing(
    undisturbed: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    last = CHECKPOINTS / "last.pt"
    last.write_bytes(last.read_bytes()[:-100])
    capsys.readouterr()
    again = Line()
    train_line(again)
    assert again.epochs == [EPOCHS - 1]
    assert "checkpoint last.pt is damaged" in capsys.readouterr().err
    assert results() == undisturbed


@pytest.mark.usefixtures("finished_but_not_saved")
@pytest.mark.parametrize("state", [{}, {"weights": {}, "spent": {"seconds": 1.0, "cpu_seconds": 1.0}}])
def test_a_checkpoint_that_does_not_fit_is_refused(state: dict[str, Any]) -> None:
    CheckpointStore(CHECKPOINTS).save(state)
    with pytest.raises(
        StudyError, match=r"^checkpoints: holds a checkpoint that does not fit .*; delete the folder$"
    ) as caught:
        train_line()
    assert "\n" not in str(caught.value)


def test_time_before_an_interruption_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "Stopwatch", hour_old)
        with pytest.raises(KeyboardInterrupt):
            train_line(Line({5: 0.0}))
    timing = train_line()[1]
    assert 3600 < timing.seconds < 3900
    assert 1800 < timing.cpu_seconds < 1900


def hour_old() -> Stopwatch:
    stopwatch = Stopwatch()
    stopwatch.add(Timing(seconds=3600, cpu_seconds=1800))
    return stopwatch


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_stops_with_one_line(value: float, undisturbed: dict[str, bytes]) -> None:
    message = (
        rf"^line: the loss is {value} in epoch 2, step 2; the last checkpoint is kept; lower learning_rate$"
    )
    with pytest.raises(StudyError, match=message):
        train_line(Line({5: value}))
    assert not BUNDLE.exists()
    train_line()
    assert results() == undisturbed


def test_a_validation_loss_that_is_not_finite_stops_too() -> None:
    message = r"^line: the validation loss is nan in epoch 1; the last checkpoint is kept"
    with pytest.raises(StudyError, match=message):
        train_line(Line(validation=lambda _: float("nan")))


def test_training_stops_without_progress_and_keeps_the_best_network() -> None:
    losses = [1.0, 0.5, 0.7, 0.5, 0.1]
    task = Line(validation=lambda epoch: losses[epoch - 1])
    outcome = train_line(task, patience=2)[0]
    assert (outcome["epochs"], outcome["best_epoch"], outcome["val_loss"]) == (4, 2, 0.5)
    assert outcome["train_loss"] == curve("train/loss")[1]
    weights = line_of_bundle()[0].state_dict()
    same = [all(torch.equal(w, epoch[name]) for name, w in weights.items()) for epoch in task.seen]
    assert same == [False, True, False, False]


def test_precision_may_be_fixed_or_found() -> None:
    assert resolve_precision(SETTINGS.model_copy(update={"precision": "bf16-mixed"})) == "bf16-mixed"
    found = resolve_precision(SETTINGS.model_copy(update={"precision": "auto"}))
    assert found in {"bf16-mixed", "32-true"}


@pytest.mark.parametrize(
    ("tiles", "native", "vendor", "precision"),
    [
        (True, True, "GenuineIntel", "bf16-mixed"),
        (False, True, "GenuineIntel", "32-true"),
        (False, True, "AuthenticAMD", "bf16-mixed"),
        (False, False, "AuthenticAMD", "32-true"),
    ],
)
def test_bf16_is_taken_where_it_is_faster(
    tiles: bool, native: bool, vendor: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(_: Path, encoding: str) -> str:
        return f"vendor_id : {vendor}"

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(Path, "read_text", said)
    assert resolve_precision(SETTINGS.model_copy(update={"precision": "auto"})) == precision


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StudyError, match=r"^device: is cuda, but there is no GPU that torch can use; set it"):
        train_line(device="cuda")
