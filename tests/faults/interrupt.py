"""Ctrl-C: how soon a command ends, what it says, and that it goes on when it is repeated."""

from __future__ import annotations

import random
import signal
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from faults.command import Ended, Lost, Running, Tally
from faults.outcome import Outcome
from faults.victim import Stage, kind_of, remove_outputs, require_none_partial, require_same, stages, victim
from fly64_dose_overlap.progress import say
from matrix_study import experiments, job_logs, processes
from study_copy import matrix_line

SEED = 20262
END_LIMIT_S = 5.0
SECOND_LIMIT_S = 1.0
SECOND_AFTER_S = 0.3
EARLIEST_PART = 0.2
"""Of the duration of a stage, before which Python has not read its code."""
INTERRUPTED = (130, -signal.SIGINT)
"""The same to a shell; the latter while Python still imports."""
TIMES = 2
QUICK_STAGES = ("expose",)
CELL = ("--view", "dense", "-S", "seed=44")


@dataclass(frozen=True)
class EndedAfter:
    """How a command ended, and how many seconds after the last signal."""

    command: Ended
    seconds: float


def run(*, quick: bool) -> Generator[Outcome]:
    """Interrupt every stage, `dvc repro` and `dose-overlap matrix`, once and twice."""
    rng = random.Random(SEED)
    say(f"interrupt: seed {SEED}")
    chosen = [stage for stage in stages() if not quick or kind_of(stage) in QUICK_STAGES]
    times = 1 if quick else TIMES
    yield interrupted_stages(chosen, times, rng)
    yield interrupted_stages(chosen, 1, rng, twice=True)
    if not quick:
        yield interrupted_repro(rng, times)
        yield interrupted_matrix()


def interrupted_stages(
    chosen: Sequence[Stage], times: int, rng: random.Random, *, twice: bool = False
) -> Outcome:
    """Interrupt stages at random moments; repeated they give the same files."""
    ends = _Ends("two Ctrl-C, a stage" if twice else "Ctrl-C, a stage")
    for stage in chosen:
        with victim() as study:
            duration_s = Tally("").succeed(stage.line, study).seconds
            for number in range(times):
                remove_outputs(study, stage.outputs)
                part = EARLIEST_PART + (1 - EARLIEST_PART) * (number + rng.random()) / times
                running = Running(stage.line, study)
                if not running.runs_until(part * duration_s):
                    continue
                with ends.trial(f"{stage.name} after {part * duration_s:.1f} s"):
                    ended = ends.interrupt(running, twice=twice)
                    require_none_partial(study, stage.outputs)
                    if ended.command.returncode == 0:  # it came when all was written
                        require_same(study, stage.outputs)
                    elif not twice:
                        require_told(ended.command)
                    Tally("").succeed(stage.line, study)
                    require_same(study, stage.outputs)
    return ends.outcome()


def require_told(ended: Ended) -> None:
    """Require the status of an interrupt and a message that says how to go on, and no traceback."""
    if ended.returncode not in INTERRUPTED:
        raise Lost(f"status {ended.returncode}, expected 130: {ended.last_line}")
    if "Traceback" in ended.printed or "interrupted: " not in ended.printed:
        raise Lost(f"it does not say that it was interrupted: {ended.last_line}")


def interrupted_repro(rng: random.Random, times: int) -> Outcome:
    """Interrupt `dvc repro` while a stage runs."""
    ends = _Ends("Ctrl-C, dvc repro")
    for stage in rng.sample(stages()[2:], times):
        line = ["dvc", "repro", "--force", "--single-item", stage.name]
        began = f"Running stage '{stage.name}'"
        moment_s = rng.uniform(0.5, 3.0)
        with victim() as study, ends.trial(f"{stage.name} after {moment_s:.1f} s"):
            running = Running(line, study)
            running.runs_when(lambda running=running, began=began: began in running.printed)
            if not running.runs_until(running.seconds + moment_s):
                raise Lost(f"it ended before it was interrupted: {running.printed[-200:]!r}")
            ended = ends.interrupt(running).command
            if ended.returncode == 0 or "Traceback" in ended.printed:
                raise Lost(f"status {ended.returncode}: {ended.last_line}")
            require_none_partial(study, stage.outputs)
            Tally("").succeed(line, study)
            require_same(study, stage.outputs)
    return ends.outcome()


def interrupted_matrix() -> Outcome:
    """Interrupt the matrix while it queues, while a job trains and while one is scored."""
    ends = _Ends("Ctrl-C, dose-overlap matrix")
    with victim() as study:
        line = matrix_line(*CELL)
        for word in ("queued ", "Running stage 'train@refined'", "Running stage 'evaluate'"):
            running = Running(line, study)
            found = running.runs_when(
                lambda running=running, word=word: word in running.printed + job_logs(study)
            )
            with ends.trial(f"at {word!r}"):
                if not found:
                    raise Lost(f"it ended before: {running.printed[-200:]!r}")
                require_told(ends.interrupt(running).command)
                left = [process.name() for process in processes(study)]
                if left:
                    raise Lost(f"it left processes behind: {', '.join(left)}")
        with ends.trial("repeated", 0):
            Tally("").succeed(line, study)
            if len(experiments(study)) != 1:
                raise Lost(f"experiments are {sorted(experiments(study))}, expected one")
    return ends.outcome()


class _Ends:
    """Count interrupts, with the time from the signal to the end."""

    def __init__(self, kind: str) -> None:
        self._tally = Tally(kind)
        self.trial = self._tally.trial
        self.outcome = self._tally.outcome

    def interrupt(self, running: Running, *, twice: bool = False) -> EndedAfter:
        """Send SIGINT, or two, and require that the command ends soon after the last.

        Raises
        ------
        Lost
            If it does not.
        """
        running.signal(signal.SIGINT)
        if twice and running.runs_until(running.seconds + SECOND_AFTER_S):
            running.signal(signal.SIGINT)
        started = running.seconds
        limit_s = SECOND_LIMIT_S if twice else END_LIMIT_S
        ended = running.end(limit_s)
        after = EndedAfter(ended, ended.seconds - started)
        self._tally.measure(replace(ended, seconds=after.seconds))
        return after
