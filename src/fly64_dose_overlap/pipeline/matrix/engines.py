"""Cells on many machines, by engines that exist: Slurm through submitit, and Dask.

Both are generators that yield every job once, with None or the reason of its failure, as
the cells finish. A cell whose worker died is run again; a cell that failed is not. When the
consumer stops early, what is still running is cancelled: hold the generator in
`contextlib.closing`, so that this happens at once after an error too.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.matrix.node import CellJob, run_cell, stop_cells
from fly64_dose_overlap.progress import say

Outcome = tuple[CellJob, str | None]
"""A job with None, or with one line that says why it failed."""

RETRIES = 2
POLL_S = 2.0
RESULT_GRACE_S = 15.0
"""How long a result may take from the node to here through a shared file system."""
QUEUE_PATIENCE_S = 600.0
"""How long Slurm's controller may fail to answer."""
CANCEL_PATIENCE_S = 60.0


@dataclass(frozen=True)
class SlurmOptions:
    """How Slurm runs cells.

    Attributes
    ----------
    folder : Path
        For logs and results of the tasks; the nodes must see it under the same path.
    partition : str or None
        None takes the cluster's default.
    cpus_per_task : int
    memory_gb : float or None
        Per cell; None takes the cluster's default.
    minutes : int
        Time limit of a cell.
    gres : str or None
        Generic resources of a cell, such as ``gpu:1``.
    at_once : int
        Cells that run at the same time, at most.
    retries : int
        How often a cell whose task died is run again.
    extra : mapping
        Further options of ``sbatch``, without the dashes, such as ``{"account": "x"}``.
    """

    folder: Path
    partition: str | None = None
    cpus_per_task: int = 2
    memory_gb: float | None = None
    minutes: int = 60
    gres: str | None = None
    at_once: int = 64
    retries: int = RETRIES
    extra: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class DaskOptions:
    """How Dask runs cells: on this machine, unless ``address`` or ``jobqueue`` says otherwise.

    Attributes
    ----------
    workers : int
        Worker processes to start, and so cells at a time; unused with ``address``.
    address : str or None
        A scheduler that runs, such as ``tcp://host:8786``. Give its workers one thread each:
        a worker runs as many cells at once as it has threads.
    jobqueue : str or None
        A class of dask-jobqueue that starts workers, such as ``PBSCluster``.
    cluster : mapping
        Arguments of that class, such as ``{"cores": 1, "memory": "8GB"}``.
    gpus : sequence of str
        Values of CUDA_VISIBLE_DEVICES that the workers of this machine take in turn.
    retries : int
        How often a cell whose worker died is run again; with ``address`` the scheduler's
        own ``distributed.scheduler.allowed-failures`` holds.
    """

    workers: int = 2
    address: str | None = None
    jobqueue: str | None = None
    cluster: Mapping[str, Any] = field(default_factory=dict[str, Any])
    gpus: Sequence[str] = ()
    retries: int = RETRIES


def run_on_slurm(jobs: Sequence[CellJob], options: SlurmOptions) -> Generator[Outcome]:
    """Run cells as one Slurm job array, a task per cell.

    Slurm's accounting is not needed: a task that has left the queue without a result died.

    Parameters
    ----------
    jobs : sequence of CellJob
    options : SlurmOptions

    Yields
    ------
    job, error : CellJob, str or None
        As the cells finish.

    Raises
    ------
    StudyError
        If submitit or Slurm is missing, or Slurm refuses the array or stops to answer.
    """
    if not jobs:
        return
    executor = _slurm_executor(options)
    tasks: list[_Task] = []
    try:
        tasks += _submit(executor, jobs)
        answered = time.monotonic()
        while tasks:
            queued = _queued_tasks()
            answered = _still_answering(queued, answered)
            for task in list(tasks):
                state, error = task.look(queued)
                if state == LOST and task.lost < options.retries:
                    say(f"{task.job.name}: its task died, it is run again")
                    task.resubmitted(executor)
                elif state != RUNNING:
                    tasks.remove(task)
                    yield task.job, error
            if tasks:
                time.sleep(POLL_S)
    finally:
        _cancel(tasks)


RUNNING, ENDED, LOST = "running", "ended", "lost"


class _Task:
    """A job with its present task in Slurm."""

    def __init__(self, job: CellJob, handle: Any) -> None:
        self.job = job
        self.handle = handle
        self.lost = 0
        self._absent_since: float | None = None

    def resubmitted(self, executor: Any) -> None:
        self.handle = _submit(executor, [self.job])[0].handle
        self.lost += 1
        self._absent_since = None

    def look(self, queued: set[str] | None) -> tuple[str, str | None]:
        """Return the state of the task, and the reason if it ended badly."""
        if self.handle.paths.result_pickle.exists():
            return self._result()
        if queued is None or self.handle.job_id in queued:
            self._absent_since = None
            return RUNNING, None
        if self._absent_since is None:
            self._absent_since = time.monotonic()
        if time.monotonic() - self._absent_since < RESULT_GRACE_S:
            return RUNNING, None
        return LOST, f"its task died {self.lost + 1} times; see {self.handle.paths.stderr}"

    def _result(self) -> tuple[str, str | None]:
        error = self.handle.exception()
        if error is None:
            return ENDED, self.handle.result()
        reason = _last_line(str(error).partition("\n------")[2].rpartition("\n------")[0])
        return ENDED, f"{reason}; see {self.handle.paths.stderr}"


def _slurm_executor(options: SlurmOptions) -> Any:
    submitit = _require("submitit")
    try:
        executor = submitit.SlurmExecutor(folder=str(options.folder.absolute()))
    except RuntimeError:
        raise StudyError("Slurm", "there is no srun here", "run this where jobs are submitted") from None
    given = {
        "job_name": "fly64",
        "partition": options.partition,
        "cpus_per_task": options.cpus_per_task,
        "mem": None if options.memory_gb is None else f"{round(options.memory_gb * 1024)}MB",
        "time": options.minutes,
        "gres": options.gres,
        "array_parallelism": options.at_once,
        # From Slurm 22.05 on srun no longer takes over the cores that sbatch was given.
        "srun_args": [f"--cpus-per-task={options.cpus_per_task}"],
        "additional_parameters": dict(options.extra),
    }
    executor.update_parameters(**{key: value for key, value in given.items() if value is not None})
    return executor


def _submit(executor: Any, jobs: Sequence[CellJob]) -> list[_Task]:
    try:
        handles = executor.map_array(_cell_on_slurm, jobs)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        reason = _last_line(str(error))
        raise StudyError("sbatch", f"has refused {len(jobs)} tasks ({reason})") from None
    return [_Task(job, handle) for job, handle in zip(jobs, handles, strict=True)]


def _cell_on_slurm(job: CellJob) -> str | None:
    """Run a cell in a task; SIGTERM, which submitit would ignore, ends it at once."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    return _attempt(job)


def _queued_tasks() -> set[str] | None:
    """Return the user's tasks that wait or run, or None if Slurm does not answer."""
    line = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    found = subprocess.run(line, capture_output=True, text=True, check=False)
    return set(found.stdout.split()) if found.returncode == 0 else None


def _still_answering(queued: set[str] | None, answered: float) -> float:
    """Return when Slurm last answered; raise once that is too long ago."""
    now = time.monotonic()
    if queued is None and now - answered > QUEUE_PATIENCE_S:
        raise StudyError(
            "squeue", f"has failed for {now - answered:.0f} s", "look at it by hand: squeue --me"
        )
    return answered if queued is None else now


def _cancel(tasks: Sequence[_Task]) -> None:
    """Cancel tasks and wait until Slurm has ended them."""
    names = {task.handle.job_id for task in tasks}
    if not names:
        return
    subprocess.run(["scancel", *sorted(names)], check=False)
    deadline = time.monotonic() + CANCEL_PATIENCE_S
    while names & (_queued_tasks() or set()):
        if time.monotonic() > deadline:
            say(f"Slurm has not ended {len(names)} tasks yet; see: squeue --me")
            return
        time.sleep(POLL_S)


def run_on_dask(jobs: Sequence[CellJob], options: DaskOptions) -> Generator[Outcome]:
    """Run cells on Dask workers, one cell per worker at a time.

    Parameters
    ----------
    jobs : sequence of CellJob
    options : DaskOptions

    Yields
    ------
    job, error : CellJob, str or None
        As the cells finish.

    Raises
    ------
    StudyError
        If Dask is missing, its scheduler cannot be reached, or ``jobqueue`` is no class of
        dask-jobqueue.
    """
    if not jobs:
        return
    distributed = _require("distributed", "dask[distributed]")
    with ExitStack() as stack:
        client = _dask_client(stack, distributed, options)
        gpus = () if options.address or options.jobqueue else tuple(options.gpus)
        futures = {client.submit(_cell_on_dask, job, gpus, pure=False): job for job in jobs}
        stack.callback(_stop_on_dask, client, futures)
        for future in distributed.as_completed(list(futures)):
            job = futures.pop(future)
            yield job, _error_of(future)


def _dask_client(stack: ExitStack, distributed: Any, options: DaskOptions) -> Any:
    import dask.config

    settings = {
        "distributed.scheduler.allowed-failures": options.retries,
        # No cell waits at a worker, where it would share the blame if that one dies.
        "distributed.scheduler.worker-saturation": 1.0,
    }
    stack.enter_context(dask.config.set(settings))
    if options.address:
        target: Any = options.address
    elif options.jobqueue:
        target = stack.enter_context(_jobqueue_cluster(options))
        # Not `scale`, which starts no job in place of one that ended or was cancelled.
        target.adapt(minimum_jobs=options.workers, maximum_jobs=options.workers)
    else:
        target = distributed.LocalCluster(
            n_workers=options.workers, threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0"
        )
        stack.enter_context(target)
    try:
        return stack.enter_context(distributed.Client(target))
    except OSError as error:
        raise StudyError(f"Dask's scheduler {options.address}", f"cannot be reached ({error})") from None


def _jobqueue_cluster(options: DaskOptions) -> Any:
    in_charge = signal.getsignal(signal.SIGINT)
    jobqueue = _require("dask_jobqueue", "dask-jobqueue")
    signal.signal(signal.SIGINT, in_charge)  # its import takes Ctrl+C over, and ends with status 0
    known = sorted(name for name in vars(jobqueue) if name.endswith("Cluster"))
    name = options.jobqueue or ""
    if name not in known:
        raise StudyError(name, "is no class of dask-jobqueue", f"there are {', '.join(known)}")
    return getattr(jobqueue, name)(**options.cluster)


def _cell_on_dask(job: CellJob, gpus: Sequence[str]) -> str | None:
    if gpus:
        from distributed import get_worker

        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[int(get_worker().name) % len(gpus)]
    return _attempt(job)


def _error_of(future: Any) -> str | None:
    if future.status == "finished":
        return future.result()
    if future.status == "cancelled":
        return "was cancelled by Dask's scheduler"
    error = future.exception()
    if type(error).__name__ == "KilledWorker":
        return "its worker died each time it was run"
    return _one_line(error)


def _stop_on_dask(client: Any, futures: Mapping[Any, CellJob]) -> None:
    """Take back what waits, and stop what runs."""
    if futures:
        client.cancel(list(futures), force=True)
        client.run(stop_cells, list(futures.values()))


def _attempt(job: CellJob) -> str | None:
    """Run a cell; a failure that the user can act on is a result, all else is a bug."""
    try:
        run_cell(job)
    except StudyError as error:
        return str(error)
    return None


def _require(module: str, package: str = "") -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        hint = "install it with: pip install -e '.[cluster]'"
        raise StudyError(package or module, "is not installed", hint) from None


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
