"""What `dose-overlap` says of itself."""

from __future__ import annotations

import os
import subprocess
import sys

from tiny_study import ROOT

GROUPS = {"Run": ["repro", "matrix", "slurm", "dask"], "Look": ["report"], "Keep": ["verify"]}


def test_the_help_groups_commands_as_a_user_thinks() -> None:
    # In another process, because the formatting of the help draws random numbers.
    line = [sys.executable, "-m", "fly64_dose_overlap.pipeline.cli", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "100", "NO_COLOR": "1"}
    found = subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout
    words = [line.strip("│╭─╮ ").split() for line in found.splitlines() if line.strip("│╭─╮╰╯ ")]
    firsts = [word[0] for word in words]
    places = [firsts.index(name) for group, names in GROUPS.items() for name in (group, *names)]
    assert places == sorted(places)
