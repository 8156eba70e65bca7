"""The table of the matrix."""

from __future__ import annotations

import pytest

import factories
from fly64_dose_overlap.pipeline.cells import Cell
from fly64_dose_overlap.pipeline.matrix.plan import Experiment
from fly64_dose_overlap.pipeline.matrix.results import print_table
from fly64_dose_overlap.pipeline.matrix.watch import FAILED, Line


def test_a_pipe_is_as_wide_as_the_table_where_colours_are_forced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    view = 5 * "long_name"
    cell = Experiment(f"1000-{view}", Cell(1000, view, 42, 1), factories.study_params(), ())
    print_table([cell], [Line(cell.name, FAILED)], "c" * 40)
    printed = capsys.readouterr().out
    assert cell.name in printed
    assert "…" not in printed
