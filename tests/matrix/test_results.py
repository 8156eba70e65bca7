"""The table of the matrix."""

from __future__ import annotations

from typing import Any

import pytest

import factories
from fly64_dose_overlap.pipeline.cells import Cell
from fly64_dose_overlap.pipeline.matrix import results
from fly64_dose_overlap.pipeline.matrix.plan import Experiment
from fly64_dose_overlap.pipeline.matrix.results import print_table
from fly64_dose_overlap.pipeline.matrix.watch import FAILED, KEPT, Line
from report_runs import evaluation


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


@pytest.mark.parametrize(
    ("split", "expected"), [("test", "(dB) on the test half;"), ("all", "(dB) of all frames;")]
)
def test_the_title_says_of_which_frames_the_scores_are(
    split: str, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {**evaluation(), "ssim": 0.8, "nrmse": 0.05}
    found["conventions"]["split"] = split
    monkeypatch.setattr(results, "result_of", lambda *_: found)
    cell = Experiment("1000-dense", Cell(1000, "dense", 42, 1), factories.study_params(), ())
    print_table([cell], [Line(cell.name, KEPT)], "c" * 40)
    assert expected in capsys.readouterr().out
