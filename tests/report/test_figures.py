"""Curves: the right lines in the right panels, the limit among them, the same bytes each time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from fly64_dose_overlap.report import figures
from fly64_dose_overlap.report.figures import MOST_LINES, Chart
from report_runs import DOSES, METHODS, VIEWS, evaluation, full_study, new_run, small_study, study_of


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


def _line(axis: Any, label: str) -> tuple[list[float], list[float]]:
    """Return x and y of the line that a legend would call by a name."""
    handles, labels = axis.get_legend_handles_labels()
    handle = dict(zip(labels, handles, strict=True))[label]
    line = handle if hasattr(handle, "get_xdata") else handle.lines[0]
    return list(line.get_xdata()), list(line.get_ydata())


def _axes(drawn: list[Any]) -> list[Any]:
    return [figure.axes[0] for figure in drawn]


def test_dose_response_has_a_panel_per_view_with_the_limit(drawn: list[Any]) -> None:
    chart = figures.response_charts(full_study())[0]
    axes = _axes(drawn)[:3]
    assert [axis.get_title() for axis in axes] == VIEWS
    for axis in axes:
        assert axis.get_xscale() == "log"
        assert _line(axis, "network") == (DOSES, [24.0] * 3)
        assert _line(axis, "limit") == (DOSES, [28.0] * 3)
    assert "dashed the limit" in chart.note


def test_limit_is_drawn_where_nothing_was_run(drawn: list[Any]) -> None:
    bounds = {(dose, view): evaluation()["limit"] for dose in DOSES for view in VIEWS}
    figures.response_charts(study_of(new_run(1000, "dense"), limits=bounds))
    axes = _axes(drawn)
    assert _line(axes[0], "limit")[0] == DOSES, "baseline"
    assert _line(axes[0], "network")[0] == []
    assert _line(axes[1], "network")[0] == [1000], "dense"


def test_score_without_a_limit_has_no_line_of_it(drawn: list[Any]) -> None:
    figures.further_charts(small_study())
    resolution = next(axis for axis in _axes(drawn) if "FRC50" in axis.get_ylabel())
    assert _line(resolution, "limit") == ([], [])


def test_overlap_response_follows_the_measured_overlap(drawn: list[Any]) -> None:
    figures.response_charts(full_study((1000, "dense")))
    axes = _axes(drawn)[3:]
    x, y = _line(axes[0], "rPIE")
    assert x == pytest.approx([0.1, 0.3])
    assert y == [21.0, 21.0]
    assert len(_line(axes[1], "rPIE")[0]) == 3


def test_every_chart_has_the_winner(drawn: list[Any]) -> None:
    winner = {**METHODS, "refined": ("learned", 26.0, 0.03)}
    study = study_of(*(new_run(1000, view, methods=winner) for view in VIEWS[:2]))
    charts = [*figures.response_charts(study), *figures.further_charts(study)]
    number = next(line.number for line in figures.lines_of(study) if line.name == "refined")
    for chart in charts:
        if chart.title != "Training":
            assert all(f'class="line-{number}"' in panel for panel in chart.panels), chart.title


def test_at_most_six_lines_are_on_the_winner_and_the_limit_among_them() -> None:
    many = {**METHODS, **{f"m{number}": ("iterative", 10.0 + number, 0.1) for number in range(12)}}
    lines = figures.lines_of(study_of(new_run(1000, "dense", methods=many)))
    on = [line.name for line in lines if line.on]
    assert len(lines) == 17
    assert len(on) == MOST_LINES
    assert {"limit", "network", "LSQML"} <= {*on}


def test_a_method_has_its_colour_in_every_study() -> None:
    other = {**METHODS, "LSQML": ("iterative", 12.0, 0.2)}
    colours = [
        {line.name: line.colour for line in figures.lines_of(study_of(new_run(1000, "dense", methods=each)))}
        for each in (METHODS, other)
    ]
    assert colours[0] == colours[1]


def test_repeats_have_error_bars(drawn: list[Any]) -> None:
    better = {**METHODS, "network": ("learned", 26.0, 0.04)}
    figures.response_charts(
        study_of(new_run(1000, "baseline"), new_run(1000, "baseline", seed=43, methods=better))
    )
    bars = {container.get_label(): container.has_yerr for container in _axes(drawn)[0].containers}
    assert bars == {"limit": False, "network": True, **dict.fromkeys(("flat object", "LSQML", "rPIE"), False)}


def test_frc_panels_have_thresholds_and_the_limits_expectation(drawn: list[Any]) -> None:
    figures.frc_chart(full_study((10000, "sparse")))
    axes = _axes(drawn)
    assert [axis.get_title() for axis in axes[:3]] == ["1,000, baseline", "1,000, dense", "1,000, sparse"]
    assert len(axes) == 8
    assert _line(axes[0], "flat object")[1] == [0.9, 0.7, 0.4, 0.1]
    assert _line(axes[0], "limit")[1] == [1.0] * 4
    assert set(_line(axes[0], "threshold 0.5")[1]) == {0.5}


def test_training_curves_have_a_line_per_run(drawn: list[Any]) -> None:
    figures.training_charts(
        study_of(new_run(1000, "baseline"), new_run(1000, "baseline", seed=43), new_run(1000, "dense"))
    )
    axes = _axes(drawn)
    assert [axis.get_title() for axis in axes] == ["val/loss", "val/psnr"]
    assert len(axes[0].lines) == 3


def test_study_without_curves_has_no_such_figure() -> None:
    run = new_run(1000, "dense")
    run.frc.clear()
    run.curves.clear()
    titles = {chart.title for chart in figures.further_charts(study_of(run))}
    assert titles.isdisjoint({"Fourier ring correlation", "Training"})


def _ids(chart: Chart) -> list[str]:
    return [name for panel in chart.panels for name in re.findall(r' id="([^"]+)"', panel)]


def test_same_study_gives_the_same_bytes_and_no_name_twice() -> None:
    first, second = (figures.response_charts(small_study()) for _ in range(2))
    assert first == second
    names = [name for chart in first for name in _ids(chart)]
    assert len(names) == len({*names})
    assert "<dc:date>" not in first[0].panels[0]


def test_a_command_needs_no_backend_of_a_notebook() -> None:
    code = "import fly64_dose_overlap.pipeline.stages._cli, matplotlib; print(matplotlib.get_backend())"
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": source, "MPLBACKEND": "Qt4Agg"}
    line = [sys.executable, "-c", code]
    found = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == "agg\n"


def test_pictures_do_not_depend_on_how_matplotlib_is_set(tmp_path: Path) -> None:
    rc = tmp_path / "matplotlibrc"
    rc.write_text("text.usetex: True\nfont.size: 31\naxes.prop_cycle: cycler('color', ['r'])\n")
    settings = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "MATPLOTLIBRC": str(rc)}
    code = "from report_runs import *; from fly64_dose_overlap.report.figures import *; import sys; "
    code += "sys.stdout.write(dose_response_picture(full_study()))"
    tests = Path(__file__).parents[1]
    path = f"{tests}{os.pathsep}{tests.parent / 'src'}"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == figures.dose_response_picture(full_study())
