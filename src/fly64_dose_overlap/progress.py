"""Progress of long work: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

LOG_INTERVAL_S = 10.0
BAR_DELAY_S = 0.5


def track(
    items: Iterable[Item], *, total: int, label: str, unit: str = "frame", step: int = 1
) -> Iterator[Item]:
    """Yield ``items`` and report rate and time left on standard error.

    Parameters
    ----------
    items : iterable
        The work; one item stands for ``step`` units.
    total : int
        Number of units in all (the last item may hold fewer than ``step``).
    label : str
        What is being done.
    unit : str
        Name of one unit.
    step : int
        Units per item.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, desc=label, unit=unit, delay=BAR_DELAY_S, dynamic_ncols=True) as bar:
            for item in items:
                yield item
                bar.update(min(step, total - bar.n))
        return
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done = min(done + step, total)
        now = time.monotonic()
        if now - last >= LOG_INTERVAL_S:
            last = now
            rate = done / (now - start)
            say(f"{label}: {done}/{total} {unit}s, {rate:.3g}/s, {(total - done) / rate:.0f} s left")
    elapsed = time.monotonic() - start
    say(f"{label}: {done} {unit}s in {elapsed:.1f} s")


def say(message: str) -> None:
    """Print one line of status on standard error at once, above any bar."""
    tqdm.write(message, file=sys.stderr)
    sys.stderr.flush()
