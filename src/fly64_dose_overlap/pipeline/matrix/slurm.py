"""Cells as tasks of a Slurm job array, through submitit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fly64_dose_overlap.commands import reason_in
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.matrix.cluster import RETRIES, Outcome, attempt, require
from fly64_dose_overlap.pipeline.matrix.node import CellJob
from fly64_dose_overlap.progress import say

MINUTES = 60
POLL_S = 2.0
RESULT_GRACE_S = 15.0
"""How long a result may take from the node to here through a shared file system."""
QUEUE_PATIENCE_S = 600.0
"""How long Slurm's controller may fail to answer."""
CANCEL_PATIENCE_S = 60.0
ALLOCATED = ("SLURM_MEM_PER_", "SLURM_CPUS_PER_TASK", "SLURM_TRES_PER_TASK")
"""Of the allocation that a command is given in: srun of a task refuses them beside the task's own."""


def run_on_slurm(
    jobs: Sequence[CellJob],
    folder: Path,
    *,
    retries: int = RETRIES,
    cpus: int = 1,
    minutes: int = MINUTES,
    **settings: Any,
) -> Generator[Outcome]:
    """Run cells as one Slurm job array, a task per cell, and yield each with its error as it finishes.

    Slurm's accounting is not needed: a task that has left the queue without a result died.

    Parameters
    ----------
    folder : Path
        For logs and results of the tasks; the nodes must see it under the same path.
    retries : int
        How often a cell whose task died is run again.
    cpus : int
        Cores of a cell.
    minutes : int
        Time limit of a cell.
    **settings
        Further ones of submitit's SlurmExecutor; None takes the cluster's default.

    Raises
    ------
    StudyError
        If submitit or Slurm is missing, or Slurm refuses the array or stops to answer.
    """
    if not jobs:
        return
    executor = _executor(folder, cpus, settings | {"time": minutes})
    tasks = _submit(executor, jobs)
    deaths: Counter[CellJob] = Counter()
    absent: dict[CellJob, float] = {}
    answered = time.monotonic()
    try:
        while tasks:
            queued, now = _queued(), time.monotonic()
            answered = now if queued is not None else answered
            if now - answered > QUEUE_PATIENCE_S:
                problem = f"has failed for {now - answered:.0f} s"
                raise StudyError("squeue", problem, "look at it by hand: squeue --me")
            for job, task in list(tasks.items()):
                if task.paths.result_pickle.exists():
                    del tasks[job]
                    yield job, _error_of(task)
                elif queued is None or task.job_id in queued:
                    absent.pop(job, None)
                elif now - absent.setdefault(job, now) > RESULT_GRACE_S:
                    del absent[job]
                    deaths[job] += 1
                    if deaths[job] > retries:
                        del tasks[job]
                        yield job, f"its task died {deaths[job]} times; see {task.paths.stderr}"
                    else:
                        say(f"{job.name}: its task died, it is run again")
                        tasks |= _submit(executor, [job])
            if tasks:
                time.sleep(POLL_S)
    finally:
        _cancel({task.job_id for task in tasks.values()})


def _executor(folder: Path, cpus: int, settings: Mapping[str, Any]) -> Any:
    submitit = require("submitit")
    for name in [each for each in os.environ if each.startswith(ALLOCATED)]:
        del os.environ[name]
    try:
        executor = submitit.SlurmExecutor(folder=str(folder.absolute()))
    except RuntimeError:
        raise StudyError("Slurm", "there is no srun here", "run this where jobs are submitted") from None
    executor.update_parameters(
        job_name="fly64",
        cpus_per_task=cpus,
        # From Slurm 22.05 on srun no longer takes over the cores that sbatch was given.
        srun_args=[f"--cpus-per-task={cpus}"],
        **{key: value for key, value in settings.items() if value is not None},
    )
    return executor


def _submit(executor: Any, jobs: Sequence[CellJob]) -> dict[CellJob, Any]:
    try:
        return dict(zip(jobs, executor.map_array(_in_a_task, jobs), strict=True))
    except (RuntimeError, subprocess.CalledProcessError) as error:
        reason = reason_in(str(error))
        raise StudyError("sbatch", f"has refused {len(jobs)} tasks ({reason})") from None


def _in_a_task(job: CellJob) -> str | None:
    """Run a cell in a task; SIGTERM, which submitit would ignore, ends it at once."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    return attempt(job)


def _error_of(task: Any) -> str | None:
    error = task.exception()
    if error is None:
        return task.result()
    trace = str(error).partition("\n------")[2].rpartition("\n------")[0]
    return f"{reason_in(trace)}; see {task.paths.stderr}"


def _queued() -> set[str] | None:
    """Return the user's tasks that wait or run, or None if Slurm does not answer."""
    line = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    # A user's SQUEUE_STATES and the like would hide tasks, which then count as dead.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    found = subprocess.run(line, env=plain, capture_output=True, text=True, check=False)
    return set(found.stdout.split()) if found.returncode == 0 else None


def _cancel(tasks: Collection[str]) -> None:
    """Cancel tasks and wait until Slurm has ended them."""
    if not tasks:
        return
    subprocess.run(["scancel", *sorted(tasks)], check=False)
    deadline = time.monotonic() + CANCEL_PATIENCE_S
    while (_queued() or set()).intersection(tasks):
        if time.monotonic() > deadline:
            say(f"Slurm has not ended {len(tasks)} tasks yet; see: squeue --me")
            return
        time.sleep(POLL_S)
