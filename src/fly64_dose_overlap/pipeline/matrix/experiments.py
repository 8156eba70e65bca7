"""DVC's queue of experiments in one repository: driven by its commands, watched in its files.

Commands of DVC take a second each and one of them has been seen to hang while jobs run,
so that watching reads the small files that DVC keeps of every job instead. Which
experiments exist is asked of git, where DVC keeps them: a job that DVC calls a success
may have none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from fly64_dose_overlap.commands import run_command
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.matrix.cells import Cell

COPIES = Path(".dvc/tmp/exps")
"""Where DVC copies the repository to, once per running job."""
JOBS = COPIES / "run"
WORKERS = COPIES / "celery"
STOP_LIMIT_S = 1.5
"""Workers and jobs each have this long to end by themselves: Ctrl-C is to end the matrix in five seconds."""
RAN = "Running stage '"


@dataclass(frozen=True)
class Job:
    """A job of the queue that has started.

    Attributes
    ----------
    name : str
        Name of its experiment.
    log : Path
        What it printed.
    pid : int
        Its process.
    returncode : int or None
        None while it runs.
    """

    name: str
    log: Path
    pid: int
    returncode: int | None

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.returncode is None and _runs(self.pid, "exec-run")


def baseline() -> str:
    """Return the commit that experiments start from."""
    return run_command("git", "rev-parse", "HEAD").strip()


def finished(commit: str) -> set[str]:
    """Return the names of the experiments that exist for a commit."""
    folder = f"refs/exps/{commit[:2]}/{commit[2:]}/"
    listing = run_command("git", "for-each-ref", "--format=%(refname)", folder)
    return {reference.removeprefix(folder) for reference in listing.splitlines()}


def result_of(commit: str, name: str, path: str) -> str:
    """Return the content of a file that git keeps for an experiment."""
    return run_command("git", "show", f"refs/exps/{commit[:2]}/{commit[2:]}/{name}:{path}")


def restoring_flags() -> tuple[str, ...]:
    """Return the flags of ``dvc exp run`` that restore data instead of making them again.

    Without remote storage ``--pull`` makes DVC fail where it finds a result in its run cache.
    """
    from dvc.repo import Repo

    with Repo() as repo:
        has_remote = bool(repo.config["core"].get("remote"))
    return ("--pull", "--allow-missing") if has_remote else ("--allow-missing",)


def add(cell: Cell, *flags: str) -> None:
    """Queue the experiment of a cell; flags as for `Cell.command`."""
    run_command("dvc", "exp", "run", "--queue", *cell.command(*flags), where=f"cell {cell.name}")


def queued_states() -> dict[str, str]:
    """Return the state that DVC's queue gives to each name: Queued, Running, Failed or Success."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            entries = repo.experiments.celery_queue.status()
    except DvcException as error:
        raise StudyError(
            "DVC's queue", f"cannot be read ({error})", "empty it: dvc queue remove --all"
        ) from None
    # Oldest last: where a name was used again, its newest entry counts.
    ordered = sorted(entries, key=lambda entry: entry["timestamp"])
    return {entry["name"]: entry["status"] for entry in ordered if entry["name"]}


def clear(names: Sequence[str]) -> None:
    """Take entries out of the queue whose jobs have ended, were lost, or have not started."""
    states = queued_states()
    lost = [name for name in names if states.get(name) == "Running"]
    if lost:
        run_command("dvc", "queue", "kill", "--force", *lost)
    entries = [name for name in names if states.get(name) in ("Queued", "Running", "Failed")]
    if entries:
        run_command("dvc", "queue", "remove", *entries)


def start_workers(count: int) -> None:
    """Start workers up to ``count``; they end when the queue is empty."""
    run_command("dvc", "queue", "start", "--jobs", str(count))


def worker_pids() -> list[int]:
    """Return the processes of the workers that are alive."""
    found = map(_read, WORKERS.glob("dvc-exp-worker-*.json"))
    return [info["pid"] for info in found if info and _runs(info["pid"], "queue-worker")]


def job_folders() -> set[str]:
    """Return the folders of all jobs that ever started here."""
    return {path.name for path in JOBS.glob("*")}


def jobs_beside(known: set[str]) -> dict[str, Job]:
    """Return, by name, the jobs that run or whose folder is not ``known``."""
    found: dict[str, Job] = {}
    for info in JOBS.glob("*/*.run"):
        job = _job(info)
        if job is not None and (job.is_alive or info.parent.name not in known):
            found[job.name] = job
    return found


def _job(info: Path) -> Job | None:
    executor, process = _read(info), _read(info.with_suffix(".json"))
    if not executor or not process:
        return None  # not started
    return Job(executor["name"], info.with_suffix(".out"), process["pid"], process["returncode"])


def _read(path: Path) -> dict[str, Any] | None:
    """Return what DVC keeps in a file, or None while the file is away or being written."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def stages_run(log: Path) -> list[str]:
    """Return the stages that DVC executed in a job, as its log records them."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [line.removeprefix(RAN).split("'")[0] for line in lines if line.startswith(RAN)]


def stop_all() -> None:
    """End workers and jobs of this repository, and what they started."""
    workers = set(worker_pids())
    _end(process for process in psutil.process_iter() if process.pid in workers)
    # Looked for after that: a job may have started a stage while its worker ended.
    _end(_processes_in_copies())


def stop_orphans() -> None:
    """End what a dead worker left running; a second run of the same cell must not meet it."""
    if not worker_pids():
        _end(_processes_in_copies())


def _processes_in_copies() -> Iterable[psutil.Process]:
    copies = COPIES.resolve()
    for process in psutil.process_iter():
        try:
            folder = Path(process.cwd())
        except (psutil.Error, OSError):
            continue
        if copies in folder.parents and folder.relative_to(copies).parts[0].startswith("tmp"):
            yield process


def _end(processes: Iterable[psutil.Process]) -> None:
    families: set[psutil.Process] = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            families |= {process, *process.children(recursive=True)}
    for member in families:
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    for member in psutil.wait_procs(families, timeout=STOP_LIMIT_S)[1]:
        with suppress(psutil.NoSuchProcess):
            member.kill()


def _runs(pid: int, word: str) -> bool:
    """Whether a process runs whose command line has ``word``; numbers are used again after a reboot."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and word in process.cmdline()
    except psutil.Error:
        return False
