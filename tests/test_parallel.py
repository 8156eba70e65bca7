"""Processors at hand, and work in parts on a pool of threads."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fly64_dose_overlap import parallel
from fly64_dose_overlap.parallel import available_threads, in_parts


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("150000 100000\n", 1),
        ("20000 100000\n", 1),
        ("max 100000\n", None),
        ("9900000 100000\n", None),
        (None, None),
    ],
)
def test_a_containers_quota_bounds_the_threads(
    content: str | None, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = tmp_path / "cpu.max"
    if content is not None:
        quota.write_text(content)
    monkeypatch.setattr(parallel, "CPU_QUOTA", quota)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert available_threads() == (expected or len(os.sched_getaffinity(0)))


def test_a_forked_process_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert in_parts(abs, [-1, -2]) == [1, 2]
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # ends it, should it wait for threads that are not there
        os._exit(in_parts(abs, [-1, -2]) != [1, 2])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
