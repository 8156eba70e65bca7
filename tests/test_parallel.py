"""How many processors there are to work on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fly64_dose_overlap import parallel
from fly64_dose_overlap.parallel import available_threads


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
