"""Work in fixed parts on as many threads as there are processors.

The division into parts never depends on the number of threads, and results come back in
the order of the parts, so that sums over them have the same last digits on every machine
of one kind.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

import torch

from fly64_dose_overlap.errors import StudyError

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of processor time of a container, and in how many of them."""
PARTS = 8
"""Parts that the frames of a scan are divided into: more would keep more processors busy."""

Part = TypeVar("Part")
Result = TypeVar("Result")


def available_threads() -> int:
    """Return how many threads to use: ``OMP_NUM_THREADS``, else the processors at hand."""
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(chosen)) if chosen.isdecimal() else processors()


def processors() -> int:
    """Return how many processors this process may use: those of its affinity, or its container's quota."""
    count = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # no such file; "max" stands for no quota
        quota, period = map(int, CPU_QUOTA.read_text().split())
        count = min(count, max(1, quota // period))
    return count


def frame_parts(frames: int) -> list[slice]:
    """Return `PARTS` consecutive slices of about equal length; fewer if there are fewer frames.

    Examples
    --------
    >>> frame_parts(3)
    [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None)]
    """
    count = max(1, min(PARTS, frames))
    ends = [frames * number // count for number in range(count + 1)]
    return [slice(first, stop) for first, stop in pairwise(ends)]


def in_parts(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Return ``work`` of every part, in order; torch's own threads rest meanwhile."""
    threads = min(len(parts), available_threads())
    if threads == 1:
        with one_torch_thread():
            return [work(part) for part in parts]
    return list(_pool(threads).map(work, parts))


def can_fork() -> bool:
    """Return whether `beside` would make work faster, and may be used."""
    alone = not multiprocessing.current_process().daemon  # such a process must have no children
    return sys.platform == "linux" and alone and available_threads() > 1


@contextmanager
def beside(items: Iterator[Result], label: str) -> Generator[Iterator[Result]]:
    """Let a child process of the block draw items, which must be small, and give them in order.

    For work that must not use threads. The child goes on for as long as the block does.

    Raises
    ------
    StudyError
        If the child ends before; ``label`` names the work.
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_draw, args=(items, ours, theirs), daemon=True)
    child.start()
    theirs.close()

    def received() -> Iterator[Result]:
        while True:
            try:
                item, error = ours.recv()
            except EOFError:
                child.join()
                problem = f"a process of its work ended with status {child.exitcode}"
                raise StudyError(label, problem, "was there enough memory?") from None
            if error is not None:
                raise error
            yield item

    try:
        yield received()
    finally:
        child.kill()
        child.join()
        ours.close()


def _draw(items: Iterator[Result], ours: Connection, theirs: Connection) -> None:
    """Send every item, or the error that ends them, until nobody listens any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which the parent answers
    ours.close()
    with suppress(BrokenPipeError):
        try:
            for item in items:
                theirs.send((item, None))
        except StudyError as error:
            theirs.send((None, error))


@contextmanager
def one_torch_thread() -> Generator[None]:
    """Let torch work on one thread: the last digits of its sums depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "part", initializer=torch.set_num_threads, initargs=(1,))


# A forked process has the pool without its threads, and would wait for them for ever.
os.register_at_fork(after_in_child=_pool.cache_clear)
