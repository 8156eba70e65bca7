"""Ctrl-C before a stage has read its own code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tiny_study import ROOT


@pytest.mark.parametrize(
    ("raised", "status", "shown"),
    [
        ("KeyboardInterrupt", -signal.SIGINT, "interrupted: nothing was begun"),
        ("ValueError('a bug')", 1, "Traceback"),
    ],
)
def test_an_interrupt_of_the_imports_is_one_line_and_a_bug_is_not(
    raised: str, status: int, shown: str
) -> None:
    code = f"import fly64_dose_overlap.pipeline.stages\nraise {raised}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == status
    assert ended.stderr.startswith(shown)
    assert (ended.stderr.count("\n") == 1) == (raised == "KeyboardInterrupt")
