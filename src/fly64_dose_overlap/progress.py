"""Progress of long work: a bar on a terminal, plain lines in a log, a small file for who watches a stage."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

LOG_INTERVAL_S = 10.0
BAR_DELAY_S = 0.5
STATE_INTERVAL_S = 1.0
STATE_FILE = Path(".dvc/tmp/progress.json")
"""Written by the stages of a pipeline, relative to the folder of dvc.yaml, where they run."""
STAGE_VARIABLE = "DVC_STAGE"
"""Set by DVC to the name of the stage that it runs; without it no file is written."""

_BEGAN = time.time()


class _Bar(tqdm):  # pyright: ignore[reportMissingTypeArgument]
    """A bar that no thread watches: such a thread prints errors of its own, and is lost in a fork."""

    monitor_interval = 0


@dataclass(frozen=True)
class State:
    """What a stage does now."""

    stage: str
    """As DVC names it, such as ``simulate@1000``."""
    label: str
    """What is being done, or the last message."""
    done: int
    total: int
    """Units of the work; 0 stands for a message."""
    unit: str
    seconds: float
    """How long the work took so far."""
    pid: int
    """The process that wrote this; once it has ended this is no news."""
    began: float
    """When that process began, seconds since 1970."""

    @property
    def seconds_left(self) -> float | None:
        """How long the rest of the work takes at the same rate; None while that is unknown."""
        return (self.total - self.done) * self.seconds / self.done if self.total and self.done else None


def read_state(root: Path) -> State | None:
    """Return the last state that a stage in ``root`` wrote, or None if there is none to be read."""
    try:
        return State(**json.loads((root / STATE_FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def track(
    items: Iterable[Item], *, total: int, label: str, unit: str = "frame", step: int = 1
) -> Iterator[Item]:
    """Yield ``items`` and report rate and time left on standard error, and in the file of the stage.

    Progress is counted in units, ``total`` in all, each called ``unit``; one item stands for
    ``step`` of them, but the last may hold fewer. ``label`` says what is being done.
    """
    quiet = not sys.stderr.isatty()
    start = said = recorded = time.monotonic()
    done = 0
    _record(label, 0, total, unit)
    with _Bar(
        total=total, desc=label, unit=unit, delay=BAR_DELAY_S, dynamic_ncols=True, disable=quiet
    ) as bar:
        for item in items:
            yield item
            now = time.monotonic()
            bar.update(min(step, total - done))
            done = min(done + step, total)
            if now - recorded >= STATE_INTERVAL_S:
                recorded = now
                _record(label, done, total, unit, now - start)
            if quiet and now - said >= LOG_INTERVAL_S:
                said = now
                rate = done / (now - start)
                _print(f"{label}: {done}/{total} {unit}s, {rate:.3g}/s, {(total - done) / rate:.0f} s left")
    if quiet:
        _print(f"{label}: {done} {unit}{'' if done == 1 else 's'} in {time.monotonic() - start:.1f} s")


def say(message: str) -> None:
    """Print one line of status on standard error at once, above any bar."""
    _record(message)
    _print(message)


def _print(message: str) -> None:
    tqdm.write(message, file=sys.stderr)
    sys.stderr.flush()


def _record(label: str, done: int = 0, total: int = 0, unit: str = "", seconds: float = 0.0) -> None:
    """Write the state of the stage; a disk that takes none stops no work."""
    stage = os.environ.get(STAGE_VARIABLE)
    if not stage:
        return
    state = State(stage, label, done, total, unit, seconds, os.getpid(), _BEGAN)
    with suppress(OSError):
        part = STATE_FILE.with_name(f".{STATE_FILE.name}.tmp.{state.pid}")
        part.write_text(json.dumps(asdict(state)))
        part.replace(STATE_FILE)
