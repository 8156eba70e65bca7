"""One cell on a node: a clone of its own, the experiment, the push of its results.

What a cell needs of the node is git, this environment, a scratch folder, and a way to the
git repository and the DVC remote. Nothing of it outlives the cell, even if the process
that runs it is killed: every command has a guard between itself and that process, which
kills the command with all its children when the process ends.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fly64_dose_overlap.errors import StudyError

TARGET = "evaluate"
"""The last stage of a cell; DVC then fetches only what its stages read."""
PUSHES = 6
FIRST_PAUSE_S = 1.0
LOCK_PAUSE_S = 0.5
LOG_LINES = 20
FETCHED = "refs/fly64/pushed"
CHECKPOINTS = Path(".dvc/tmp/checkpoints")
FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "DVC_ROOT")
"""Variables that would lead git or DVC from the clone into another repository."""


@dataclass(frozen=True)
class CellJob:
    """One cell, with all that a node must know to run it.

    Attributes
    ----------
    name : str
        Name of the experiment, such as ``1000-sparse``.
    overrides : tuple of str
        Parameters of the cell as ``key=value``, for ``dvc exp run --set-param``.
    git_url : str
        Absolute path or URL of the git repository to clone, and to push the experiment to.
    revision : str
        Full name of the commit to run; a branch or tag of ``git_url`` must contain it.
    remote_config : tuple of (str, str)
        DVC's settings on the node, such as ``("core.remote", "storage")``.
    scratch : str
        Folder on the node for the clone, which is removed, and the log, which is kept.
    cache : str or None
        DVC cache that the nodes share; None gives every cell a cache of its own.
    attempts : int
        How often to try each push.
    """

    name: str
    overrides: tuple[str, ...]
    git_url: str
    revision: str
    remote_config: tuple[tuple[str, str], ...]
    scratch: str
    cache: str | None
    attempts: int = PUSHES

    @property
    def log_path(self) -> Path:
        """Log of the cell on the node; every attempt appends to it."""
        return Path(self.scratch) / f"{self.name}.log"

    @property
    def reference(self) -> str:
        """Git reference of the experiment, as DVC names it."""
        return f"refs/exps/{self.revision[:2]}/{self.revision[2:]}/{self.name}"


def run_cell(job: CellJob) -> str:
    """Run a cell on this machine and push its experiment and its data.

    Running it again is safe at any point. What a killed attempt left is removed, except
    for the checkpoints, from which the training goes on; an experiment that was pushed is
    not run again. The data are pushed before the experiment, so that an experiment that
    can be seen can also be pulled.

    Parameters
    ----------
    job : CellJob
        The cell.

    Returns
    -------
    name : str
        Name of the experiment.

    Raises
    ------
    StudyError
        If a command fails, the job is stopped by `stop_cells`, or an experiment of this
        name but with other parameters was pushed before.
    """
    if Path(job.name).name != job.name:
        raise StudyError(job.name, "is no name for a folder", "use letters, digits and dashes")
    try:
        os.makedirs(job.scratch, exist_ok=True)
    except OSError as error:
        raise StudyError(job.scratch, f"cannot be made on {os.uname().nodename} ({error.strerror})") from None
    with _only_attempt(job) as attempt:
        folder = Path(job.scratch) / job.name
        try:
            _clone(attempt, folder)
            if not _is_pushed(attempt):
                _run_experiment(attempt)
                _push(attempt)
        finally:
            _retire(folder)
            # What is left is a checkpoint, for the next attempt.
            with suppress(OSError):
                folder.rmdir()
        shutil.rmtree(folder, ignore_errors=True)
    return job.name


def stop_cells(jobs: Collection[CellJob]) -> None:
    """Stop those of the jobs that run in this process; their `run_cell` raises a StudyError."""
    with _registry_lock:
        attempts = [attempt for attempt in _attempts if attempt.job in jobs]
    for attempt in attempts:
        attempt.stop()


class _StoppedError(StudyError):
    """The cell was stopped from outside: nothing to try again."""


class _Attempt:
    """The commands of one cell: where they run, what they print, and how they are ended."""

    def __init__(self, job: CellJob, log: int) -> None:
        self.job = job
        self.clone = Path(job.scratch) / job.name / "clone"
        self._log = log
        self._stopped = threading.Event()
        self._running: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def run(self, *line: str, cwd: Path | None = None) -> None:
        """Run a command in the clone; its output goes to the log."""
        status = self._run(line, cwd or self.clone)
        if status != 0:
            problem = f"'{' '.join(line[:3])}' ended with status {status}"
            raise StudyError(f"cell {self.job.name}", problem, self._told())

    def _run(self, line: Sequence[str], cwd: Path) -> int:
        os.write(self._log, f"$ {' '.join(line)}\n".encode())
        with self._lock:
            self.pause(0.0)
            # The open pipe tells the guard that this process lives.
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, *line],
                cwd=cwd,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
            self._running = process
        try:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        finally:
            with self._lock:
                self._running = None
                _kill_group(process)
        self.pause(0.0)
        return process.returncode

    def stop(self) -> None:
        """Kill what runs, and refuse to run more."""
        with self._lock:
            self._stopped.set()
            if self._running is not None:
                os.killpg(self._running.pid, signal.SIGKILL)

    def pause(self, seconds: float) -> None:
        """Wait, and raise `_StoppedError` if the cell is stopped."""
        if self._stopped.wait(seconds):
            raise _StoppedError(f"cell {self.job.name}", "was stopped")

    def _told(self) -> str:
        """Return where the log is and what it said last that looks like a reason."""
        lines = self.job.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        reasons = [text for text in lines if text.lower().startswith(("error:", "fatal:"))]
        return f"see {self.job.log_path} on {os.uname().nodename}" + (f": {reasons[-1]}" if reasons else "")


_registry_lock = threading.Lock()
_attempts: list[_Attempt] = []


@contextmanager
def _only_attempt(job: CellJob) -> Generator[_Attempt]:
    """Open the log, once no process of an earlier attempt writes to it.

    The lock lies on the open log, which every process of the cell inherits as its output.
    """
    log = os.open(job.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    attempt = _Attempt(job, log)
    with _registry_lock:
        _attempts.append(attempt)
    try:
        while not _took_lock(log):
            attempt.pause(LOCK_PAUSE_S)
        node = os.uname().nodename
        os.write(log, f"cell {job.name}: attempt in process {os.getpid()} on {node}\n".encode())
        yield attempt
    finally:
        with _registry_lock:
            _attempts.remove(attempt)
        os.close(log)


def _took_lock(log: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _environment() -> dict[str, str]:
    """Return the environment of a user who has activated this interpreter's own."""
    kept = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    here = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    package = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    return {
        **kept,
        "PATH": os.pathsep.join(here),
        # For the guard, which may run where the package is not installed.
        "PYTHONPATH": os.pathsep.join(filter(None, package)),
        "GIT_TERMINAL_PROMPT": "0",
    }


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill all of a command's processes, those that outlive it too."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _retire(folder: Path) -> None:
    """Remove the clone; its checkpoints stay, for the next attempt."""
    clone = folder / "clone"
    if (clone / CHECKPOINTS).is_dir():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        os.replace(clone / CHECKPOINTS, folder / "checkpoints")
    if clone.exists():
        shutil.rmtree(clone)


def _clone(attempt: _Attempt, folder: Path) -> None:
    """Clone the commit and configure DVC; what an attempt that was killed left goes first."""
    _retire(folder)
    folder.mkdir(exist_ok=True)
    job, clone = attempt.job, attempt.clone
    attempt.run("git", "clone", "--quiet", "--no-checkout", job.git_url, str(clone), cwd=folder)
    attempt.run("git", "checkout", "--quiet", "--detach", job.revision)
    settings = list(job.remote_config)
    if job.cache is not None:
        settings.append(("cache.dir", job.cache))
    for key, value in settings:
        attempt.run("dvc", "config", "--quiet", "--local", key, value)
    kept = folder / "checkpoints"
    if kept.is_dir():
        (clone / CHECKPOINTS).parent.mkdir(parents=True, exist_ok=True)
        os.replace(kept, clone / CHECKPOINTS)


def _run_experiment(attempt: _Attempt) -> None:
    job = attempt.job
    overrides = [part for override in job.overrides for part in ("--set-param", override)]
    # Without the two options DVC makes the datasets again, and says nothing.
    attempt.run("dvc", "exp", "run", "--pull", "--allow-missing", "--name", job.name, *overrides, TARGET)


def _push(attempt: _Attempt) -> None:
    """Push the data, then the experiment; other cells push at the same time."""
    _repeat(attempt, lambda: attempt.run("dvc", "push"))
    _repeat(attempt, lambda: _push_reference(attempt))
    _is_pushed(attempt)


def _push_reference(attempt: _Attempt) -> None:
    job = attempt.job
    attempt.run("dvc", "exp", "push", "--no-cache", "origin", job.name)
    # DVC's status is 0 even if git has refused the reference.
    if _pushed_params(attempt) is None:
        raise StudyError(f"cell {job.name}", "'dvc exp push' has pushed nothing", f"see {job.log_path}")


def _repeat(attempt: _Attempt, action: Callable[[], None]) -> None:
    """Call ``action`` until it succeeds, with pauses that differ from cell to cell."""
    draw = random.Random(attempt.job.name)
    for number in range(1, attempt.job.attempts + 1):
        try:
            return action()
        except _StoppedError:
            raise
        except StudyError:
            if number >= attempt.job.attempts:
                raise
        attempt.pause(FIRST_PAUSE_S * 2 ** (number - 1) * draw.uniform(0.5, 1.5))


def _is_pushed(attempt: _Attempt) -> bool:
    """Tell whether the experiment is in the git repository; refuse other parameters than the job's."""
    job = attempt.job
    pushed = _pushed_params(attempt)
    if pushed is None:
        return False
    expected = _expected_params(attempt)
    other = [key for key in {**pushed, **expected} if pushed.get(key) != expected.get(key)]
    if other:
        hint = f"choose another name, or remove it: dvc exp remove --git-remote {job.git_url} {job.name}"
        raise StudyError(
            f"experiment {job.name}", f"was pushed before with another {' and '.join(other)}", hint
        )
    return True


def _pushed_params(attempt: _Attempt) -> dict[str, Any] | None:
    """Return the parameters of the experiment in the git repository, or None if it is not there."""
    # A pattern, unlike a name, may match nothing.
    attempt.run("git", "fetch", "--quiet", "--no-tags", "origin", f"+{attempt.job.reference}*:{FETCHED}*")
    known = ["git", "for-each-ref", "--format=%(refname)", FETCHED]
    if not subprocess.check_output(known, cwd=attempt.clone, env=_environment()):
        return None
    return yaml.safe_load(_params_text(attempt, FETCHED))


def _expected_params(attempt: _Attempt) -> dict[str, Any]:
    """Return the parameters that DVC makes of the commit's and the overrides."""
    from dvc.utils.hydra import apply_overrides

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "params.yaml"
        file.write_bytes(_params_text(attempt, attempt.job.revision))
        apply_overrides(file, list(attempt.job.overrides))
        return yaml.safe_load(file.read_bytes())


def _params_text(attempt: _Attempt, revision: str) -> bytes:
    line = ["git", "show", f"{revision}:params.yaml"]
    return subprocess.check_output(line, cwd=attempt.clone, env=_environment())


def _guard(line: Sequence[str]) -> int:
    """Run a command; when standard input ends, kill this process group, command included.

    Standard input is a pipe from the process that waits for the command, so it ends with
    that process, however that comes about.
    """
    threading.Thread(target=_end_with_input, daemon=True).start()
    return subprocess.run(line, stdin=subprocess.DEVNULL, check=False).returncode


def _end_with_input() -> None:
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(_guard(sys.argv[1:]))
