"""Feed bad input to everything that reads: it is valid and accepted, or refused in one line.

A crash, a traceback, more than ten seconds, more than a gigabyte or code that was executed
is a loss. `python -m faults.fuzz` runs it by itself, from ``tests``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.fuzz_cases import CASES, Batch
from faults.outcome import Outcome, tell
from fly64_dose_overlap.progress import say

SEED = "5"
BATCH = 500
"""Cases per process; memory that one leaks is given back with it."""
QUICK_CASES = 12
MEMORY_LIMIT_MIB = 1024
"""Resident, with Python and torch."""
ROOT = Path(__file__).resolve().parents[2]

Event = dict[str, Any]


@dataclass
class Count:
    """What became of the cases of one reader."""

    tried: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    mib: float = 0.0
    lost: list[str] = field(default_factory=lambda: [])

    def outcome(self, name: str) -> Outcome:
        """Return the row of the table."""
        survived = self.accepted + self.refused
        return Outcome(f"bad input: {name}", self.tried, survived, self.seconds, self.mib, tuple(self.lost))


def run(*, quick: bool) -> Iterator[Outcome]:
    """Yield an outcome for each reader; the short form tries a few of each in one process."""
    say(f"fuzz: seed {SEED}")
    counts = {name: Count() for name in CASES}
    if quick:
        try_all([(name, 0, QUICK_CASES) for name in CASES], counts)
    for name, cases in CASES.items():
        if not quick:
            for first in range(0, cases, BATCH):
                try_all([(name, first, min(BATCH, cases - first))], counts)
        count = counts[name]
        say(f"fuzz {name}: {count.accepted} accepted, {count.refused} refused, {len(count.lost)} lost")
        for line in count.lost:
            say(f"lost: {line}")
        yield count.outcome(name)


def try_all(batch: Sequence[Batch], counts: dict[str, Count]) -> None:
    """Try the cases of some readers; after each that ends its process a new one goes on."""
    left = list(batch)
    with tempfile.TemporaryDirectory() as folder:
        while left:
            left = _try_until_a_crash(left, Path(folder), counts)


def _try_until_a_crash(batch: list[Batch], folder: Path, counts: dict[str, Count]) -> list[Batch]:
    """Run one process; return what it left undone."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    line = [sys.executable, "-m", "faults.fuzz_worker", SEED, json.dumps(batch)]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    with (folder / "complaints.txt").open("w+") as complaints:
        process = subprocess.Popen(
            line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=complaints, text=True
        )
        assert process.stdout is not None
        pending: Event = {}
        ended = False
        for event in map(json.loads, process.stdout):
            if "verdict" in event:
                _add(counts[event["reader"]], event, f"case {event['number']} ({pending['what']})")
                pending = {}
            elif "what" in event:
                pending = event
            ended = ended or "end" in event
        status = process.wait()
        if ended:
            return []
        complaints.seek(0)
        if not pending:
            raise RuntimeError(
                f"fuzz: a process ended with status {status} between two cases: {complaints.read()}"
            )
    name, number = pending["reader"], pending["number"]
    how = signal.Signals(-status).name if status < 0 else f"status {status}"
    counts[name].tried += 1
    counts[name].lost.append(f"case {number} ({pending['what']}): ended by {how}")
    return remaining(batch, name, number + 1)


def remaining(batch: Sequence[Batch], name: str, following: int) -> list[Batch]:
    """Return a batch without what comes before case ``following`` of a reader."""
    names = [each[0] for each in batch]
    _, first, count = batch[names.index(name)]
    rest = list(batch[names.index(name) + 1 :])
    return [(name, following, first + count - following), *rest] if following < first + count else rest


def _add(count: Count, event: Event, where: str) -> None:
    count.tried += 1
    count.seconds = max(count.seconds, event["seconds"])
    count.mib = max(count.mib, event["mib"])
    if event["mib"] > MEMORY_LIMIT_MIB:
        count.lost.append(f"{where}: {event['mib']:.0f} MiB")
    elif event["verdict"] == "accepted":
        count.accepted += 1
    elif event["verdict"] == "refused":
        count.refused += 1
    else:
        count.lost.append(f"{where}: {event['message']}")


if __name__ == "__main__":
    sys.exit(tell(run(quick="--quick" in sys.argv)))
