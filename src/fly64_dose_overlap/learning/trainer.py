"""Train the network of one cell; the arm says which, on what and with which loss."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dvclive.fabric import DVCLiveLogger
from dvclive.live import Live
from lightning_fabric import Fabric
from torch import Tensor, nn

from fly64_dose_overlap.config import TrainParams
from fly64_dose_overlap.errors import StudyError, as_refusal
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.dataset import read_dataset
from fly64_dose_overlap.learning.arm import ArmFactory, Metrics
from fly64_dose_overlap.learning.checkpoint import CheckpointStore, checkpoint_folder
from fly64_dose_overlap.learning.jobs import TrainingJob
from fly64_dose_overlap.progress import say, track
from fly64_dose_overlap.results.repository import repository_root
from fly64_dose_overlap.results.timings import Stopwatch, Timing, record_timing
from fly64_dose_overlap.seeding import generator

BUNDLE_NAME = "model.safetensors"
WARMUP_FRACTION = 0.05
FINAL_LEARNING_RATE = 0.05
"""Last learning rate over the largest one."""
ADAM_BETAS = (0.9, 0.99)
WEIGHT_DECAY = 1e-4
MAX_GRADIENT_NORM = 1.0


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


def train_cell(
    arm: ArmFactory, *, config: TrainParams, job: TrainingJob, log: logging.Logger
) -> dict[str, Any]:
    """Train the network of one cell, write its bundle and record how long that took.

    Parameters
    ----------
    arm : callable
        Makes what is to be trained, such as `PhysicsInformed`.
    config : TrainParams
        The ``train`` section of params.yaml.
    job : TrainingJob
        The training data and where results go.
    log : logging.Logger
        The job's own log.

    Returns
    -------
    dict
        status, bundle (path relative to the artifact folder), sha256, size_bytes,
        epochs, best_epoch, train_loss, val_loss, resumed_from_epoch.

    Raises
    ------
    StudyError
        If the data are unusable, or the loss is no longer finite.
    """
    with _threads(config.threads):
        return _Training(arm, config, job, log).run()


class _Training:
    def __init__(self, arm: ArmFactory, config: TrainParams, job: TrainingJob, log: logging.Logger) -> None:
        self.stopwatch = Stopwatch()
        self.config = config
        self.job = job
        self.log = log
        accelerator = "auto" if config.device == "auto" else config.device
        self.live = Live(str(job.curves_dir), dvcyaml=None, save_dvc_exp=False, report=None)
        logger = DVCLiveLogger(experiment=self.live)
        self.fabric = Fabric(
            accelerator=accelerator, devices=1, precision=resolve_precision(config), loggers=logger
        )
        self.arm = arm(config, read_dataset(job.train_path), self.fabric.device)
        optimizer = torch.optim.AdamW(
            self.arm.network.parameters(),
            config.learning_rate,
            betas=ADAM_BETAS,
            weight_decay=WEIGHT_DECAY,
            fused=True,
        )
        self.module, self.optimizer = self.fabric.setup(self.arm.network, optimizer)
        self.progress = Progress()
        self.store = CheckpointStore(checkpoint_folder(self.arm.name, self.arm.settings, job.train_path))

    def run(self) -> dict[str, Any]:
        resumed_from = self._resume()
        started = time.monotonic()
        while self.progress.epoch < self.config.epochs and not self._has_stalled():
            self._epoch(self.progress.epoch)
            self._checkpoint()
            remaining = self.config.epochs - self.progress.epoch
            per_epoch = (time.monotonic() - started) / (self.progress.epoch - resumed_from)
            self._tell(f"{self._describe(self.progress.history[-1])}, {remaining * per_epoch:.0f} s left")
        self.live.end()
        result = self._save(resumed_from)
        record_timing(repository_root(Path.cwd()), result["sha256"], self.stopwatch.read())
        self.store.clear()
        return result

    def _epoch(self, epoch: int) -> None:
        self.arm.start_epoch(epoch)
        rng = generator(self.config.seed, "train", "order", epoch)
        steps = self.config.steps_per_epoch
        losses: list[float] = []
        label = f"{self.arm.name} epoch {epoch + 1}/{self.config.epochs}"
        for step in track(range(steps), total=steps, label=label, unit="step"):
            self._set_learning_rate((epoch + step / steps) / self.config.epochs)
            loss = self._step(rng)
            self._require_finite("loss", loss, f"epoch {epoch + 1}, step {step + 1}")
            losses.append(loss)
        metrics = {"train/loss": float(np.mean(losses)), **self.arm.validate(self.module)}
        self._require_finite("validation loss", metrics["val/loss"], f"epoch {epoch + 1}")
        self.progress.history.append(metrics)
        if metrics["val/loss"] < self.progress.best_loss:
            self.progress.best_loss = metrics["val/loss"]
            self.progress.best_epoch = epoch + 1
            self.progress.best_weights = _copy(self.arm.network)
        self.fabric.log_dict(metrics, step=epoch + 1)

    def _require_finite(self, name: str, value: float, when: str) -> None:
        if not math.isfinite(value):
            raise StudyError(
                f"{self.arm.name} {self.job.name}",
                f"the {name} is {value} in {when}",
                "the last checkpoint is kept; lower train.learning_rate",
            )

    def _step(self, rng: np.random.Generator) -> float:
        loss = self.arm.loss(self.module, rng)
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
        rate = self.config.learning_rate * min(1.0, max(done, 1e-3) / WARMUP_FRACTION) * cosine
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _has_stalled(self) -> bool:
        return self.progress.epoch - self.progress.best_epoch >= self.config.patience

    def _checkpoint(self) -> None:
        progress = self.progress
        self.store.save(
            {
                "weights": _copy(self.arm.network),
                "optimizer": self.optimizer.state_dict(),
                "history": progress.history,
                "best_epoch": progress.best_epoch,
                "best_loss": progress.best_loss,
                "best_weights": progress.best_weights,
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
        for epoch, metrics in enumerate(self.progress.history):
            self.fabric.log_dict(metrics, step=epoch + 1)
        self._tell(f"resumed from the checkpoint of epoch {self.progress.epoch}/{self.config.epochs}")
        return self.progress.epoch

    def _take_up(self, state: dict[str, Any]) -> None:
        self.stopwatch.add(Timing(**state["spent"]))
        self.arm.network.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(
            state["history"], state["best_epoch"], state["best_loss"], state["best_weights"]
        )

    def _save(self, resumed_from: int) -> dict[str, Any]:
        progress = self.progress
        self.arm.network.load_state_dict(progress.best_weights)
        outcome = {
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "train_loss": progress.history[progress.best_epoch - 1]["train/loss"],
            "val_loss": progress.best_loss,
        }
        path = self.job.artifact_dir / BUNDLE_NAME
        self.arm.save(path, {**self.arm.settings, **outcome})
        self._tell(
            f"kept the network of epoch {progress.best_epoch}, validation loss {progress.best_loss:.5f}"
        )
        return {
            "status": "success",
            "bundle": BUNDLE_NAME,
            "sha256": sha256_of(path),
            "size_bytes": path.stat().st_size,
            "resumed_from_epoch": resumed_from,
            **outcome,
        }

    def _describe(self, metrics: Metrics) -> str:
        values = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        return f"epoch {self.progress.epoch}/{self.config.epochs}: {values}"

    def _tell(self, message: str) -> None:
        say(f"{self.arm.name} {self.job.name}: {message}")
        self.log.info(message)


def resolve_precision(config: TrainParams) -> Any:
    """Return Fabric's name of the precision; ``auto`` takes bf16 where it is native."""
    if config.precision != "auto":
        return config.precision
    if config.device != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    native = torch.cpu._is_avx512_bf16_supported()  # pyright: ignore[reportPrivateUsage] - no public query
    return "bf16-mixed" if native else "32-true"


@contextmanager
def _threads(count: int) -> Generator[None]:
    """Fix the number of threads, on which the last digits of sums depend."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
