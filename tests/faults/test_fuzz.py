"""The short form of the fuzzer, and that it would notice what it looks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from faults import fuzz, fuzz_worker
from faults.fuzz_cases import CASES, HYPOTHESIS
from faults.fuzz_readers import TARGETS
from faults.mutations import MARK, Payload, npy, pack
from fly64_dose_overlap.errors import StudyError


def test_bad_input_is_refused_in_one_line_or_valid() -> None:
    outcomes = list(fuzz.run(quick=True))
    assert [line for outcome in outcomes for line in outcome.lost] == []
    assert [outcome.tried for outcome in outcomes] == [fuzz.QUICK_CASES] * len(CASES)
    assert all(outcome.survived == outcome.tried for outcome in outcomes)


def test_the_long_form_tries_more_than_ten_thousand() -> None:
    assert sum(CASES.values()) > 10_000
    assert {*TARGETS, HYPOTHESIS} == CASES.keys()


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (StudyError("a", "b"), "refused"),
        (MemoryError(), "refused"),
        (ValueError("a bug"), "lost"),
        (AssertionError(), "lost"),
    ],
)
def test_a_verdict_tells_a_refusal_from_a_bug(error: Exception, verdict: str) -> None:
    def read() -> None:
        raise error

    assert fuzz_worker.judge(read)[0] == verdict
    assert fuzz_worker.judge(lambda: None)[0] == "accepted"


def test_executed_code_is_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    monkeypatch.chdir(tmp_path)
    Path("bad.npz").write_bytes(pack([("a.npy", npy(np.array([Payload()], dtype=object)))]))
    fuzz_worker.try_case("x", 1, "", lambda: np.load("bad.npz", allow_pickle=True)["a"])
    assert '"message": "code was executed"' in capsys.readouterr().out
    assert not Path(MARK).exists()


WORKER = """
import os, signal, sys, time
from faults import fuzz_readers, fuzz_worker
def read():
    if fuzz_worker.number == 1:
        {deed}
def make(rng):
    fuzz_worker.number = getattr(fuzz_worker, "number", FIRST - 1) + 1
    return "made"
FIRST = __import__("json").loads(sys.argv[2])[0][1]
fuzz_worker.CASE_LIMIT_S = 1.0
fuzz_worker.TARGETS["time"] = fuzz_readers.Target(make, read)
fuzz_worker.prepare = lambda: None
fuzz_worker.main()
"""


@pytest.mark.parametrize(
    ("deed", "how"),
    [
        pytest.param("signal.raise_signal(signal.SIGSEGV)", "SIGSEGV", marks=pytest.mark.slow),
        pytest.param("while True: pass", "SIGPROF", marks=pytest.mark.slow),
        pytest.param("fuzz_worker.signal.alarm(1); time.sleep(60)", "SIGALRM", marks=pytest.mark.slow),
        pytest.param("os._exit(3)", "status 3", marks=pytest.mark.slow),
    ],
)
def test_a_crash_or_hang_is_known_by_its_case_and_the_next_ones_are_tried(
    deed: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(deed=deed))
    start = subprocess.Popen

    def started(line: list[str], **options: object) -> subprocess.Popen[str]:
        return start([sys.executable, str(script), *line[3:]], **options)  # pyright: ignore

    monkeypatch.setattr(subprocess, "Popen", started)
    counts = {"time": fuzz.Count()}
    fuzz.try_all([("time", 0, 3)], counts)
    assert (counts["time"].tried, counts["time"].accepted) == (3, 2)
    assert counts["time"].lost == [f"case 1 (made): ended by {how}"]


def test_what_is_left_after_a_crash() -> None:
    batch = [("a", 0, 3), ("b", 5, 2), ("c", 0, 1)]
    assert fuzz.remaining(batch, "b", 6) == [("b", 6, 1), ("c", 0, 1)]
    assert fuzz.remaining(batch, "b", 7) == [("c", 0, 1)]
    assert fuzz.remaining(batch, "c", 1) == []
