"""How long results took to make."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.results.timings import cpu_seconds, read_timing, record_timing
from fly64_dose_overlap.timing import Stopwatch, Timing

DIGEST = "0" * 64
DAMAGED = [
    "",
    "[]",
    "{}",
    "[" * 100_000,
    '{"seconds": 1}',
    '{"seconds": "x", "cpu_seconds": 1}',
    '{"seconds": -1, "cpu_seconds": 1}',
    '{"seconds": NaN, "cpu_seconds": 1}',
    '{"seconds": 1, "cpu_seconds": 1, "more": 1}',
]


def test_round_trip(tmp_path: Path) -> None:
    assert read_timing(tmp_path, DIGEST) is None
    timing = Timing(seconds=12.5, cpu_seconds=11.25)
    path = record_timing(tmp_path, DIGEST, timing)
    assert path == tmp_path / f".dvc/tmp/timings/{DIGEST}.json"
    assert read_timing(tmp_path, DIGEST) == timing
    record_timing(tmp_path, DIGEST, Timing(1.0, 2.0))
    assert read_timing(tmp_path, DIGEST) == Timing(1.0, 2.0)
    assert read_timing(tmp_path, "1" * 64) is None


def test_all_times_on_the_processor_by_what_was_made(tmp_path: Path) -> None:
    assert cpu_seconds(tmp_path) == {}
    record_timing(tmp_path, DIGEST, Timing(12.5, 11.25))
    record_timing(tmp_path, "1" * 64, Timing(2, 1))
    assert cpu_seconds(tmp_path) == {DIGEST: 11.25, "1" * 64: 1}


def test_times_add_up_and_scale() -> None:
    assert Timing(1, 2) + Timing(3, 4) == Timing(4, 6)
    assert Timing(1, 2).scaled(0.5) == Timing(0.5, 1)


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_record_is_refused(tmp_path: Path, content: str) -> None:
    path = record_timing(tmp_path, DIGEST, Timing())
    path.write_text(content)
    with pytest.raises(
        StudyError, match=r"0\.json: is no(t valid JSON| record of a time) \(.*\); delete it$"
    ):
        read_timing(tmp_path, DIGEST)


def test_a_stopwatch_tells_waiting_from_working() -> None:
    stopwatch = Stopwatch()
    time.sleep(0.05)
    waited = stopwatch.read()
    assert waited.seconds >= 0.05 > waited.cpu_seconds >= 0
    end = time.process_time() + 0.02
    while time.process_time() < end:
        pass
    worked = stopwatch.read()
    assert worked.cpu_seconds - waited.cpu_seconds >= 0.02


def test_earlier_time_counts() -> None:
    stopwatch = Stopwatch()
    stopwatch.add(Timing(seconds=100, cpu_seconds=50))
    found = stopwatch.read()
    assert 100 <= found.seconds < 101
    assert 50 <= found.cpu_seconds < 51
