"""Run the cells that have no result yet in DVC's queue, and wait for them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from fly64_dose_overlap.pipeline.matrix import experiments
from fly64_dose_overlap.pipeline.matrix.cells import Cell
from fly64_dose_overlap.pipeline.matrix.experiments import Job
from fly64_dose_overlap.pipeline.matrix.watch import (
    DONE,
    FAILED,
    KEPT,
    QUEUED,
    RUNNING,
    SETTLED,
    Display,
    Line,
)
from fly64_dose_overlap.progress import say

POLL_S = 1.0
COLLECTION_LIMIT_S = 60.0
"""A job that ended well has its experiment after this time, or never."""
START_LIMIT_S = 60.0
"""A worker that was started is seen after this time, or never."""
GONE_LIMIT_S = 10.0
"""Between two workers, none is seen for less than this."""
ATTEMPTS = 3
"""How often the workers may be lost without any cell having ended."""


def run_cells(cells: Sequence[Cell], *, commit: str, workers: int, flags: Sequence[str] = ()) -> list[Line]:
    """Queue the cells without an experiment, start workers and wait for all.

    Jobs that an earlier call left running are waited for; those that it left queued or
    lost, to a reboot say, are queued anew. Training goes on from its checkpoint.

    Parameters
    ----------
    cells : sequence of Cell
    commit : str
        The commit that the experiments start from.
    workers : int
        Jobs at a time.
    flags : sequence of str
        Of ``dvc exp run``.

    Returns
    -------
    list of Line
        One per cell, all of them settled.
    """
    matrix = _Matrix(cells, commit, flags)
    matrix.mark_kept()
    if all(line.state == KEPT for line in matrix.lines):
        return matrix.lines
    _share_threads(workers)
    try:
        with Display(matrix.lines).shown() as display:
            attempts = ATTEMPTS
            while attempts and (left := matrix.unsettled()):
                matrix.enqueue(workers)
                matrix.wait(display)
                experiments.stop_orphans()
                attempts = attempts - 1 if matrix.unsettled() == left else ATTEMPTS
            matrix.give_up()
            display.refresh()
    except KeyboardInterrupt:
        say("stopping workers and jobs; the same command goes on where they were")
        experiments.stop_all()
        raise
    return matrix.lines


class _Matrix:
    def __init__(self, cells: Sequence[Cell], commit: str, flags: Sequence[str]) -> None:
        self.cells = cells
        self.commit = commit
        self._flags = flags
        self.lines = [Line(cell.name) for cell in cells]
        self._known: set[str] = set()
        self._ended: dict[str, float] = {}

    def mark_kept(self) -> None:
        finished = experiments.finished(self.commit)
        for line in self.lines:
            if line.name in finished:
                line.state = KEPT

    def unsettled(self) -> int:
        return sum(line.state not in SETTLED for line in self.lines)

    def enqueue(self, workers: int) -> None:
        """Queue what neither has a result nor is on its way."""
        pending = {line.name for line in self.lines if line.state not in SETTLED}
        states = experiments.queued_states() if experiments.WORKERS.exists() else {}
        on_the_way: set[str] = set()
        if experiments.worker_pids():
            on_the_way = {name for name in pending if states.get(name) in ("Queued", "Running")}
        else:
            experiments.stop_orphans()
        self._known = experiments.job_folders()
        self._ended.clear()
        stale = sorted(name for name in pending - on_the_way if name in states)
        if stale:
            experiments.clear(stale)
        for cell in self.cells:
            if cell.name in pending - on_the_way:
                experiments.add(cell, *self._flags)
                say(f"queued {cell.name}")
        experiments.start_workers(workers)

    def wait(self, display: Display) -> None:
        """Return when every cell is settled, or no worker is left for those that are not."""
        seen = time.monotonic()
        patience = START_LIMIT_S
        while not self._look():
            display.refresh()
            if experiments.worker_pids():
                seen, patience = time.monotonic(), GONE_LIMIT_S
            elif time.monotonic() - seen > patience:
                return
            time.sleep(POLL_S)
        display.refresh()

    def _look(self) -> bool:
        finished = experiments.finished(self.commit)
        jobs = experiments.jobs_beside(self._known)
        for line in self.lines:
            if line.state in SETTLED:
                continue
            job = jobs.get(line.name)
            if job is not None:
                line.update(job)
            if line.name in finished:
                line.state = DONE
            elif job is not None:
                line.state = self._state_of(job)
        return not self.unsettled()

    def _state_of(self, job: Job) -> str:
        if job.returncode is None:
            return RUNNING if job.is_alive else QUEUED
        ended = self._ended.setdefault(job.name, time.monotonic())
        waited = time.monotonic() - ended > COLLECTION_LIMIT_S
        return FAILED if job.returncode or waited else RUNNING

    def give_up(self) -> None:
        for line in self.lines:
            if line.state not in SETTLED:
                line.state = FAILED


def _share_threads(workers: int) -> None:
    """Divide the cores among the jobs, for libraries that would each take all of them."""
    share = str(max(1, (os.cpu_count() or 1) // workers))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, share)
