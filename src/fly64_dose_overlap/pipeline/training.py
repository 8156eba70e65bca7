"""Train a learned method on a dataset: what the stage and jobs outside DVC have in common."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.dataset import read_scan, read_truth
from fly64_dose_overlap.learning.checkpoint import CheckpointStore
from fly64_dose_overlap.methods.base import Learned, Method, Training
from fly64_dose_overlap.pipeline.code import code_of_method
from fly64_dose_overlap.pipeline.instrument import Instrument, as_told, described
from fly64_dose_overlap.pipeline.repository import CHECKPOINTS, repository_root, work_key
from fly64_dose_overlap.pipeline.timings import record_timing
from fly64_dose_overlap.provenance import MEASURED, steps
from fly64_dose_overlap.scores.monitor import TruthMonitor


@contextmanager
def train_method(
    method: Method,
    data: Path,
    bundle: Path,
    curves: Path | None,
    *,
    seed: int,
    instrument: Instrument,
    gridsize: int,
    neighbor_count: int,
) -> Generator[dict[str, Any]]:
    """Train a learned method on a dataset, or go on where that was interrupted; see `Learned.train`.

    What came of it is for the block to write down: checkpoints go only when that has ended well.
    The name of their folder depends on everything that the training does: none leaks into
    another cell, and a copy of the repository that DVC's queue works in finds its own again.

    The dataset must have groups of ``gridsize`` and ``neighbor_count``; ``instrument`` is
    what the method is told of it and may find, ``bundle`` is the file of the model and ``curves`` the
    folder of the curves.
    """
    if not isinstance(method, Learned):
        raise StudyError(method.name, "has nothing to train", "name it in iterative, not in learned")
    scan = read_scan(data, gridsize=gridsize, neighbor_count=neighbor_count)
    if method.needs_truth and MEASURED in steps(scan.record):
        problem = "learns from the true object, and nobody knows that of measured frames"
        raise StudyError(method.name, problem, "take it out of learned")
    known, window = as_told(scan, instrument, where=str(data)).cropped()
    settings = [method.name, method.settings.model_dump(), described(instrument), seed]
    key = work_key(*settings, sha256_of(data), code_of_method(method.name))
    root = repository_root(Path.cwd())
    checkpoints = root / CHECKPOINTS / key
    monitor = TruthMonitor(data, known, window)
    training = Training(seed=seed, bundle=bundle, curves=curves, checkpoints=checkpoints, monitor=monitor)
    truth = read_truth(data)[window] if method.needs_truth else None
    outcome, timing = method.trained(known, training, truth)
    record_timing(root, outcome["sha256"], timing)
    yield outcome
    CheckpointStore(checkpoints).clear()
