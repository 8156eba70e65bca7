"""DVC's queue of experiments in one repository: driven by its commands, watched in its files.

Commands of DVC take a second each and one of them has been seen to hang while jobs run,
so that watching reads the small files that DVC keeps of every job instead.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fly64_dose_overlap.commands import run_command
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.matrix.plan import Experiment
from fly64_dose_overlap.pipeline.processes import end_below, ending, runs

COPIES = Path(".dvc/tmp/exps")
"""Where DVC copies the repository to, once per running job."""
JOBS = COPIES / "run"
WORKERS = COPIES / "celery"
WORKER_NAME = "dvc-exp-worker-*"
RAN = "Running stage '"
"""DVC's word on a stage that it executes, in the log of a job."""


@dataclass(frozen=True)
class Job:
    """A job of the queue that has started."""

    name: str
    """Of its experiment."""
    folder: Path
    """Its copy of the study."""
    log: Path
    pid: int
    returncode: int | None
    """None while it runs."""

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.returncode is None and runs(self.pid, "exec-run")


def require_usable(root: Path) -> None:
    """Refuse a folder in which DVC's queue runs no job, because it writes folders as parts of URLs."""
    if not str(root).isascii() or any(sign in str(root) for sign in "#?%"):
        problem = "DVC's queue works in no path with #, ?, % or letters beyond ASCII"
        raise StudyError(str(root), problem, "move the repository")


def restoring_flags() -> tuple[str, ...]:
    """Return the flags of ``dvc exp run`` that restore data instead of making them again.

    Without remote storage ``--pull`` makes DVC fail where it finds a result in its run cache.
    """
    from dvc.repo import Repo

    with Repo() as repo:
        has_remote = bool(repo.config["core"].get("remote"))
    return ("--pull", "--allow-missing") if has_remote else ("--allow-missing",)


def add(experiment: Experiment, flags: Sequence[str]) -> None:
    """Queue an experiment; ``flags`` say how it comes by its data."""
    run_command("dvc", "exp", "run", "--queue", *flags, *experiment.command, where=f"cell {experiment.name}")


def queued_states() -> dict[str, str]:
    """Return the state that DVC's queue gives to each name: Queued, Running, Failed or Success."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            entries = repo.experiments.celery_queue.status()
    except DvcException as error:
        hint = f"delete {WORKERS}, which empties it; what has a result is kept"
        raise StudyError("DVC's queue", f"cannot be read ({error})", hint) from None
    # Oldest last: where a name was used again, its newest entry counts.
    ordered = sorted(entries, key=lambda entry: entry["timestamp"])
    return {entry["name"]: entry["status"] for entry in ordered if entry["name"]}


def clear(names: Sequence[str], states: dict[str, str]) -> None:
    """Take entries out of the queue whose jobs have ended, were lost, or have not started."""
    if lost := [name for name in names if states.get(name) == "Running"]:
        run_command("dvc", "queue", "kill", "--force", *lost)
    if entries := [name for name in names if states.get(name) in ("Queued", "Running", "Failed")]:
        run_command("dvc", "queue", "remove", *entries)


def start_workers(count: int) -> None:
    """Start workers up to ``count``; they end when the queue is empty."""
    run_command("dvc", "queue", "start", "--jobs", str(count))


def worker_pids() -> list[int]:
    """Return the processes of the workers that are alive."""
    found = map(_read, WORKERS.glob(f"{WORKER_NAME}.json"))
    return [info["pid"] for info in found if info and runs(info["pid"], "queue-worker")]


def worker_log() -> Path | None:
    """Return what a worker printed, the last that did."""
    logs = [path for path in WORKERS.glob(f"{WORKER_NAME}.out") if path.stat().st_size]
    return max(logs, key=lambda path: path.stat().st_mtime, default=None)


def job_folders() -> set[str]:
    """Return the folders of all jobs that ever started here."""
    return {path.name for path in JOBS.glob("*")}


def jobs_beside(known: set[str]) -> dict[str, Job]:
    """Return, by name, the jobs that run or whose folder is not ``known``."""
    found: dict[str, Job] = {}
    for path in JOBS.glob("*/*.run"):
        executor, process = _read(path), _read(path.with_suffix(".json"))
        if not executor or not process:
            continue  # not started
        folder = (Path(executor["root_dir"]) / executor["dvc_dir"]).parent
        log, pid, returncode = path.with_suffix(".out"), process["pid"], process["returncode"]
        job = Job(executor["name"], folder, log, pid, returncode)
        if job.is_alive or path.parent.name not in known:
            found[job.name] = job
    return found


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
    """End workers and jobs of this repository, and what they started.

    A process of its own does it: who presses Ctrl-C again ends this one.
    """
    subprocess.Popen(ending(COPIES, worker_pids()), start_new_session=True).wait()


def stop_orphans() -> None:
    """End what a dead worker left running; a second run of the same cell must not meet it."""
    if not worker_pids():
        end_below(COPIES)
