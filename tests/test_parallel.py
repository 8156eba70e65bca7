"""Processors at hand, and work in parts on a pool of threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from itertools import count, islice
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

from fly64_dose_overlap import parallel
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.parallel import available_threads, beside, can_fork, in_parts


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("150000 100000\n", 1),
        ("20000 100000\n", 1),
        ("max 100000\n", None),
        ("9900000 100000\n", None),
        (None, None),
    ],
)
def test_a_containers_quota_bounds_the_threads(
    content: str | None, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = tmp_path / "cpu.max"
    if content is not None:
        quota.write_text(content)
    monkeypatch.setattr(parallel, "CPU_QUOTA", quota)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert available_threads() == (expected or len(os.sched_getaffinity(0)))


def test_a_forked_process_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert in_parts(abs, [-1, -2]) == [1, 2]
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # ends it, should it wait for threads that are not there
        os._exit(in_parts(abs, [-1, -2]) != [1, 2])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def counted(error: Exception | None = None) -> Generator[tuple[int, int]]:
    """Yield who draws, and how often; then fail, if there is an error."""
    for number in range(3):
        yield os.getpid(), number
    if error is not None:
        raise error


def test_items_are_drawn_by_a_child_until_the_block_ends() -> None:
    with beside(counted(), "work") as items:
        child, number = next(items)
        assert (child != os.getpid(), number) == (True, 0)
        assert [number for _, number in islice(items, 2)] == [1, 2]
        with pytest.raises(StudyError, match=r"^work: a process of its work ended with status 0; was there"):
            next(items)
    with beside(((os.getpid(), n) for n in count()), "work") as items:  # which has no end
        child, _ = next(items)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_what_ends_the_child_is_told() -> None:
    for error in (StudyError("there", "is wrong", "mend it"), MissingFileError("a", "is not there")):
        with pytest.raises(type(error)) as caught, beside(counted(error), "work") as items:
            list(items)
        assert str(caught.value) == str(error)
    with beside(((os.getpid(), n) for n in count()), "work") as items:
        os.kill(next(items)[0], signal.SIGKILL)
        with pytest.raises(StudyError, match=r"^work: a process of its work ended with status -9; was there"):
            list(items)


def test_a_child_outlives_its_parent_by_no_more_than_an_item() -> None:
    code = """
        import itertools, os, time
        from fly64_dose_overlap.parallel import beside
        def slow():
            for _ in itertools.count():
                time.sleep(0.1)
                yield os.getpid()
        with beside(slow(), "work") as items:
            print(next(items), flush=True)
            os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], stdout=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL
    child = int(done.stdout)
    deadline = time.monotonic() + 30
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_process_with_one_core_or_that_must_have_no_children_forks_none(
    threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert can_fork() is (sys.platform == "linux" and threads == "2")
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {"daemon": True})
    assert not can_fork()
