"""Curves: the right lines in the right panels, the limit among them, the same bytes each time."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from matplotlib.figure import Figure

from fly64_dose_overlap.report import figures
from fly64_dose_overlap.report.figures import Picture
from fly64_dose_overlap.report.metrics import FRC50, PHASE_PSNR
from fly64_dose_overlap.report.study import make_study
from report_runs import BASELINE, COMMIT, DOSES, METHODS, VIEWS, full_study, new_run


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the figures that are saved."""
    found: list[Any] = []
    original = Figure.savefig

    def keep(self: Figure, *args: Any, **kwargs: Any) -> None:
        found.append(self)
        original(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return found


def _svg(picture: Picture) -> str:
    kind, _, content = picture.source.partition(";base64,")
    assert kind == "data:image/svg+xml"
    return base64.b64decode(content).decode()


def _line(axis: Any, label: str) -> tuple[list[float], list[float]]:
    """Return x and y of the line that the legend calls by a name."""
    handles, labels = axis.get_legend_handles_labels()
    handle = dict(zip(labels, handles, strict=True))[label]
    line = handle if hasattr(handle, "get_xdata") else handle.lines[0]
    return list(line.get_xdata()), list(line.get_ydata())


def test_dose_response_has_a_panel_per_view_with_the_limit(drawn: list[Any]) -> None:
    picture = figures.dose_response(full_study(), PHASE_PSNR)
    axes = drawn[0].axes
    assert [axis.get_title() for axis in axes] == VIEWS
    assert all(axis.get_xscale() == "log" for axis in axes)
    for axis in axes:
        assert _line(axis, "network") == (DOSES, [24.0] * 3)
        assert _line(axis, "limit") == (DOSES, [28.0] * 3)
    assert "limit" in picture.caption


def test_score_without_a_limit_has_no_line_of_it(drawn: list[Any]) -> None:
    figures.dose_response(full_study(), FRC50)
    assert set(drawn[0].axes[0].get_legend_handles_labels()[1]) == set(METHODS)


def test_overlap_response_follows_the_measured_overlap(drawn: list[Any]) -> None:
    figures.overlap_response(full_study((1000, "dense")), PHASE_PSNR)
    x, y = _line(drawn[0].axes[0], "rPIE")
    assert x == pytest.approx([0.1, 0.3])
    assert y == [21.0, 21.0]
    assert len(_line(drawn[0].axes[1], "rPIE")[0]) == 3


def test_fluence_response_takes_the_best_iterative_method(drawn: list[Any]) -> None:
    figures.fluence_response(full_study(), PHASE_PSNR)
    assert _line(drawn[0].axes[0], "best iterative, sparse") == ([40.0] * 3, [23.0] * 3)


def test_repeats_have_error_bars(drawn: list[Any]) -> None:
    better = {**METHODS, "network": ("learned", 26.0, 0.04)}
    runs = [new_run(1000, "baseline"), new_run(1000, "baseline", seed=43, methods=better)]
    figures.dose_response(make_study(COMMIT, "", runs, baseline=BASELINE), PHASE_PSNR)
    bars = {container.get_label(): container.has_yerr for container in drawn[0].axes[0].containers}
    assert bars == {"network": True, **dict.fromkeys(("flat object", "LSQML", "rPIE"), False)}


def test_frc_panels_have_thresholds_and_the_limits_expectation(drawn: list[Any]) -> None:
    figures.frc_curves(full_study((10000, "sparse")))
    axes = drawn[0].axes
    assert [axis.get_title() for axis in axes[:3]] == ["1,000, baseline", "1,000, dense", "1,000, sparse"]
    assert _line(axes[0], "flat object")[1] == [0.9, 0.7, 0.4, 0.1]
    assert _line(axes[0], "limit, expected")[1] == [1.0] * 4
    assert set(_line(axes[0], "threshold 0.5")[1]) == {0.5}
    assert [text.get_text() for text in axes[5].texts] == ["missing"]


def test_training_curves_have_a_line_per_run(drawn: list[Any]) -> None:
    runs = [new_run(1000, "baseline"), new_run(1000, "baseline", seed=43), new_run(1000, "dense")]
    figures.training_curves(make_study(COMMIT, "", runs, baseline=BASELINE))
    assert [axis.get_title() for axis in drawn[0].axes] == ["val/loss", "val/psnr"]
    assert len(drawn[0].axes[0].lines) == 3


def test_study_without_curves_has_no_such_figure() -> None:
    run = new_run(1000, "dense")
    run.frc.clear()
    run.curves.clear()
    run.evaluation["limit"] = None
    study = make_study(COMMIT, "", [run], baseline=BASELINE)
    assert figures.frc_curves(study) is None
    assert figures.training_curves(study) is None
    assert figures.fluence_response(study, PHASE_PSNR) is None


def test_same_study_gives_the_same_bytes() -> None:
    first, second = (_svg(figures.dose_response(full_study(), PHASE_PSNR)) for _ in range(2))
    assert first == second
    assert "<dc:date>" not in first
