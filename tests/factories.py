"""Small valid data, and stand-ins for the trainer that another process can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from fly64_dose_overlap import provenance
from fly64_dose_overlap.config import Params, TrainParams, load_params
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.dataset import Dataset, write_dataset
from fly64_dose_overlap.learning.jobs import TrainingJob

ROOT = Path(__file__).resolve().parents[1]


def study_params(**changes: Any) -> Params:
    """Return the repository's parameters with some top-level keys changed."""
    return load_params(ROOT / "params.yaml").model_copy(update=changes)


def tiny_dataset(gridsize: int, *, frames: int = 6, side: int = 8) -> Dataset:
    """Return a valid dataset of a few frames, with two groups."""
    rng = np.random.default_rng(3)
    members = np.arange(gridsize**2, dtype=np.int32)
    return Dataset(
        amplitude=np.sqrt(rng.poisson(4, (frames, side, side))).astype(np.float32),
        obj=np.exp(1j * rng.uniform(-1, 1, (3 * side, 3 * side))).astype(np.complex64),
        probe=np.ones((side, side), np.complex64),
        positions_px=rng.uniform(side, 2 * side, (frames, 2)),
        scan_index=np.arange(frames),
        record=provenance.new_record("test"),
        groups=np.stack([members, members + 1]),
    )


def write_views(root: Path, params: Params) -> None:
    """Write both halves of every view of every dose below ``root``."""
    for dose in params.doses:
        for name, view in params.overlap.views.items():
            for half in ("train", "test"):
                write_dataset(root / str(dose) / name / f"{half}.npz", tiny_dataset(view.gridsize))


def write_bundle(*, config: TrainParams, job: TrainingJob, log_path: Path) -> dict[str, Any]:
    """Stand in for the trainer: write some bytes as the bundle and describe them."""
    path = job.artifact_dir / "model.safetensors"
    path.write_bytes(f"weights of {job.name}, seed {config.seed}".encode())
    with log_path.open("a") as log:
        log.write("the trainer was here\n")
    return {
        "status": "success",
        "bundle": path.name,
        "sha256": sha256_of(path),
        "size_bytes": path.stat().st_size,
        "epochs": 1,
        "train_loss": 0.5,
        "val_loss": 0.25,
        "resumed_from_epoch": 0,
    }


def write_process_id(*, config: TrainParams, job: TrainingJob, log_path: Path) -> dict[str, Any]:
    """Stand in for the trainer: also return the process that it ran in."""
    return {**write_bundle(config=config, job=job, log_path=log_path), "process": os.getpid()}


def be_killed(*, config: TrainParams, job: TrainingJob, log_path: Path) -> dict[str, Any]:
    """Stand in for a trainer that the system kills."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError(f"{job.name} outlived SIGKILL")


def have_a_bug(*, config: TrainParams, job: TrainingJob, log_path: Path) -> dict[str, Any]:
    """Stand in for a trainer with a defect."""
    raise ZeroDivisionError("a defect\nin the trainer")


def beat_forever(*, config: TrainParams, job: TrainingJob, log_path: Path) -> dict[str, Any]:
    """Stand in for a long training that shows signs of life."""
    while True:
        with (job.artifact_dir / "beats").open("a") as beats:
            beats.write(".")
        time.sleep(0.02)
