"""One cell on a node: a clone of its own, the experiment, the push of its results.

What a cell needs of the node is git, this environment, a scratch folder, and a way to the
git repository and the DVC remote. A cell has a process of its own, which leads the group of
all that it starts; the group ends with the process that waits for the cell, even if that is
killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from fly64_dose_overlap.commands import activated, run_command
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.matrix.history import reference
from fly64_dose_overlap.pipeline.matrix.plan import TARGET
from fly64_dose_overlap.pipeline.processes import end_with_parent, kill_group
from fly64_dose_overlap.pipeline.repository import CHECKPOINTS
from fly64_dose_overlap.yaml_text import parse_yaml

PUSHES = 6
FIRST_PAUSE_S = 1.0
LOG_LINES = 20
FETCHED = "refs/fly64/pushed"


@dataclass(frozen=True)
class CellJob:
    """One cell, with all that a node must know to run it."""

    name: str
    """Of the experiment, such as ``1000-sparse``."""
    overrides: tuple[str, ...]
    """Parameters of the cell as ``key=value``, for ``dvc exp run --set-param``."""
    git_url: str
    """Absolute path or URL of the git repository to clone, and to push the experiment to."""
    revision: str
    """Full name of the commit to run; a branch or tag of ``git_url`` must contain it."""
    dvc_config: tuple[tuple[str, str], ...]
    """DVC's settings on the node, such as ``("core.remote", "storage")``; with ``cache.dir``
    nodes share a cache, without it every cell has one of its own."""
    scratch: str
    """Folder on the node for the clone, which is removed, and the log, which is kept."""
    subfolder: str = ""
    """Of the study in the git repository; empty if it is the whole of it."""

    @property
    def log_path(self) -> Path:
        """Log of the cell on the node; every attempt appends to it."""
        return Path(self.scratch) / f"{self.name}.log"

    @property
    def folder(self) -> Path:
        """Folder of the clone, and of the checkpoints between two attempts."""
        return Path(self.scratch) / self.name

    @property
    def study(self) -> Path:
        """The study in the clone."""
        return self.folder / "clone" / self.subfolder


_JOB = TypeAdapter(CellJob)
_running: dict[CellJob, subprocess.Popen[bytes]] = {}


def run_cell(job: CellJob) -> None:
    """Run a cell on this machine and push its experiment and its data.

    Running it again is safe at any point. What a killed attempt left is removed, except
    for the checkpoints, from which the training goes on; an experiment that was pushed is
    not run again. The data are pushed before the experiment, so that an experiment that
    can be seen can also be pulled.

    Raises
    ------
    StudyError
        If a command fails, the cell is killed, or an experiment of this name but with other
        parameters was pushed before.
    """
    if Path(job.name).name != job.name:
        raise StudyError(job.name, "is no name for a folder", "use letters, digits and dashes")
    try:
        os.makedirs(job.scratch, exist_ok=True)
    except OSError as error:
        raise StudyError(job.scratch, f"cannot be made on {os.uname().nodename} ({error.strerror})") from None
    package = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    own = {"PYTHONPATH": os.pathsep.join(filter(None, package)), "GIT_TERMINAL_PROMPT": "0"}
    with job.log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(os.getpid())],
            cwd=job.scratch,
            env=activated() | own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    _running[job] = process
    try:
        refusal, _ = process.communicate(_JOB.dump_json(job))
    finally:
        del _running[job]
        # Those too that outlive the cell.
        kill_group(process.pid)
        process.wait()
    if refusal:
        raise StudyError(*json.loads(refusal))
    if process.returncode:
        problem = f"its process ended with status {process.returncode}"
        raise StudyError(f"cell {job.name}", problem, _told(job))


def stop_cells(jobs: Iterable[CellJob]) -> None:
    """Kill those of the jobs that run in this process; their `run_cell` raises a StudyError."""
    for job in jobs:
        if job in _running:
            kill_group(_running[job].pid)


def main(parent: int) -> None:
    """Run the cell that standard input describes; a refusal goes to standard output as JSON."""
    end_with_parent(parent)
    job = _JOB.validate_json(sys.stdin.buffer.read())
    # On the open log, which every process of the cell inherits: an earlier attempt must have ended.
    fcntl.flock(sys.stderr, fcntl.LOCK_EX)
    print(f"cell {job.name}: attempt in process {os.getpid()} on {os.uname().nodename}", file=sys.stderr)
    try:
        _attempt(job)
    except StudyError as error:
        print(json.dumps([error.where, error.problem, error.hint]))
        sys.exit(1)


def _attempt(job: CellJob) -> None:
    try:
        _clone(job)
        if not _is_pushed(job):
            # Without the two options DVC makes the datasets again, and says nothing.
            settings = [part for override in job.overrides for part in ("--set-param", override)]
            _run(job, "dvc", "exp", "run", "--pull", "--allow-missing", "--name", job.name, *settings, TARGET)
            _push(job)
    except BaseException:
        _retire(job)
        # What is left is a checkpoint, for the next attempt.
        with suppress(OSError):
            job.folder.rmdir()
        raise
    shutil.rmtree(job.folder, ignore_errors=True)


def _run(job: CellJob, *line: str, cwd: Path | None = None) -> None:
    """Run a command in the clone; its output goes to the log."""
    print("$", *line, file=sys.stderr, flush=True)
    status = subprocess.call(line, cwd=cwd or job.study, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if status:
        problem = f"'{' '.join(line[:3])}' ended with status {status}"
        raise StudyError(f"cell {job.name}", problem, _told(job))


def _told(job: CellJob) -> str:
    """Return where the log is and what it said last that looks like a reason."""
    lines = job.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    reasons = [text for text in lines if text.lower().startswith(("error:", "fatal:"))]
    return f"see {job.log_path} on {os.uname().nodename}" + (f": {reasons[-1]}" if reasons else "")


def _clone(job: CellJob) -> None:
    """Clone the commit and configure DVC; what an attempt that was killed left goes first."""
    _retire(job)
    job.folder.mkdir(exist_ok=True)
    clone = job.folder / "clone"
    options = ("--quiet", "--origin=origin", "--no-checkout", job.git_url, str(clone))
    _run(job, "git", "clone", *options, cwd=job.folder)
    _run(job, "git", "checkout", "--quiet", "--detach", job.revision, cwd=clone)
    for key, value in job.dvc_config:
        _run(job, "dvc", "config", "--quiet", "--local", key, value)
    _move(job.folder / "checkpoints", job.study / CHECKPOINTS)


def _retire(job: CellJob) -> None:
    """Remove the clone; its checkpoints stay, for the next attempt."""
    _move(job.study / CHECKPOINTS, job.folder / "checkpoints")
    if (job.folder / "clone").exists():
        shutil.rmtree(job.folder / "clone")


def _move(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)


def _push(job: CellJob) -> None:
    """Push the data, then the experiment; other cells push at the same time, so several times."""
    draw = random.Random(job.name)
    for number in range(PUSHES):
        try:
            _run(job, "dvc", "push")
            _run(job, "dvc", "exp", "push", "--no-cache", "origin", job.name)
            # DVC's status is 0 even if git has refused the reference.
            if _is_pushed(job):
                return
            raise StudyError(f"cell {job.name}", "'dvc exp push' has pushed nothing", _told(job))
        except StudyError:
            if number + 1 == PUSHES:
                raise
        time.sleep(FIRST_PAUSE_S * 2**number * draw.uniform(0.5, 1.5))


def _is_pushed(job: CellJob) -> bool:
    """Tell whether the experiment is in the git repository; refuse other parameters than the job's."""
    from dvc.utils.hydra import apply_overrides

    # A pattern, unlike a name, may match nothing.
    pattern = f"+{reference(job.revision, job.name)}*:{FETCHED}*"
    _run(job, "git", "fetch", "--quiet", "--no-tags", "origin", pattern)
    if not run_command("git", "for-each-ref", FETCHED, root=job.study):
        return False
    pushed, committed = (
        run_command("git", "show", f"{revision}:./params.yaml", root=job.study)
        for revision in (FETCHED, job.revision)
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "params.yaml"
        file.write_text(committed, encoding="utf-8")
        apply_overrides(file, list(job.overrides))
        expected = file.read_text(encoding="utf-8")
    theirs, ours = (parse_yaml(text, where="params.yaml") for text in (pushed, expected))
    if other := [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]:
        hint = f"choose another name, or remove it: dvc exp remove --git-remote {job.git_url} {job.name}"
        problem = f"was pushed before with another {' and '.join(other)}"
        raise StudyError(f"experiment {job.name}", problem, hint)
    return True


if __name__ == "__main__":
    main(int(sys.argv[1]))
