"""Disk and memory that run out, by limits of the process and by a small file system."""

from __future__ import annotations

import os
import random
import re
import resource
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from faults.command import Ended, Lost, Running, Tally
from faults.outcome import Outcome
from faults.victim import (
    CACHE,
    Stage,
    finished,
    kind_of,
    remove_outputs,
    require_none_partial,
    require_same,
    require_whole_objects,
    stages,
    victim,
)
from fly64_dose_overlap.progress import say
from matrix_study import kill_all
from study_copy import StudyCopy

SEED = 20261
MIB = 2**20
FILE_SIZES = 1
"""Limits between nothing and the largest file of a stage, besides those two."""
MEMORY_MIB = (512, 1024, 1060, 1100, 1150, 1200, 1300, 1500)
"""Stages refuse the first, which has no room for the libraries; the others let most of them start."""
MEMORY_LIMIT_S = 300.0
QUICK_STAGES = ("base", "expose")
NAMES_MEMORY = re.compile("^(OpenBLAS error: Memory allocation|cannot allocate memory)")
"""Last line of the C library or of OpenBLAS where they end a process that has no memory."""
STEPS_MIB = (1, 2, 4, 7, 10, 14, 18, 24)
"""Room beside the repository itself, which grows until `dvc repro` comes through."""
PLENTY_MIB = 1024
WAITS_FOR_ROOM_S = 400.0
"""More than `dvc repro` takes where there is room."""


def run(*, quick: bool) -> Generator[Outcome]:
    """Let every stage run out of room for its files and of memory, and `dvc repro` of disk."""
    rng = random.Random(SEED)
    say(f"limits: seed {SEED}")
    chosen = [stage for stage in stages() if not quick or kind_of(stage) in QUICK_STAGES]
    yield short_files(chosen, 0 if quick else FILE_SIZES, rng)
    yield short_memory(chosen, MEMORY_MIB[:3] if quick else MEMORY_MIB)
    if not quick:
        yield full_disk()


def limited(which: int, size: int) -> Callable[[], None]:
    """Return what sets a limit in a new process."""
    return lambda: resource.setrlimit(which, (size, size))


def short_files(chosen: list[Stage], between: int, rng: random.Random) -> Outcome:
    """Limit the size of files (RLIMIT_FSIZE) to less than the stage's largest one."""
    tally = Tally("no room for a file (RLIMIT_FSIZE)")
    for stage in chosen:
        with victim() as study:
            largest = max(_sizes(study, stage))
            sizes = [0, *sorted(rng.randrange(1, largest) for _ in range(between)), largest - 1]
            for size in sizes:
                remove_outputs(study, stage.outputs)
                with tally.trial(f"{stage.name}, {size} of {largest} bytes"):
                    ended = tally.run(stage.line, study, limited(resource.RLIMIT_FSIZE, size))
                    require_none_partial(study, stage.outputs)
                    require_one_line(ended)
                    tally.succeed(stage.line, study)
                    require_same(study, stage.outputs)
    return tally.outcome()


def _sizes(study: StudyCopy, stage: Stage) -> list[int]:
    found = (study.root / name for name in stage.outputs)
    files = (file for path in found for file in ([path] if path.is_file() else path.rglob("*")))
    return [file.stat().st_size for file in files if file.is_file()]


def require_one_line(ended: Ended) -> None:
    """Require status 1 and one line that names the error, and no traceback."""
    lines = [line for line in ended.printed.splitlines() if line.startswith("error: ")]
    if "Traceback" in ended.printed:
        raise Lost(f"status {ended.returncode} and a traceback, {ended.last_line}")
    if ended.returncode != 1 or len(lines) != 1:
        raise Lost(f"status {ended.returncode}, {len(lines)} lines of error, {ended.last_line}")


def short_memory(chosen: list[Stage], limits_mib: tuple[int, ...]) -> Outcome:
    """Limit the address space (RLIMIT_AS) to what lets the stage start, and not end."""
    tally = Tally("no memory (RLIMIT_AS)")
    for stage in chosen:
        with victim() as study:
            for limit_mib in limits_mib:
                limit = limited(resource.RLIMIT_AS, limit_mib * MIB)
                if Tally("").run([*stage.line, "--help"], study, limit).returncode:
                    continue  # too little for Python itself, which says so in its own way
                remove_outputs(study, stage.outputs)
                running = Running(stage.line, study, limit)
                running.runs_until(MEMORY_LIMIT_S)
                if not running.runs() and tally.measure(running.end()).returncode == 0:
                    break
                with tally.trial(f"{stage.name}, {limit_mib} MiB"):
                    ended = running.end(0.0)
                    require_none_partial(study, stage.outputs)
                    # A plain kill says nothing, and a C library that ends the process its own line.
                    if ended.returncode > 0 and not NAMES_MEMORY.search(ended.last_line):
                        require_one_line(ended)
            with tally.trial(f"{stage.name}, without limit", 0):
                tally.succeed(stage.line, study)
                require_same(study, stage.outputs)
    return tally.outcome()


def full_disk() -> Outcome:
    """Run `dvc repro` on a file system that is too small, and make it larger until it comes through."""
    tally = Tally("disk full (tmpfs), dvc repro")
    line = ["dvc", "repro", "evaluate"]
    outputs = [path for stage in stages() for path in stage.outputs]
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, small_disk(Path(folder)) as resize:
        if resize is None:
            say("limits: no file system can be mounted here, `disk full` is not tried")
            return tally.outcome()
        resize(PLENTY_MIB)
        study = finished().clone_to(Path(folder), "--branch", "start")
        used_mib = _used_mib(Path(folder))
        for step_mib in STEPS_MIB:
            resize(used_mib + step_mib)
            running = Running(line, study)
            if running.runs_until(WAITS_FOR_ROOM_S):  # DVC's database of links tries for ever
                say(f"limits: dvc repro waits for room beside {step_mib} MiB")
                resize(PLENTY_MIB)
                with tally.trial(f"{step_mib} MiB, and room while it waits"):
                    ended = tally.measure(running.end())
                    if ended.returncode:
                        raise Lost(f"it does not go on: {ended.reason}")
                break
            ended = tally.measure(running.end())
            if ended.returncode == 0:
                break
            with tally.trial(f"{step_mib} MiB"):
                require_none_partial(study, outputs)
                require_whole_objects(study.root / CACHE)
                if "No space left on device" not in ended.printed and "disk is full" not in ended.printed:
                    raise Lost(f"the reason is not named: {ended.last_line}")
        resize(PLENTY_MIB)
        with tally.trial("with room", 0):
            tally.succeed(line, study)
            require_same(study, outputs)
        kill_all(study)
    return tally.outcome()


@contextmanager
def small_disk(folder: Path) -> Generator[Callable[[int], None] | None]:
    """Mount a file system, and yield what sets its size in MiB; None where that is not allowed."""
    mounted = os.geteuid() == 0 and _mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    if not mounted:
        yield None
        return
    try:
        yield lambda mib: _require(_mount("-o", f"remount,size={mib}m", str(folder)), f"{mib} MiB")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


def _require(done: bool, what: str) -> None:
    if not done:
        raise OSError(f"the file system cannot be resized to {what}")


def _used_mib(folder: Path) -> int:
    disk = os.statvfs(folder)
    return -(-(disk.f_blocks - disk.f_bfree) * disk.f_frsize // MIB)
