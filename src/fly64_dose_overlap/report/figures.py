"""Curves of a study as SVG. The same study gives the same bytes.

On the page every panel is a drawing of its own, so that they stand side by side on a wide
screen and below each other on a phone. All lines of a method carry its class, by which the
reader switches them on and off.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from fly64_dose_overlap.report.drawing import figure, svg_text
from fly64_dose_overlap.report.findings import by_interest, capital
from fly64_dose_overlap.report.study import BAYESIAN_LIMIT, ITERATIVE, LEARNED, LIMIT, LIMITS, Cell, Study
from fly64_dose_overlap.scores.catalogue import COMPLEX_NRMSE, FRC50, PHASE_PSNR, Score

MOST_LINES = 6
"""Lines that are shown until the reader switches others on."""

_PANEL_IN = (3.7, 2.9)
_MARGINS = {"left": 0.16, "right": 0.97, "bottom": 0.16, "top": 0.9}
_LEARNED_COLOURS = ("#c8102e", "#e67700", "#7b2d8e", "#d6539b")
_ITERATIVE_COLOURS = (
    "#1f5fa8", "#2a9d8f", "#5a7d1e", "#8c5a2b", "#3aa0d8", "#17405c",
    "#6b6bb5", "#9a8a00", "#4fae4f", "#b07aa1", "#5f9ea0",
)  # fmt: skip
_REFERENCE_COLOURS = ("#777777", "#a0a0a0", "#5a5a5a")
_LIMIT_LINES = {LIMIT: "--", BAYESIAN_LIMIT: ":"}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_AUTOMATIC_ID = re.compile(r' id="[A-Za-z0-9.]+_\d+"')
_LINE_ID = re.compile(r'<g id="line-(\d+)"')
_DECIMALS = re.compile(r"(\.\d\d)\d+")


@dataclass(frozen=True)
class Line:
    """How a method or a limit is drawn, and whether it is on from the beginning."""

    name: str
    number: int
    colour: str
    style: str
    width: float
    marker: str
    on: bool


@dataclass(frozen=True)
class Chart:
    """Panels that belong together, each the text of an SVG."""

    title: str
    note: str
    panels: tuple[str, ...]


@dataclass(frozen=True)
class _Panel:
    """Cells along an axis, in groups whose points are joined."""

    title: str
    groups: Sequence[Sequence[tuple[float, Cell]]]

    @property
    def points(self) -> Iterator[tuple[float, Cell]]:
        return (point for group in self.groups for point in group)


def lines_of(study: Study) -> list[Line]:
    """Return the lines of a study: limits, then methods, the winner of most cells first.

    At most `MOST_LINES` are on: the limits, and the methods of most interest.
    """
    on = [*study.limits, *by_interest(study)][:MOST_LINES]
    cycles = {LEARNED: cycle(_LEARNED_COLOURS), ITERATIVE: cycle(_ITERATIVE_COLOURS)}
    greys = cycle(_REFERENCE_COLOURS)
    # Never by rank, so that a method has its colour in every study.
    names = dict.fromkeys([*study.known, *sorted(study.methods)])
    colours = {name: next(cycles.get(study.methods[name], greys)) for name in names}
    lines: list[Line] = []
    for number, name in enumerate([*study.limits, *study.methods]):
        if name in LIMITS:
            look = ("#111111", _LIMIT_LINES[name], 1.8, "")
        else:
            width = 2.2 if study.methods[name] == LEARNED else 1.3
            look = (colours[name], "-", width, _MARKERS[number % len(_MARKERS)])
        lines.append(Line(name, number, *look, name in on))
    return lines


def response_charts(study: Study) -> list[Chart]:
    """Return what dose and overlap do to the phase PSNR."""
    return [_dose_response(study, PHASE_PSNR), _overlap_response(study, PHASE_PSNR)]


def further_charts(study: Study) -> list[Chart]:
    """Return the other scores, the fluence, Fourier ring correlations and training curves."""
    return [
        _dose_response(study, COMPLEX_NRMSE),
        _overlap_response(study, FRC50),
        _fluence_response(study, PHASE_PSNR),
        *([frc_chart(study)] if any(cell.first.frc for cell in study.done) else []),
        *training_charts(study),
    ]


def dose_response_picture(study: Study) -> str:
    """Return the dose response of the lines that are on as one SVG with a legend, for other documents."""
    panels = _by_view(study)
    lines = [line for line in lines_of(study) if line.on]
    with figure(9.0, 3.6, {"svg.fonttype": "path", "font.size": 10}) as drawn:
        axes = drawn.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axis, panel in zip(axes, panels, strict=True):
            axis.set(xscale="log", xlabel="photons per frame")
            _draw(axis, panel, panels, lines, PHASE_PSNR)
            axis.grid(visible=True, linewidth=0.3)
        axes[0].set_ylabel(PHASE_PSNR.label)
        handles, labels = axes[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        return svg_text(drawn)


def _by_view(study: Study) -> list[_Panel]:
    """Return a panel per view along the dose; cells without a result may still have a limit."""
    return [
        _Panel(view, [[(float(dose), study.cells[dose, view]) for dose in study.doses]])
        for view in study.views
    ]


def _dose_response(study: Study, score: Score) -> Chart:
    note = "A panel per overlap view."
    return _response(study, score, "dose", note, _by_view(study), "photons per frame", "log")


def _overlap_response(study: Study, score: Score) -> Chart:
    measured = {view: x for view in study.views if (x := study.overlap(view)) is not None}
    views = sorted(measured, key=lambda view: measured[view])
    panels = [
        _Panel(f"{dose:,} photons per frame", [[(measured[view], study.cells[dose, view]) for view in views]])
        for dose in study.doses
    ]
    note = f"A panel per dose; overlap is that of neighbouring frames, measured on {study.part} (metric 2)."
    return _response(study, score, "overlap", note, panels, "measured overlap", "linear")


def _fluence_response(study: Study, score: Score) -> Chart:
    """Draw a score against the photons per pixel, which dose and thinning of the scan share."""
    found = [(x, cell) for cell in study.done if (x := (cell.bounds or {}).get("photons_per_pixel"))]
    groups = [sorted((p for p in found if p[1].view == view), key=lambda p: p[0]) for view in study.views]
    panels = [_Panel("all views", groups)]
    return _response(study, score, "fluence", "A line per view.", panels, "photons per object pixel", "log")


def _response(
    study: Study, score: Score, what: str, note: str, panels: Sequence[_Panel], x_label: str, xscale: str
) -> Chart:
    """Draw a score against something, in the panels that have a cell with a result or a limit."""
    lines = lines_of(study)
    known = [panel for panel in panels if any(cell.bounds or cell.runs for _, cell in panel.points)]
    drawn: list[str] = []
    for panel in known:
        with drawn_panel(drawn, study.title, x_label, score.key, panel.title) as axis:
            axis.set(xlabel=x_label, ylabel=score.label, xscale=xscale)
            _draw(axis, panel, known, lines, score)
    signs = {LIMIT: "dashed", BAYESIAN_LIMIT: "dotted"}
    shown = " and ".join(f"{signs[name]} the {name}" for name in study.limits if score.limit)
    note = f"{note} {capital(score.direction)}." + (f" Black: {shown}." if shown else "")
    return Chart(f"{score.label} against {what}", note, tuple(drawn))


def _widened(values: Sequence[float], scale: str) -> tuple[float, float]:
    """Return the ends of an axis that holds some values."""
    low, high = min(values), max(values)
    if scale == "log":
        return low / 1.5, high * 1.5
    margin = 0.06 * (high - low) or 0.05
    return low - margin, high + margin


def _draw(axis: Any, panel: _Panel, panels: Sequence[_Panel], lines: Sequence[Line], score: Score) -> None:
    """Draw the lines of one of some panels that share their ranges."""
    x_range = _widened([x for each in panels for x, _ in each.points], axis.get_xscale())
    axis.set(title=panel.title, xlim=x_range)
    if score is COMPLEX_NRMSE:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    for line in lines:
        for number, group in enumerate(panel.groups):
            found = [(x, value) for x, cell in group if (value := cell.height(line.name, score))]
            spread = [value.spread or 0.0 for _, value in found]
            container = axis.errorbar(
                [x for x, _ in found],
                [value.mean for _, value in found],
                yerr=spread if any(spread) else None,
                label=line.name if not number else None,
                marker=_MARKERS[number] if line.marker and len(panel.groups) > 1 else line.marker,
                color=line.colour,
                linestyle=line.style,
                linewidth=line.width,
                markersize=3.5,
                capsize=2,
                zorder=3 if line.width > 2 else 2,
            )
            for artist in (container.lines[0], *container.lines[1], *container.lines[2]):
                artist.set_gid(f"line-{line.number}")
    if span := _range(panels, lines, score):
        axis.set_ylim(span)


def _range(panels: Sequence[_Panel], lines: Sequence[Line], score: Score) -> tuple[float, float] | None:
    """Return the range of y that all panels share: that of the methods that are on, and limits near it."""
    cells = [cell for panel in panels for _, cell in panel.points]
    found = [
        value.mean
        for line in lines
        if line.on and line.name not in LIMITS
        for cell in cells
        if (value := cell.height(line.name, score))
    ]
    if not found:
        return None
    if score is COMPLEX_NRMSE:
        return _widened(found, "log")
    limits = [x for cell in cells if (x := cell.limit(score)) is not None and x > min(found)]
    return _widened([*found, *limits], "linear")


def frc_chart(study: Study) -> Chart:
    """Draw the Fourier ring correlation of each method with the truth, a panel per cell."""
    lines, panels = lines_of(study), list[str]()
    for cell in study.done:
        frc = cell.first.frc
        x = frc.get("nyquist_fraction", [])
        with drawn_panel(panels, study.title, cell.title) as axis:
            for line in lines:
                key = LIMIT if line.name == LIMIT else cell.first.key(line.name)
                if key in frc:
                    style = {"color": line.colour, "linestyle": line.style, "linewidth": line.width}
                    axis.plot(x, frc[key], label=line.name, gid=f"line-{line.number}", **style)
            grey = {"color": "0.4", "linewidth": 0.9}
            axis.axhline(0.5, linestyle=(0, (6, 2)), label="threshold 0.5", **grey)
            axis.plot(x, frc.get("half_bit", x), linestyle="-.", label="threshold half-bit", **grey)
            axis.axhline(1 / 7, linestyle=":", label="threshold 1/7", **grey)
            axis.set(title=f"{cell.dose:,}, {cell.view}", xlim=(0, 1), ylim=(-0.1, 1.05))
            axis.set(xlabel="spatial frequency / Nyquist", ylabel="FRC")
    note = (
        "A panel per cell: each method with the truth, the limit as expected. Threshold 0.5 is the one "
        "against a noise-free truth; half-bit and 1/7 are those for two noisy halves."
    )
    return Chart("Fourier ring correlation", note, tuple(panels))


def training_charts(study: Study) -> list[Chart]:
    """Draw the training curves, a panel per quantity, a line per run; none if none was recorded."""
    runs = [run for cell in study.done for run in cell.runs]
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(study.doses)))
    colours = dict(zip(study.doses, shades, strict=True))
    strokes = dict(zip(study.views, cycle(("-", "--", ":", "-.")), strict=False))
    panels: list[str] = []
    for name in dict.fromkeys(name for run in runs for name in run.curves):
        with drawn_panel(panels, study.title, name) as axis:
            for run in runs:
                steps, values = np.reshape(run.curves.get(name, []), (-1, 2)).T
                axis.plot(steps, values, strokes[run.view], color=colours[run.dose], linewidth=1.0)
            axis.set(title=name, xlabel="epoch")
    shown = ", ".join(f"{stroke} {view}" for view, stroke in strokes.items())
    note = f"A line per run: darker at a lower dose; {shown}."
    return [Chart("Training", note, tuple(panels))] if panels else []


@contextmanager
def drawn_panel(panels: list[str], *names: str) -> Generator[Any]:
    """Yield the axis of a panel to be drawn, then add its SVG; its names give its parts ids of their own."""
    settings: dict[str, Any] = {
        # By hand: there are dozens of panels, and finding margins takes longer than drawing.
        "figure.constrained_layout.use": False,
        **{f"figure.subplot.{side}": part for side, part in _MARGINS.items()},
        "svg.fonttype": "none",
        "svg.hashsalt": "/".join(names),
        "font.size": 9,
        "axes.titlesize": 10,
    }
    with figure(*_PANEL_IN, settings) as drawn:
        axis = drawn.subplots()
        yield axis
        axis.grid(visible=True, linewidth=0.3)
        text = svg_text(drawn)
    # On one page no name of an element may occur twice.
    body = _AUTOMATIC_ID.sub("", text[text.index("<svg") :])
    panels.append(_LINE_ID.sub(r'<g class="line-\1"', _DECIMALS.sub(r"\1", body)))
