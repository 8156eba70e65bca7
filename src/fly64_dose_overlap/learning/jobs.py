"""Training jobs: one cell of the study each, with its files, its log and its outcome.

Listing jobs and dry runs need no torch; only the trainer itself imports it.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from fly64_dose_overlap.config import Params, TrainParams, ViewName
from fly64_dose_overlap.errors import MissingFileError, StudyError, as_refusal
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.dataset import read_dataset
from fly64_dose_overlap.progress import say

DATA_ROOT = Path("data/views")
ARTIFACT_ROOT = Path("models/jobs")
CELL_DIR = Path("models/cell")
CELL_CURVES = Path("metrics/train")
LOG_NAME = "train.log"
CURVES_NAME = "curves"
VIEW_ORDER: tuple[ViewName, ...] = ("baseline", "dense", "sparse")


@dataclass(frozen=True)
class TrainingJob:
    """One training: which data, and where its results go.

    Attributes
    ----------
    dose : int, photons per frame
    view : str
        Name of the overlap view.
    gridsize : int
        Group side; a group holds gridsize squared frames.
    train_path, test_path : Path
        Datasets of the view's two halves.
    artifact_dir : Path
        Folder of the model bundle.
    log_path : Path
        Log in that folder; a repeated run appends to it.
    curves_dir : Path
        Folder of the training curves.
    """

    dose: int
    view: ViewName
    gridsize: int
    train_path: Path
    test_path: Path
    artifact_dir: Path
    log_path: Path
    curves_dir: Path

    @property
    def name(self) -> str:
        """Name of the job in messages, such as ``dense/dose=1000``."""
        return f"{self.view}/dose={self.dose}"

    def describe(self) -> dict[str, Any]:
        """Return dose, view, group side, data files and log as JSON-able values."""
        return {
            "dose": self.dose,
            "view": self.view,
            "gridsize": self.gridsize,
            "train_path": self.train_path.as_posix(),
            "test_path": self.test_path.as_posix(),
            "log_path": self.log_path.as_posix(),
        }


@dataclass(frozen=True)
class SkippedJob:
    """A job that was left out because its data are not there."""

    dose: int
    view: ViewName
    reason: str


class Runner(Protocol):
    """What trains a job and returns its result, as `execute_training_job` does."""

    def __call__(self, *, config: TrainParams, job: TrainingJob, log_path: Path) -> Mapping[str, Any]:
        """Train and return at least ``status``, ``bundle``, ``sha256`` and ``size_bytes``."""
        ...


def build_training_jobs(
    params: Params,
    *,
    data_root: Path = DATA_ROOT,
    artifact_root: Path = ARTIFACT_ROOT,
    doses: Collection[int] | None = None,
    views: Collection[str] | None = None,
    gridsizes: Collection[int] | None = None,
    allow_missing: bool = False,
) -> tuple[list[TrainingJob], list[SkippedJob]]:
    """List the study's training jobs: every dose with every view.

    Parameters
    ----------
    params : Params
        Doses, and group side by view.
    data_root : Path
        Folder of the views, as ``<dose>/<view>/{train,test}.npz``.
    artifact_root : Path
        Folder of the results, as ``dose_<dose>/<view>/gs<gridsize>``.
    doses, views, gridsizes : collection, optional
        Keep the jobs that match all of the filters given.
    allow_missing : bool
        Report and skip dense and sparse jobs without data, in place of an error. A
        baseline asked for must be there: it is the whole simulated set of its dose.

    Returns
    -------
    jobs : list of TrainingJob
        By rising dose; within a dose baseline, dense, sparse.
    skipped : list of SkippedJob
        In the same order; empty unless ``allow_missing``.

    Raises
    ------
    MissingFileError
        If data are missing that may not be skipped.
    StudyError
        If a filter names a value that no job has, or no job matches all filters.
    """
    matrix: list[TrainingJob] = []
    for dose, view in itertools.product(sorted(params.doses), VIEW_ORDER):
        gridsize = params.overlap.views[view].gridsize
        folder = artifact_root / f"dose_{dose}" / view / f"gs{gridsize}"
        matrix.append(_job(dose, view, gridsize, data_root, folder))
    jobs: list[TrainingJob] = []
    skipped: list[SkippedJob] = []
    for job in _select(matrix, {"dose": doses, "view": views, "gridsize": gridsizes}):
        missing = _missing_files(job)
        if not missing:
            jobs.append(job)
            continue
        if not allow_missing or job.view == "baseline":
            raise _missing_error(job, missing)
        say(f"skipped {job.name}: {', '.join(map(str, missing))} not found")
        reason = f"{' and '.join(path.name for path in missing)} not found"
        skipped.append(SkippedJob(job.dose, job.view, reason))
    return jobs, skipped


def cell_job(
    dose: int,
    view: ViewName,
    gridsize: int,
    *,
    data_root: Path = DATA_ROOT,
    artifact_dir: Path = CELL_DIR,
    curves_dir: Path = CELL_CURVES,
) -> TrainingJob:
    """Return the job of the one cell that the study's `train` stage follows."""
    job = _job(dose, view, gridsize, data_root, artifact_dir)
    return replace(job, curves_dir=curves_dir)


def _job(dose: int, view: ViewName, gridsize: int, data_root: Path, artifact_dir: Path) -> TrainingJob:
    data = data_root / str(dose) / view
    return TrainingJob(
        dose=dose,
        view=view,
        gridsize=gridsize,
        train_path=data / "train.npz",
        test_path=data / "test.npz",
        artifact_dir=artifact_dir,
        log_path=artifact_dir / LOG_NAME,
        curves_dir=artifact_dir / CURVES_NAME,
    )


def _select(matrix: list[TrainingJob], filters: Mapping[str, Collection[Any] | None]) -> list[TrainingJob]:
    """Return the jobs that match every filter given; no match, or an unknown value, is an error."""
    given = {name: values for name, values in filters.items() if values is not None}
    doses = ", ".join(str(dose) for dose in dict.fromkeys(job.dose for job in matrix))
    views = ", ".join(dict.fromkeys(f"{job.view} (gridsize {job.gridsize})" for job in matrix))
    hint = f"there are doses {doses} and views {views}"
    for name, values in given.items():
        known = {getattr(job, name) for job in matrix}
        unknown = [value for value in values if value not in known]
        if unknown:
            raise StudyError("job filter", f"no job has {name} {_either(unknown)}", hint)
    chosen = [job for job in matrix if all(getattr(job, name) in values for name, values in given.items())]
    if not chosen:
        asked = ", ".join(f"{name} {_either(values)}" for name, values in given.items())
        raise StudyError("job filter", f"no job matches {asked}", hint)
    return chosen


def _either(values: Collection[Any]) -> str:
    return " or ".join(map(str, values)) or "(none given)"


def _missing_files(job: TrainingJob) -> list[Path]:
    return [path for path in (job.train_path, job.test_path) if not path.is_file()]


def _missing_error(job: TrainingJob, missing: Sequence[Path]) -> MissingFileError:
    target = f"overlap@{job.dose}-{job.view}"
    problem = f"no such file, so the {job.view} view of dose {job.dose} cannot be trained"
    hint = f"make it with: dvc repro {target}, or fetch it with: dvc pull {target}"
    return MissingFileError(", ".join(map(str, missing)), problem, hint)


def execute_training_job(*, config: TrainParams, job: TrainingJob, log_path: Path) -> Mapping[str, Any]:
    """Train the physics-informed network; this is the default runner of `run_training_job`.

    Parameters
    ----------
    config : TrainParams
        Network and training.
    job : TrainingJob
        Data and folder of the results.
    log_path : Path
        Log, to which the trainer's lines are appended.

    Returns
    -------
    result : mapping
        ``status`` "success", ``bundle`` (path relative to ``job.artifact_dir``), its
        ``sha256`` and ``size_bytes``, and the figures of the training.
    """
    from fly64_dose_overlap.learning.physics_informed import PhysicsInformed
    from fly64_dose_overlap.learning.trainer import train_cell

    with _open_log(log_path, job.name) as log:
        return train_cell(PhysicsInformed, config=config, job=job, log=log)


def execute_refining_job(*, config: TrainParams, job: TrainingJob, log_path: Path) -> Mapping[str, Any]:
    """Train the network that refines joint iterations, like `execute_training_job`.

    Its epochs are ``joint_epochs``.
    """
    from fly64_dose_overlap.learning.physics_informed import Refiner
    from fly64_dose_overlap.learning.trainer import train_cell

    config = config.model_copy(update={"epochs": config.joint_epochs})
    with _open_log(log_path, job.name) as log:
        return train_cell(Refiner, config=config, job=job, log=log)


def execute_supervised_job(*, config: TrainParams, job: TrainingJob, log_path: Path) -> Mapping[str, Any]:
    """Train the supervised network, like `execute_training_job`.

    Its epochs are ``supervised_epochs``.
    """
    from fly64_dose_overlap.learning.supervised_arm import Supervised
    from fly64_dose_overlap.learning.trainer import train_cell

    config = config.model_copy(update={"epochs": config.supervised_epochs})
    with _open_log(log_path, job.name) as log:
        return train_cell(Supervised, config=config, job=job, log=log)


def run_training_job(
    job: TrainingJob,
    *,
    config: TrainParams,
    neighbor_count: int,
    runner: Runner = execute_training_job,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Prepare a job, check its data, train, and check what the training left behind.

    Bundle, SHA-256 and size are printed, each line with the job's name.

    Parameters
    ----------
    job : TrainingJob
        The job.
    config : TrainParams
        Handed to ``runner`` as it is.
    neighbor_count : int
        K, the nearest frames that the view's groups were drawn from.
    runner : callable
        Does the training; see `Runner`.
    dry_run : bool
        Create the folder, and neither read data nor call ``runner``.

    Returns
    -------
    result : dict
        What ``runner`` returned. In a dry run the job's description, with ``status``
        "dry-run".

    Raises
    ------
    MissingFileError
        If a dataset is missing.
    StudyError
        If a dataset breaks the contract, the folder cannot be written, or the bundle is
        not what the runner says it is. This and any other exception is also in the log.
    """
    try:
        job.artifact_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(str(job.artifact_dir), f"cannot be created ({error.strerror})") from None
    if dry_run:
        return {"status": "dry-run", **job.describe()}
    with _open_log(job.log_path, job.name) as log:
        _log_start(log, job, config)
        try:
            _check_data(job, neighbor_count)
            result = _checked_result(job, runner(config=config, job=job, log_path=job.log_path))
        except BaseException as error:
            # A refusal's message says it all; anything else is a bug, and its traceback helps.
            log.error("failed: %s", reason_of(error), exc_info=as_refusal(error) is None)
            raise
        log.info("success: %s, SHA-256 %s", result["bundle"], result["sha256"])
    for label in ("bundle", "sha256", "size_bytes"):
        print(f"[{job.name}] {label}: {result[label]}", flush=True)
    return result


def reason_of(error: BaseException) -> str:
    """Return one line that says why a job failed."""
    return " ".join(str(as_refusal(error) or f"{type(error).__name__}: {error}").split())


class _LogFile(logging.FileHandler):
    """A log that says so when it cannot be written, where logging would print a traceback per line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Raise what writing the record raised."""
        raise


@contextmanager
def _open_log(path: Path, name: str) -> Generator[logging.Logger]:
    """Yield a logger that appends to ``path`` and is part of no global configuration."""
    try:
        handler = _LogFile(path, mode="a", encoding="utf-8")
    except OSError as error:
        raise StudyError(str(path), f"cannot be written ({error.strerror})") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    log = logging.Logger(name, logging.INFO)
    log.addHandler(handler)
    try:
        yield log
    finally:
        handler.close()


def _log_start(log: logging.Logger, job: TrainingJob, config: TrainParams) -> None:
    log.info("training job %s starts", job.name)
    for key, value in job.describe().items():
        log.info("%s: %s", key, value)
    log.info("config: %s", config.model_dump_json())


def _check_data(job: TrainingJob, neighbor_count: int) -> None:
    """Refuse missing or broken data before any time goes into training."""
    missing = _missing_files(job)
    if missing:
        raise _missing_error(job, missing)
    for path in (job.train_path, job.test_path):
        read_dataset(path, gridsize=job.gridsize, neighbor_count=neighbor_count)


def _checked_result(job: TrainingJob, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the runner's result if it is JSON and the bundle on disk is the one it describes."""
    where = job.name
    lacking = [key for key in ("status", "bundle", "sha256", "size_bytes") if key not in result]
    if lacking:
        raise StudyError(where, f"the trainer's result lacks {', '.join(map(repr, lacking))}")
    if result["status"] != "success":
        raise StudyError(where, f"the trainer ended with status {result['status']!r}", f"see {job.log_path}")
    try:
        json.dumps(dict(result), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StudyError(where, f"the trainer's result cannot be written as JSON ({error})") from None
    bundle = Path(result["bundle"])
    if bundle.is_absolute() or ".." in bundle.parts:
        raise StudyError(where, f"the bundle must lie in {job.artifact_dir}, got {bundle}")
    path = job.artifact_dir / bundle
    found = {"sha256": sha256_of(path), "size_bytes": path.stat().st_size}
    for key, value in found.items():
        if result[key] != value:
            problem = f"{key} is {value}, but the trainer reported {result[key]}"
            raise StudyError(str(path), problem, "something else wrote to it; train again")
    return dict(result)
