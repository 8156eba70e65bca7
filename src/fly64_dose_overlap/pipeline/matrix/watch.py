"""One line per job while the matrix runs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.live import Live
from rich.table import Table

from fly64_dose_overlap.pipeline.cells import curves_folder
from fly64_dose_overlap.pipeline.matrix.dvc_queue import Job
from fly64_dose_overlap.progress import State, read_state, say
from fly64_dose_overlap.yaml_text import at

DONE, KEPT, FAILED, RUNNING, QUEUED = "done", "done before", "failed", "running", "queued"
SETTLED = (DONE, KEPT, FAILED)
PLAIN_INTERVAL_S = 60.0
CURVES = str(curves_folder("*") / "metrics.json")
"""The last values of every training, as dvclive writes them."""


@dataclass
class Line:
    """What is known of one cell; what is not is empty."""

    name: str
    state: str = QUEUED
    """One of queued, running, done, done before, failed."""
    work: str = ""
    """What its job does now, in words."""
    seconds: float = 0.0
    """How long the job has run."""
    log: Path | None = None
    _started: float = field(default=0.0, repr=False)

    def update(self, job: Job) -> None:
        """Take up what the stage of a job that runs now has written, and how long the job has run."""
        if self.log != job.log:
            self.log, self._started = job.log, time.monotonic()
        self.seconds = time.monotonic() - self._started
        state = read_state(job.folder)
        self.work = _described(state, job.folder) if state and psutil.pid_exists(state.pid) else ""

    def describe(self) -> str:
        """Return what there is to say beside the state."""
        if self.state not in (RUNNING, DONE, FAILED) or not self.seconds:
            return ""
        work = f"{self.work}, " if self.work and self.state == RUNNING else ""
        return f"{work}{self.seconds:.0f} s"


def _described(state: State, folder: Path) -> str:
    parts = [state.stage]
    if state.total:
        parts.append(f"{state.label}: {state.done}/{state.total} {state.unit}s")
    if state.seconds_left is not None:
        parts.append(f"{state.seconds_left:.0f} s left")
    return ", ".join([*parts, *_last_values(folder, state)])


def _last_values(folder: Path, state: State) -> Iterator[str]:
    """Yield loss and PSNR of the training that runs; those of others are older than its process."""
    found = [(path.stat().st_mtime, path) for path in folder.glob(CURVES)]
    modified, path = max(found, default=(0.0, folder))
    if modified < state.began:
        return
    with suppress(OSError, ValueError):
        values = json.loads(path.read_bytes())
        if (loss := at(values, "train.loss")) is not None:
            yield f"loss {loss:.4f}"
        if (psnr := at(values, "val.psnr")) is not None:
            # Of the phase, on validation frames of the training half.
            yield f"PSNR {psnr:.2f} dB"


class Display:
    """Show lines: a live table on a terminal, changes and a pulse in a log."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        self._shown: dict[str, str] = {}
        self._start = self._pulse = time.monotonic()
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Generator[Display]:
        """Show the lines until the block ends."""
        if not sys.stderr.isatty():
            yield self
            return
        with Live(console=Console(stderr=True), refresh_per_second=2, transient=True) as self._live:
            yield self

    def refresh(self) -> None:
        """Show the lines as they are now."""
        if self._live is not None:
            self._live.update(_table(self._lines, self._total()))
            return
        now = time.monotonic()
        pulse = now - self._pulse >= PLAIN_INTERVAL_S
        for line in self._lines:
            if self._shown.get(line.name) != line.state or (pulse and line.state == RUNNING):
                self._shown[line.name] = line.state
                say(": ".join(filter(None, (line.name, line.state, line.describe()))))
        if pulse:
            self._pulse = now
            say(self._total())

    def _total(self) -> str:
        """Return the cells that are settled, the time, and once a job has ended what is left of it."""
        elapsed = time.monotonic() - self._start
        settled = sum(line.state in SETTLED for line in self._lines)
        ended = sum(line.state in (DONE, FAILED) for line in self._lines)
        left = len(self._lines) - settled
        estimate = f", about {elapsed / ended * left:.0f} s left" if ended else ""
        return f"total: {settled}/{len(self._lines)} cells, {elapsed:.0f} s{estimate}"


def _table(lines: Sequence[Line], total: str) -> Table:
    table = Table("cell", "state", "", box=None, pad_edge=False, caption=total, caption_justify="left")
    for line in lines:
        table.add_row(line.name, line.state, line.describe())
    return table
