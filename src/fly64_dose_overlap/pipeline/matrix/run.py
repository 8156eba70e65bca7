"""Run the cells that have no result yet in DVC's queue, and wait for them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from fly64_dose_overlap.pipeline.matrix import dvc_queue
from fly64_dose_overlap.pipeline.matrix.dvc_queue import Job
from fly64_dose_overlap.pipeline.matrix.history import existing
from fly64_dose_overlap.pipeline.matrix.plan import Experiment
from fly64_dose_overlap.pipeline.matrix.watch import DONE, FAILED, KEPT, QUEUED, RUNNING, Display, Line
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
ONE_THREAD_EACH = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_in_queue(
    experiments: Sequence[Experiment], *, commit: str, workers: int, flags: Sequence[str]
) -> list[Line]:
    """Queue the cells without an experiment, start workers and wait for all.

    Jobs that an earlier call left running are waited for; those that it left queued or
    lost, to a reboot say, are queued anew. Training goes on from its checkpoint.

    ``commit`` is what the experiments start from, ``workers`` how many run at a time, and
    ``flags`` are those of ``dvc exp run``. The lines that are returned, one per cell, are settled.
    """
    done = existing(commit)
    lines = [Line(each.name, KEPT if each.name in done else QUEUED) for each in experiments]
    pending = {each.name: each for each in experiments if each.name not in done}
    if not pending:
        return lines
    # torch takes seconds to import, which --help need not wait for.
    from fly64_dose_overlap.parallel import processors

    share = str(max(1, processors() // workers))
    for name in ONE_THREAD_EACH:
        os.environ.setdefault(name, share)
    queue = _Queue(pending, {line.name: line for line in lines}, commit)
    try:
        with Display(lines).shown() as display:
            attempts = ATTEMPTS
            while attempts and (left := len(pending)):
                queue.fill(flags)
                dvc_queue.start_workers(workers)
                queue.wait(display)
                dvc_queue.stop_orphans()
                attempts = attempts - 1 if len(pending) == left else ATTEMPTS
            queue.give_up()
            display.refresh()
    except KeyboardInterrupt:
        say("stopping workers and jobs; the same command goes on where they were")
        dvc_queue.stop_all()
        raise
    return lines


class _Queue:
    """The cells that are not settled, and what is known of their jobs."""

    def __init__(self, pending: dict[str, Experiment], lines: dict[str, Line], commit: str) -> None:
        self.pending = pending
        self._lines = lines
        self._commit = commit
        self._known: set[str] = set()
        self._ended: dict[str, float] = {}

    def fill(self, flags: Sequence[str]) -> None:
        """Queue what neither has a result nor is on its way."""
        states = dvc_queue.queued_states() if dvc_queue.WORKERS.exists() else {}
        working = ("Queued", "Running") if dvc_queue.worker_pids() else ()
        if not working:
            dvc_queue.stop_orphans()
        on_the_way = {name for name in self.pending if states.get(name) in working}
        self._known = dvc_queue.job_folders()
        self._ended.clear()
        dvc_queue.clear(sorted(set(self.pending) - on_the_way), states)
        for name, experiment in self.pending.items():
            if name not in on_the_way:
                dvc_queue.add(experiment, flags)
                say(f"queued {name}")
        others = [name for name, state in states.items() if state == "Queued" and name not in self.pending]
        if others:
            say(f"other experiments are in DVC's queue and run first: {', '.join(others)}")

    def wait(self, display: Display) -> None:
        """Return when every cell is settled, or no worker is left for those that are not."""
        seen, patience = time.monotonic(), START_LIMIT_S
        while self._look():
            display.refresh()
            if dvc_queue.worker_pids():
                seen, patience = time.monotonic(), GONE_LIMIT_S
            elif time.monotonic() - seen > patience:
                return
            time.sleep(POLL_S)
        display.refresh()

    def _look(self) -> bool:
        """Take up what became of the cells; return whether some are still open."""
        done = existing(self._commit)
        jobs = dvc_queue.jobs_beside(self._known)
        for name in list(self.pending):
            line, job = self._lines[name], jobs.get(name)
            if job is not None:
                line.update(job)
                line.state = self._state_of(job)
            if name in done:
                line.state = DONE
            if line.state in (DONE, FAILED):
                del self.pending[name]
        return bool(self.pending)

    def _state_of(self, job: Job) -> str:
        if job.returncode is None:
            return RUNNING if job.is_alive else QUEUED
        ended = self._ended.setdefault(job.name, time.monotonic())
        waited = time.monotonic() - ended > COLLECTION_LIMIT_S
        return FAILED if job.returncode or waited else RUNNING

    def give_up(self) -> None:
        """Call failed what no worker ran; where no job began, a worker's own words say why."""
        for name in self.pending:
            line = self._lines[name]
            line.state, line.log = FAILED, line.log or dvc_queue.worker_log()
