"""Commands under test: started as a terminal does, disturbed, measured, and counted."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO

from faults.outcome import Outcome
from fly64_dose_overlap.progress import say
from matrix_study import kill_all
from study_copy import StudyCopy

LIMIT_S = 1800.0
"""A command that takes longer hangs, on a busy machine too."""
POLL_S = 0.005
PIECE_BYTES = 65_536
UNREADABLE_LOCK = re.compile(r"Unable to read RWLock-file '(\.dvc/tmp/[\w/]*rwlock)'")
LOCKED_GIT = re.compile(r"the index is locked|\.git/\S*\.lock")
READ_LIMIT_S = 2.0
"""Workers of a queue may hold the output open for as long as they like."""


class Lost(Exception):
    """A fault was not survived; the message says what was found."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes
    ----------
    returncode : int
        Negative for a signal.
    seconds : float
        From its start to its end.
    mib : float
        Largest resident memory of one of its processes, in MiB.
    printed : str
        Standard output and standard error.
    """

    returncode: int
    seconds: float
    mib: float
    printed: str

    @property
    def last_line(self) -> str:
        """Return the last line that was printed, which is where an error stands."""
        return next((line for line in reversed(self.printed.splitlines()) if line.strip()), "nothing")

    @property
    def reason(self) -> str:
        """Return the last line with DVC's or our error, or the last one: DVC says more after its own."""
        lines = [line for line in self.printed.splitlines() if line.lower().startswith("error: ")]
        return lines[-1] if lines else self.last_line


def _prepare(prepare: Callable[[], None] | None) -> None:
    """Have signals do what they do in a terminal: a shell's background jobs ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if prepare:
        prepare()


class Running:
    """A command in a process group of its own, whose signals are those of a terminal.

    Parameters
    ----------
    line : sequence of str
    study : StudyCopy
        Where it runs.
    prepare : callable, optional
        Called in the new process before the command, to set limits.
    """

    def __init__(
        self, line: Sequence[str], study: StudyCopy, prepare: Callable[[], None] | None = None
    ) -> None:
        self._study = study
        self._output = bytearray()
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            line,
            cwd=study.root,
            env=study.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(_prepare, prepare),
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        self._status: tuple[int, resource.struct_rusage] | None = None

    def _read(self, stream: IO[bytes]) -> None:
        while piece := os.read(stream.fileno(), PIECE_BYTES):
            self._output += piece
        stream.close()

    @property
    def seconds(self) -> float:
        """Return the time since the start."""
        return time.monotonic() - self._started

    @property
    def printed(self) -> str:
        """Return what was printed so far."""
        return bytes(self._output).decode(errors="replace")

    def runs(self) -> bool:
        """Tell whether the command has not ended."""
        if self._status is None:
            pid, code, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(code)
                self._status = self._process.returncode, usage
        return self._status is None

    def runs_until(self, moment_s: float) -> bool:
        """Wait until so many seconds after the start; tell whether it still runs then."""
        while self.runs() and self.seconds < moment_s:
            time.sleep(POLL_S)
        return self.runs()

    def runs_when(self, ready: Callable[[], bool]) -> bool:
        """Wait until something is so; tell whether the command still runs then."""
        while self.runs() and not ready():
            if self.seconds > LIMIT_S:
                self.kill()
                raise Lost(f"no end after {LIMIT_S:.0f} s: {self.printed[-200:]!r}")
            time.sleep(POLL_S)
        return self.runs()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the group, as Ctrl-C does."""
        os.killpg(self._process.pid, number)

    def kill(self) -> Ended:
        """End the group and everything that works in the study at once, as a power failure does."""
        self.signal(signal.SIGKILL)
        kill_all(self._study)
        return self.end()

    def end(self, limit_s: float = LIMIT_S) -> Ended:
        """Wait for the end.

        Raises
        ------
        Lost
            If it does not come within ``limit_s``; the command is then killed.
        """
        started = time.monotonic()
        while self.runs():
            if time.monotonic() - started > limit_s:
                self.kill()
                raise Lost(f"no end within {limit_s:.0f} s, last: {self.printed[-200:]!r}")
            time.sleep(POLL_S)
        seconds = self.seconds
        self._reader.join(READ_LIMIT_S)
        assert self._status is not None
        returncode, usage = self._status
        return Ended(returncode, seconds, usage.ru_maxrss / 1024, self.printed)


def require_soon(ready: Callable[[], object], what: str) -> None:
    """Wait until something is so that other processes do.

    Raises
    ------
    Lost
        If it takes longer than `LIMIT_S`.
    """
    limit = time.monotonic() + LIMIT_S
    while not ready():
        if time.monotonic() > limit:
            raise Lost(f"no {what} within {LIMIT_S:.0f} s")
        time.sleep(20 * POLL_S)


def mend_lock(ended: Ended, study: StudyCopy) -> bool:
    """Remove a lock that a killed process left, if a command says so; tell whether it did.

    DVC writes its list of locks in place, so that a kill can leave it empty, and git's locks are files
    that a kill leaves. docs/reliability.md says to delete them.
    """
    named = UNREADABLE_LOCK.search(ended.printed)
    if not ended.returncode or not (named or LOCKED_GIT.search(ended.printed)):
        return False
    locks = [study.root / named[1]] if named else list((study.root / ".git").rglob("*.lock"))
    for lock in locks:
        say(f"{ended.reason}: deleting {lock}")
        lock.unlink()
    return bool(locks)


class Tally:
    """Count the trials of one kind, and keep the worst of what was measured."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._survived = 0
        self._lost: list[str] = []
        self._seconds = 0.0
        self._mib = 0.0

    def run(self, line: Sequence[str], study: StudyCopy, prepare: Callable[[], None] | None = None) -> Ended:
        """Run a command to its end, and measure it."""
        return self.measure(Running(line, study, prepare).end())

    def succeed(self, line: Sequence[str], study: StudyCopy) -> Ended:
        """Run a command that must succeed.

        Raises
        ------
        Lost
            If it does not.
        """
        ended = self.run(line, study)
        if mend_lock(ended, study):
            ended = self.run(line, study)
        if ended.returncode:
            raise Lost(f"{' '.join(line)}: status {ended.returncode}, {ended.reason}")
        return ended

    def measure(self, ended: Ended) -> Ended:
        """Take up time and memory of a command."""
        self._seconds = max(self._seconds, ended.seconds)
        self._mib = max(self._mib, ended.mib)
        return ended

    @contextmanager
    def trial(self, what: str, faults: int = 1) -> Generator[None]:
        """Count ``faults`` as survived if the block ends; if it raises `Lost`, one of them is lost."""
        try:
            yield
        except Lost as error:
            reason = " ".join(str(error).split())
            self._lost.append(f"{what}: {reason}")
            self._survived += max(0, faults - 1)
            say(f"LOST {self.kind}: {self._lost[-1]}")
        else:
            self._survived += faults

    def outcome(self) -> Outcome:
        """Return the row of the table."""
        tried = self._survived + len(self._lost)
        return Outcome(self.kind, tried, self._survived, self._seconds, self._mib, tuple(self._lost))
