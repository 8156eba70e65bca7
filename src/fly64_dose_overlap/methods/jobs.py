"""Reconstruction jobs: one method on one half of one cell, each in a process of its own."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fly64_dose_overlap.config import MethodName, ReconstructParams, ViewName
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.reconstruction import MANIFEST, read_reconstructions, write_reconstructions
from fly64_dose_overlap.methods import worker
from fly64_dose_overlap.progress import LOG_INTERVAL_S, say
from fly64_dose_overlap.results.repository import repository_root, work_key

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
VIEW_ORDER: tuple[ViewName, ...] = ("baseline", "dense", "sparse")
DATA_ROOT = Path("data/views")
STORE = Path(".dvc/tmp/reconstructions")
CODE = ("files", "physics", "methods", "results", "seeding.py")
"""Parts of the package whose change makes a finished job worthless."""
POLL_S = 0.2


@dataclass(frozen=True)
class ReconstructionJob:
    """One method on one dataset.

    Attributes
    ----------
    dose : int, photons per frame
    view : str
    gridsize : int
        Group side of the view; the method uses frames and no groups.
    split : "train" or "test"
    method : str
    data_path : Path
    output_dir : Path
        Folder of the results and of the log.
    """

    dose: int
    view: ViewName
    gridsize: int
    split: Split
    method: MethodName
    data_path: Path
    output_dir: Path

    @property
    def name(self) -> str:
        """Name of the job in messages, such as ``lsqml/dense/dose=1000/test``."""
        return f"{self.method}/{self.view}/dose={self.dose}/{self.split}"

    @property
    def log_path(self) -> Path:
        """Everything that the job's process says."""
        return self.output_dir / f"{self.method}.log"

    def command(self, params_file: Path) -> list[str]:
        """Return the command line of the job's process."""
        files = map(str, (self.data_path, params_file, self.output_dir))
        return [sys.executable, "-m", worker.__name__, self.method, *files]

    def describe(self) -> dict[str, Any]:
        """Return the job as JSON-able values."""
        return {
            "dose": self.dose,
            "view": self.view,
            "gridsize": self.gridsize,
            "split": self.split,
            "method": self.method,
            "data_path": self.data_path.as_posix(),
            "output_dir": self.output_dir.as_posix(),
            "log_path": self.log_path.as_posix(),
        }


@dataclass(frozen=True)
class Outcome:
    """How a job's process ended; 0 is success."""

    job: ReconstructionJob
    returncode: int

    def describe(self) -> dict[str, Any]:
        """Return job and exit status as JSON-able values."""
        return {**self.job.describe(), "returncode": self.returncode}


def cell_jobs(
    dose: int, view: ViewName, gridsize: int, params: ReconstructParams, *, data_root: Path = DATA_ROOT
) -> list[ReconstructionJob]:
    """Return the jobs of the cell that the study's `reconstruct` stage follows: its test half, every method.

    Each works in a folder named by all that its result depends on, under the repository's
    ``.dvc/tmp``. What an interrupted stage had finished is there when it is repeated, also
    in a temporary copy of the repository.
    """
    path = data_root / str(dose) / view / "test.npz"
    if not path.is_file():
        target = f"overlap@{dose}-{view}"
        raise MissingFileError(
            str(path),
            "no such file",
            f"make it with: dvc repro {target}, or fetch it with: dvc pull {target}",
        )
    store = repository_root(Path.cwd()) / STORE
    digest = sha256_of(path)
    jobs: list[ReconstructionJob] = []
    for method, epochs in params.epochs.items():
        settings = params.model_dump(exclude={"epochs", "workers"})
        folder = store / work_key(method, epochs, settings, digest, code=CODE)
        jobs.append(ReconstructionJob(dose, view, gridsize, "test", method, path, folder))
    return jobs


def how_to_get(dose: int, view: str) -> str:
    """Say how to come by the data of a view."""
    target = f"overlap@{dose}-{view}"
    return f"make it with: dvc repro {target}, or fetch it with: dvc pull {target}"


def run_jobs(jobs: Sequence[ReconstructionJob], *, params_file: Path, workers: int) -> list[Outcome]:
    """Run jobs, several at a time; a failed one does not stop the others.

    What finished before is kept as it is. An interrupt ends all processes.

    Parameters
    ----------
    jobs : sequence of ReconstructionJob
    params_file : Path
    workers : int

    Returns
    -------
    list of Outcome
        In the order of the jobs.
    """
    running: list[subprocess.Popen[bytes]] = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            run = partial(_run, params_file=params_file, running=running)
            return list(pool.map(run, jobs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise


def _run(job: ReconstructionJob, params_file: Path, running: list[subprocess.Popen[bytes]]) -> Outcome:
    if (job.output_dir / MANIFEST).is_file():
        say(f"reconstruct {job.name}: finished before")
        return Outcome(job, 0)
    job.output_dir.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    say(f"reconstruct {job.name}: starts, log {job.log_path}")
    started = last = time.monotonic()
    with job.log_path.open("ab") as log:
        process = subprocess.Popen(
            job.command(params_file), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        running.append(process)
        while process.poll() is None:
            time.sleep(POLL_S)
            if time.monotonic() - last >= LOG_INTERVAL_S:
                last = time.monotonic()
                say(f"reconstruct {job.method}: {_last_line(job.log_path)}")
    ended = f"after {time.monotonic() - started:.0f} s"
    if process.returncode:
        say(
            f"reconstruct {job.name}: failed {ended}, status {process.returncode}: {_last_line(job.log_path)}"
        )
    else:
        say(f"reconstruct {job.name}: done {ended}")
    return Outcome(job, process.returncode)


def _last_line(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2000))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no word yet")


def collect(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Copy the results of finished jobs into one folder; its manifest comes last.

    Raises
    ------
    StudyError
        If a job failed; the folder is then left as it was, and what finished is kept for
        a repetition.
    """
    failed = [outcome for outcome in outcomes if outcome.returncode]
    if failed:
        logs = ", ".join(
            f"{each.job.name} ({_last_line(each.job.log_path)}; see {each.job.log_path})" for each in failed
        )
        raise StudyError(
            "reconstruct", f"{len(failed)} of {len(outcomes)} methods failed: {logs}", "the others are kept"
        )
    results = itertools.chain.from_iterable(
        read_reconstructions(outcome.job.output_dir) for outcome in outcomes
    )
    write_reconstructions(folder, results)


def clear(jobs: Sequence[ReconstructionJob]) -> None:
    """Remove the working folders of jobs."""
    for job in jobs:
        shutil.rmtree(job.output_dir, ignore_errors=True)
