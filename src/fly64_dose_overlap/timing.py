"""How long work takes, on the clock and on the processor."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Time on the clock, and of all cores of the process."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __add__(self, other: Timing) -> Timing:
        """Return the time of both."""
        return Timing(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)

    def scaled(self, part: float) -> Timing:
        """Return the time of a part of the work."""
        return Timing(self.seconds * part, self.cpu_seconds * part)


class Stopwatch:
    """Measure from now on."""

    def __init__(self) -> None:
        self._seconds = time.monotonic()
        self._cpu_seconds = time.process_time()

    def read(self) -> Timing:
        """Return the time spent so far."""
        return Timing(time.monotonic() - self._seconds, time.process_time() - self._cpu_seconds)

    def add(self, before: Timing) -> None:
        """Count in what an earlier, interrupted process spent on the same work."""
        self._seconds -= before.seconds
        self._cpu_seconds -= before.cpu_seconds
