"""Charts of scores by errors of the instrument."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from fly64_dose_overlap.report.robustness import robustness_charts
from fly64_dose_overlap.report.study import Study
from report_runs import new_run, study_of


def study(refine: bool = False, other: tuple[str, ...] = (), **calibration: Any) -> Study:
    """Return a study of one cell, whose methods were told errors."""
    run = new_run(1000, "dense")
    params = {**run.params, "calibration": calibration, "refine": {"probe": refine}}
    changes = [f"calibration.{key}: 0.0 → {value}" for key, value in calibration.items()]
    return study_of(replace(run, params=params), changes=(*other, *changes))


def axes(*studies: Study) -> list[str]:
    """Return the errors that panels are drawn by."""
    charts = robustness_charts(studies)
    found = " ".join(panel for chart in charts for panel in chart.panels)
    labels = ("defocus error", "astigmatism", "position error", "modes that are told", "light of frames")
    return [label for label in labels if re.search(label, found)]


def test_each_error_of_several_sizes_has_a_panel_with_the_run_without_any() -> None:
    assert axes(study(), study(defocus_error_um=300.0)) == ["defocus error"]
    assert axes(study(), study(astigmatism_um=300.0), study(flux_error=0.1)) == [
        "astigmatism",
        "light of frames",
    ]
    assert axes(study(), study(refine=True)) == []


def test_two_errors_at_once_are_no_point_of_either() -> None:
    assert axes(study(), study(defocus_error_um=300.0, position_error_px=1.0)) == []


def test_a_run_that_is_told_fewer_modes_is_not_one_without_errors() -> None:
    assert axes(study(modes=1), study(defocus_error_um=300.0)) == []
    assert axes(study(modes=1), study(modes=2), study()) == ["modes that are told"]


def test_runs_that_differ_in_something_else_share_no_panel() -> None:
    small = ("base.field_px: 480.0 → 240.0",)
    assert axes(study(), study(other=small, defocus_error_um=300.0)) == []
    assert axes(study(other=small), study(other=small, defocus_error_um=300.0)) == ["defocus error"]
