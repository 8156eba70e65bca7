"""One line per job while the matrix runs."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from fly64_dose_overlap.pipeline.matrix.experiments import Job, stages_run
from fly64_dose_overlap.progress import say

DONE, KEPT, FAILED, RUNNING, QUEUED = "done", "done before", "failed", "running", "queued"
SETTLED = (DONE, KEPT, FAILED)
LOG_TAIL_BYTES = 20_000
PLAIN_INTERVAL_S = 60.0
EPOCH = re.compile(
    r"epoch (?P<epoch>\d+/\d+): train/loss (?P<loss>[\d.e+-]+)"
    r"(?:.*?val/psnr (?P<psnr>[\d.e+-]+))?.*?, (?P<left>\d+) s left"
)


@dataclass
class Line:
    """What is known of one cell.

    Attributes
    ----------
    name : str
    state : str
        One of queued, running, done, done before, failed.
    stage, epoch, loss, psnr : str
        From the log of the job; empty while unknown. ``psnr`` is that of the phase, dB,
        on validation frames of the training half.
    seconds : float
        How long the job has run.
    log : Path or None
    """

    name: str
    state: str = QUEUED
    stage: str = ""
    epoch: str = ""
    loss: str = ""
    psnr: str = ""
    seconds: float = 0.0
    log: Path | None = None
    _started: float | None = field(default=None, repr=False)
    _left: tuple[str, float] = field(default=("", 0.0), repr=False)

    def update(self, job: Job) -> None:
        """Take up what a job has printed and how long it has run."""
        now = time.monotonic()
        if self.log != job.log:
            self.log, self._started = job.log, now
        self.seconds = now - (self._started or now)
        text = _tail(job.log)
        stages = stages_run(job.log)
        self.stage = stages[-1] if stages else "data"
        reports = list(EPOCH.finditer(text))
        if reports:
            last = reports[-1]
            self.epoch, self.loss, self.psnr = last["epoch"], last["loss"], last["psnr"] or ""
            if self._left[0] != last["epoch"]:
                self._left = (last["epoch"], now + float(last["left"]))

    def time_left(self) -> str:
        """Return the seconds until training ends, once the first epoch has told."""
        if self.state != RUNNING or not self._left[0]:
            return ""
        return f"{max(0.0, self._left[1] - time.monotonic()):.0f} s"


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


class Display:
    """Show lines: a live table with a total bar on a terminal, changes and a pulse in a log."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        self._shown: dict[str, str] = {}
        self._start = self._pulse = time.monotonic()
        self._live: Live | None = None
        self._bar = Progress(
            TextColumn("total"), BarColumn(), MofNCompleteColumn(), TextColumn("cells{task.fields[times]}")
        )
        self._task = self._bar.add_task("total", total=len(lines), times="")

    @contextmanager
    def shown(self) -> Generator[Display]:
        """Show the lines until the block ends."""
        console = Console(stderr=True)
        if not sys.stderr.isatty():
            yield self
            return
        with Live(console=console, refresh_per_second=2, transient=True) as self._live:
            yield self

    def refresh(self) -> None:
        """Show the lines as they are now."""
        settled = sum(line.state in SETTLED for line in self._lines)
        if self._live is not None:
            self._bar.update(self._task, completed=settled, times=self._times())
            self._live.update(Group(_table(self._lines), self._bar))
            return
        for line in self._lines:
            if self._shown.get(line.name) != line.state:
                self._shown[line.name] = line.state
                say(_plain(line))
        now = time.monotonic()
        if now - self._pulse >= PLAIN_INTERVAL_S:
            self._pulse = now
            for line in self._lines:
                if line.state == RUNNING:
                    say(_plain(line))
            say(f"total: {settled}/{len(self._lines)} cells{self._times()}")

    def _times(self) -> str:
        """Return the time since the start and, once a job has ended, an estimate of the time left."""
        elapsed = time.monotonic() - self._start
        ended = sum(line.state in (DONE, FAILED) for line in self._lines)
        left = sum(line.state not in SETTLED for line in self._lines)
        estimate = f", about {elapsed / ended * left:.0f} s left" if ended else ""
        return f", {elapsed:.0f} s{estimate}"


def _plain(line: Line) -> str:
    parts = [
        line.stage,
        line.epoch and f"epoch {line.epoch}",
        line.loss and f"loss {line.loss}",
        line.psnr and f"PSNR {line.psnr} dB",
        line.time_left() and f"{line.time_left()} of training left",
        line.seconds and f"{line.seconds:.0f} s",
    ]
    shown = ", ".join(str(part) for part in parts if part) if line.state in (RUNNING, DONE, FAILED) else ""
    return f"{line.name}: {line.state}{': ' if shown else ''}{shown}"


def _table(lines: Sequence[Line]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("cell", "state", "stage", "epoch", "loss", "val. PSNR (dB)", "time", "training left"):
        table.add_column(title, justify="left" if title in ("cell", "state", "stage") else "right")
    for line in lines:
        elapsed = f"{line.seconds:.0f} s" if line.seconds else ""
        stage = line.stage if line.state == RUNNING else ""
        values = (line.epoch, line.loss, line.psnr, elapsed, line.time_left())
        table.add_row(line.name, line.state, stage, *values)
    return table
