"""Train a network; the task says which, on what and with which loss."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
from dvclive.live import Live
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from fly64_dose_overlap.config import Epochs, Section
from fly64_dose_overlap.errors import StudyError, as_refusal
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.learning.checkpoint import CheckpointStore
from fly64_dose_overlap.learning.training import Metrics, Training
from fly64_dose_overlap.progress import say, track
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.timing import Stopwatch, Timing

WARMUP_FRACTION = 0.05
FINAL_LEARNING_RATE = 0.05
"""Last learning rate over the largest one."""
ADAM_BETAS = (0.9, 0.99)
WEIGHT_DECAY = 1e-4
MAX_GRADIENT_NORM = 1.0


class TrainingSettings(Section):
    """How long and how fast a network is trained, and where."""

    epochs: Epochs = 8
    steps_per_epoch: Annotated[int, Field(ge=1, le=10**6)] = 200
    frames_per_step: Annotated[int, Field(ge=1, le=10**6)] = 96
    """Frames that are scored in a step, at most."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.001
    patience: Epochs = 4
    """Epochs without a better validation loss before training stops."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Part of the y range of the training scan, at its end, held back for validation."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """auto: bf16 where the processor multiplies matrices of it natively."""


class Task(Protocol):
    """A network with its examples, loss, validation and bundle."""

    name: str
    """Of the method, in messages."""
    network: nn.Module
    """The network to train, on the processor; the trainer moves it."""

    def start_epoch(self, epoch: int) -> None:
        """Prepare the examples of an epoch, counted from 0; after an interruption also earlier ones."""
        ...

    def loss(self, network: nn.Module, rng: np.random.Generator) -> Tensor:
        """Return the loss of one step, in which all that is random comes from ``rng``.

        ``network`` is ``self.network`` as the trainer wrapped it.
        """
        ...

    def validate(self, network: nn.Module) -> Metrics:
        """Return ``val/loss``, which chooses the epoch that is kept, and metrics to log."""
        ...

    def save(self, path: Path, outcome: dict[str, Any]) -> None:
        """Write the bundle of ``self.network``; ``outcome`` is what became of the training."""
        ...


@dataclass
class Progress:
    """What training has reached; with the weights, all that a checkpoint holds."""

    history: list[Metrics] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.history)


def device_of(settings: TrainingSettings) -> torch.device:
    """Return the device that training and inference use."""
    gpu = settings.device != "cpu" and torch.cuda.is_available()
    if settings.device == "cuda" and not gpu:
        raise StudyError("device", "is cuda, but there is no GPU that torch can use", "set it to auto or cpu")
    return torch.device("cuda" if gpu else "cpu")


def split_frames(
    positions_px: NDArray[np.float64], fraction: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide the frames of a training scan: the last ``fraction`` of the y range validates.

    Returns the indices of either part, (frame,) int64; one that is empty is refused.
    """
    y = positions_px[:, 0]
    held_back = y > y.max() - fraction * np.ptp(y)
    training, validation = np.flatnonzero(~held_back), np.flatnonzero(held_back)
    if not len(training) or not len(validation):
        problem = f"{fraction} leaves {len(training)} training and {len(validation)} validation frames"
        raise StudyError("validation_fraction", problem, "change it, or keep more frames in the view")
    return training, validation


def train(task: Task, settings: TrainingSettings, training: Training) -> tuple[dict[str, Any], Timing]:
    """Train a network and write its bundle.

    Returns
    -------
    outcome : dict
        sha256, size_bytes, epochs, best_epoch, train_loss, val_loss.
    timing : Timing
        Of this training, its interrupted parts included.

    Raises
    ------
    StudyError
        If the loss is no longer finite.
    """
    return _Running(task, settings, training).run()


class _Running:
    def __init__(self, task: Task, settings: TrainingSettings, training: Training) -> None:
        self.stopwatch = Stopwatch()
        self.settings = settings
        self.seed, self.bundle = training.seed, training.bundle
        self.store = CheckpointStore(training.checkpoints)
        self.task = task
        self.live = None
        accelerator, precision = device_of(settings).type, resolve_precision(settings)
        with _own_environment():
            if training.curves:
                self.live = Live(str(training.curves), dvcyaml=None, save_dvc_exp=False, report=None)
            self.fabric = Fabric(
                accelerator=accelerator, devices=1, precision=precision, plugins=[LightningEnvironment()]
            )
        optimizer = torch.optim.AdamW(
            task.network.parameters(),
            settings.learning_rate,
            betas=ADAM_BETAS,
            weight_decay=WEIGHT_DECAY,
            fused=True,
        )
        self.module, self.optimizer = self.fabric.setup(task.network, optimizer)
        self.progress = Progress()

    def run(self) -> tuple[dict[str, Any], Timing]:
        resumed_from = self._resume()
        started = time.monotonic()
        while self._is_unfinished():
            self._epoch(self.progress.epoch)
            self._checkpoint()
            epoch, epochs = self.progress.epoch, self.settings.epochs
            left = (epochs - epoch) * (time.monotonic() - started) / (epoch - resumed_from)
            values = ", ".join(f"{name} {value:.4f}" for name, value in self.progress.history[-1].items())
            self._tell(f"epoch {epoch}/{epochs}: {values}, {left:.0f} s left")
        if self.live:
            self.live.end()
        return self._save(), self.stopwatch.read()

    def _log(self, metrics: Metrics) -> None:
        if self.live:
            if not self.live.summary:
                self.live.step = 1  # the first epoch, in messages too
            for name, value in metrics.items():
                self.live.log_metric(name, value)
            self.live.next_step()

    def _epoch(self, epoch: int) -> None:
        self.task.start_epoch(epoch)
        rng = generator(self.seed, self.task.name, "order", epoch)
        steps = self.settings.steps_per_epoch
        losses: list[float] = []
        label = f"{self.task.name} epoch {epoch + 1}/{self.settings.epochs}"
        for step in track(range(steps), total=steps, label=label, unit="step"):
            self._set_learning_rate((epoch + step / steps) / self.settings.epochs)
            loss = self._step(rng)
            self._require_finite("loss", loss, f"epoch {epoch + 1}, step {step + 1}")
            losses.append(loss)
        self.module.eval()
        metrics = {"train/loss": float(np.mean(losses)), **self.task.validate(self.module)}
        self.module.train()
        self._require_finite("validation loss", metrics["val/loss"], f"epoch {epoch + 1}")
        self.progress.history.append(metrics)
        if metrics["val/loss"] < self.progress.best_loss:
            self.progress.best_loss, self.progress.best_epoch = metrics["val/loss"], epoch + 1
            self.progress.best_weights = _copy(self.task.network)
        self._log(metrics)

    def _require_finite(self, name: str, value: float, when: str) -> None:
        if not math.isfinite(value):
            hint = "the last checkpoint is kept; lower learning_rate"
            raise StudyError(self.task.name, f"the {name} is {value} in {when}", hint)

    def _step(self, rng: np.random.Generator) -> float:
        loss = self.task.loss(self.module, rng)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.fabric.clip_gradients(
            self.module, self.optimizer, max_norm=MAX_GRADIENT_NORM, error_if_nonfinite=False
        )
        self.optimizer.step()
        return float(loss.detach())

    def _set_learning_rate(self, done: float) -> None:
        """Warm up linearly, then fall along a cosine; ``done`` is the finished part of training."""
        cosine = FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * (1 + math.cos(math.pi * done)) / 2
        rate = self.settings.learning_rate * min(1.0, max(done, 1e-3) / WARMUP_FRACTION) * cosine
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _is_unfinished(self) -> bool:
        stalled = self.progress.epoch - self.progress.best_epoch >= self.settings.patience
        return self.progress.epoch < self.settings.epochs and not stalled

    def _checkpoint(self) -> None:
        self.store.save(
            {
                "weights": _copy(self.task.network),
                "optimizer": self.optimizer.state_dict(),
                **vars(self.progress),
                "spent": asdict(self.stopwatch.read()),
            }
        )

    def _resume(self) -> int:
        """Take up the last checkpoint, replaying its curves; return the finished epochs."""
        state = self.store.load()
        if state is None:
            return 0
        try:
            self._take_up(state)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if as_refusal(error) is not None:
                raise
            problem = f"holds a checkpoint that does not fit this training ({error!r})"
            raise StudyError(str(self.store.folder), problem, "delete the folder") from None
        for metrics in self.progress.history:
            self._log(metrics)
        self._tell(f"resumed from the checkpoint of epoch {self.progress.epoch}/{self.settings.epochs}")
        return self.progress.epoch

    def _take_up(self, state: dict[str, Any]) -> None:
        self.stopwatch.add(Timing(**state["spent"]))
        self.task.network.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**{each.name: state[each.name] for each in fields(Progress)})

    def _save(self) -> dict[str, Any]:
        progress = self.progress
        self.task.network.load_state_dict(progress.best_weights)
        outcome = {
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "train_loss": progress.history[progress.best_epoch - 1]["train/loss"],
            "val_loss": progress.best_loss,
        }
        self.task.save(self.bundle, outcome)
        self._tell(
            f"kept the network of epoch {progress.best_epoch}, validation loss {progress.best_loss:.5f}"
        )
        return {"sha256": sha256_of(self.bundle), "size_bytes": self.bundle.stat().st_size, **outcome}

    def _tell(self, message: str) -> None:
        say(f"{self.task.name}: {message}")


@contextmanager
def _own_environment() -> Generator[None]:
    """Hide what would have dvclive go on with other curves or report to a service, or Fabric train otherwise.

    One process trains, also inside the allocation of a cluster: `LightningEnvironment` asks it nothing.
    """
    offline = "DVC_STUDIO_OFFLINE"
    hidden = [name for name in os.environ if name.startswith(("DVCLIVE_", "LT_")) or name == offline]
    before = {name: os.environ.pop(name) for name in hidden}
    os.environ[offline] = "true"
    try:
        yield
    finally:
        del os.environ[offline]
        os.environ.update(before)


def resolve_precision(settings: TrainingSettings) -> Any:
    """Return Fabric's name of the precision; ``auto`` takes bf16 where it is faster than single precision."""
    if settings.precision != "auto":
        return settings.precision
    if device_of(settings).type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    # AVX512_BF16 without matrix instructions (AMX) is slower than single precision on Intel's processors.
    tiles = torch.cpu._is_amx_tile_supported()  # pyright: ignore[reportPrivateUsage] - no public query
    return "bf16-mixed" if tiles or _is_amd_with_bf16() else "32-true"


def _is_amd_with_bf16() -> bool:
    native = torch.cpu._is_avx512_bf16_supported()  # pyright: ignore[reportPrivateUsage] - no public query
    return native and "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
