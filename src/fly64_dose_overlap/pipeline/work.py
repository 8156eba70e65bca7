"""Train a method on a dataset, and reconstruct a dataset by it: what stages and jobs have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fly64_dose_overlap.config import CalibrationParams, StopParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import sha256_of, write_json_atomic
from fly64_dose_overlap.files.dataset import read_scan, read_truth
from fly64_dose_overlap.files.product import write_products
from fly64_dose_overlap.files.reconstruction import Reconstruction, write_reconstructions
from fly64_dose_overlap.methods.base import Learned, Method, Training
from fly64_dose_overlap.methods.held_out import HeldOut
from fly64_dose_overlap.methods.run import one_torch_thread, run_method
from fly64_dose_overlap.pipeline.code import code_of_method
from fly64_dose_overlap.results.repository import repository_root, work_key
from fly64_dose_overlap.results.timings import record_timing
from fly64_dose_overlap.scores.monitor import TruthMonitor
from fly64_dose_overlap.study.calibration import with_calibration_errors
from fly64_dose_overlap.timing import Timing

CHECKPOINTS = Path(".dvc/tmp/checkpoints")


def train_method(
    method: Method,
    data: Path,
    bundle: Path,
    curves: Path | None,
    *,
    seed: int,
    calibration: CalibrationParams,
    gridsize: int,
    neighbor_count: int,
) -> dict[str, Any]:
    """Train a learned method on a dataset, or go on where that was interrupted.

    Checkpoints lie under ``.dvc/tmp``, outside the pipeline's outputs, which DVC removes
    before a stage runs. The folder's name depends on everything that the training does: a
    checkpoint never leaks into another cell, and a copy of the repository that DVC's queue
    works in finds its own again.

    Parameters
    ----------
    method : Method
    data : Path
        Dataset with groups.
    bundle : Path
        Of the model.
    curves : Path, optional
        Folder of the curves.
    seed : int
    calibration : CalibrationParams
        Errors of what the method is told.
    gridsize, neighbor_count : int
        Of the groups that the dataset must have.

    Returns
    -------
    dict
        See `Learned.train`.
    """
    if not isinstance(method, Learned):
        raise StudyError(method.name, "has nothing to train", "name it in iterative, not in learned")
    scan = read_scan(data, gridsize=gridsize, neighbor_count=neighbor_count)
    told, window = with_calibration_errors(scan, calibration, where=str(data)).cropped()
    settings = [method.name, method.settings.model_dump(), calibration.model_dump(), seed]
    key = work_key(*settings, sha256_of(data), code_of_method(method.name))
    root = repository_root(Path.cwd())
    training = Training(
        seed=seed,
        bundle=bundle,
        curves=curves,
        checkpoints=root / CHECKPOINTS / key,
        monitor=TruthMonitor(data, told, window),
    )
    truth = read_truth(data)[window] if method.needs_truth else None
    with one_torch_thread():
        outcome, timing = method.train(told, training, truth)
    record_timing(root, outcome["sha256"], timing)
    return outcome


def write_manifest(path: Path, method: str, data: Path, outcome: dict[str, Any]) -> None:
    """Write what was trained on what, and what came of it; equal results give equal bytes."""
    content = {"method": method, "data": data.as_posix(), "bundle": "model.safetensors", **outcome}
    write_json_atomic(path, content)


def reconstruct_by(
    method: Method,
    data: Path,
    folder: Path,
    *,
    stops: StopParams,
    calibration: CalibrationParams,
    bundle: Path | None = None,
) -> None:
    """Write everything that a method makes of a dataset, as NPZ files and as products.

    Parameters
    ----------
    method : Method
    data : Path
        Dataset, of which the method sees no object.
    folder : Path
        Of the results.
    stops : StopParams
    calibration : CalibrationParams
        Errors of what the method is told.
    bundle : Path, optional
        Model of a learned method.
    """
    scan = with_calibration_errors(read_scan(data), calibration, where=str(data))
    if isinstance(method, Learned) and bundle is not None:
        method.load(bundle)
    stop = HeldOut(stops.held_out_fraction, stops.patience, stops.seed)
    timings: dict[str, Timing] = {}

    def results() -> Iterator[Reconstruction]:
        for reconstruction, timing in run_method(method, scan, stop):
            timings[reconstruction.method] = timing
            yield reconstruction

    write_reconstructions(folder, results())
    write_products(folder)
    for name, timing in timings.items():
        record_timing(repository_root(Path.cwd()), sha256_of(folder / f"{name}.npz"), timing)
