"""The matrix in a copy of the study: started, killed, and looked at in what DVC and git keep."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from study_copy import DOSES, VIEWS, StudyCopy, matrix_line

CELLS = [f"{dose}-{view}" for dose in DOSES for view in VIEWS]
DATA_STAGES = {"base", "reference", "expose", "overlap"}
JOBS = ".dvc/tmp/exps/run"
MODEL = "models/refined/model.safetensors"
LONGER = {"methods__refined__epochs": 3, "methods__refined__steps_per_epoch": 30}
"""Training that lasts long enough to be met while it runs."""
DEADLINE_S = 300.0
TWO_CELLS = ("--dose", "1000", "--view", "baseline", "--view", "sparse")

Lock = dict[str, Any]


def wait_until(ready: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not ready():
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_S:.0f} s"
        time.sleep(0.1)


def processes(study: StudyCopy) -> list[psutil.Process]:
    """Return the processes that work in the study or in DVC's copies of it."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            folder = Path(process.cwd())
            alive = process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            continue
        if alive and folder.is_relative_to(study.root):
            found.append(process)
    return found


def kill(victims: Sequence[psutil.Process]) -> None:
    for process in victims:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def kill_all(study: StudyCopy) -> None:
    """Leave no process of the study alive, as a reboot does."""

    def none_left() -> bool:
        left = processes(study)
        kill(left)
        return not left

    wait_until(none_left, "end of all processes")


@contextmanager
def started(study: StudyCopy, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """Run the matrix beside the test, in a process group of its own, as a terminal does."""
    with (study.root.parent / "matrix.log").open("a+") as log:
        process = subprocess.Popen(
            matrix_line(*arguments),
            cwd=study.root,
            env=study.environment(),
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def job_logs(study: StudyCopy) -> str:
    return "".join(path.read_text(errors="replace") for path in sorted(study.root.glob(f"{JOBS}/*/*.out")))


def executed(log: str) -> set[str]:
    return set(re.findall(r"^Running stage '(.+)':$", log, flags=re.MULTILINE))


def data_made(log: str) -> set[str]:
    return {stage for stage in executed(log) if stage.split("@")[0] in DATA_STAGES}


def wait_for_training(study: StudyCopy, process: subprocess.Popen[str], jobs: int = 1) -> None:
    """Wait until so many jobs train."""

    def trains() -> bool:
        assert process.poll() is None, "the matrix ended before a job trained"
        return job_logs(study).count("Running stage 'train@refined'") >= jobs

    wait_until(trains, "training")


def record(study: StudyCopy) -> dict[str, dict[str, Any]]:
    """Return the cells of the record by name."""
    content = json.loads((study.root / ".dvc/tmp/matrix.json").read_text(encoding="utf-8"))
    assert content["baseline"] == study.git("rev-parse", "HEAD").strip()
    return {cell["name"]: cell for cell in content["cells"]}


def experiments(study: StudyCopy) -> dict[str, str]:
    """Return the references of the experiments of this commit by name."""
    references = study.git("for-each-ref", "--format=%(refname)", "refs/exps/").splitlines()
    commit = study.git("rev-parse", "HEAD").strip()
    prefix = f"refs/exps/{commit[:2]}/{commit[2:]}/"
    return {name.removeprefix(prefix): name for name in references if name.startswith(prefix)}


def data_outputs(lock: Lock) -> dict[str, str]:
    """Return the checksums that a dvc.lock gives for files below data/."""
    outputs = (out for stage in lock.values() for out in stage.get("outs", []))
    return {out["path"]: out["md5"] for out in outputs if out["path"].startswith("data/")}


def cached(study: StudyCopy) -> set[str]:
    """Return the checksums of what the cache holds."""
    folder = study.root / ".dvc/cache/files/md5"
    return {path.parent.name + path.name for path in folder.glob("*/*")}


def states(study: StudyCopy) -> dict[str, str]:
    return {name: cell["state"] for name, cell in record(study).items()}
