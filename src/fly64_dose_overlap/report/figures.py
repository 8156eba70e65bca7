"""Curves of a study as SVG pictures. The same study gives the same bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from fly64_dose_overlap.report.metrics import COMPLEX_NRMSE, FRC50, PHASE_PSNR, Metric
from fly64_dose_overlap.report.study import BAYESIAN_LIMIT, LIMIT, NETWORK, Cell, Study

_WIDTH_IN = 11.0
_PANEL_HEIGHT_IN = 3.0
_LEGEND_COLUMNS = 5
_TRAINING_COLUMNS = 4
_LEGEND_LINE_IN = 0.2
_BOLD, _THIN = 2.2, 1.1
_LIMIT_STYLES = {LIMIT: "--", BAYESIAN_LIMIT: ":"}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LEARNED_COLOURS = ("#c8102e", "#e67700", "#7b2d8e", "#d6539b")
_ITERATIVE_COLOURS = (
    "#1f5fa8", "#2a9d8f", "#5a7d1e", "#8c5a2b", "#3aa0d8", "#17405c",
    "#6b6bb5", "#9a8a00", "#4fae4f", "#b07aa1", "#5f9ea0",
)  # fmt: skip
_REFERENCE_LINES = (":", "-.", (0, (1, 3)))
_BEST = "best iterative"
_HALF = 0.5


@dataclass(frozen=True)
class Picture:
    """A picture that is part of the page.

    Attributes
    ----------
    source : str
        Data URI.
    caption : str
        What it shows; also its text for those who do not see it.
    """

    source: str
    caption: str

    @property
    def content(self) -> bytes:
        """What a file of the picture holds."""
        return base64.b64decode(self.source.partition(",")[2])


@dataclass(frozen=True)
class Charts:
    """Curves of a study; None where nothing was recorded to draw."""

    responses: tuple[Picture, ...] = ()
    frc: Picture | None = None
    training: Picture | None = None


def draw_charts(study: Study) -> Charts:
    """Draw all curves of a study that has a result."""
    pictures = (
        dose_response(study, PHASE_PSNR),
        dose_response(study, COMPLEX_NRMSE),
        overlap_response(study, PHASE_PSNR),
        overlap_response(study, FRC50),
        fluence_response(study, PHASE_PSNR),
    )
    responses = tuple(picture for picture in pictures if picture)
    return Charts(responses, frc_curves(study), training_curves(study))


def embedded(content: bytes, media_type: str, caption: str) -> Picture:
    """Return the content of a picture as a part of the page."""
    return Picture(f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}", caption)


def dose_response(study: Study, metric: Metric) -> Picture:
    """Draw a score against the dose, one panel per view, with the physical limit."""
    panels = [(view, [cell for cell in study.done if cell.view == view]) for view in study.views]
    with _figure(len(panels), legend=len(study.methods) + 2) as (figure, axes, content):
        for axis, (view, cells) in zip(axes, panels, strict=True):
            _response(axis, study, cells, metric, [float(cell.dose) for cell in cells])
            axis.set(xscale="log", xlabel="photons per frame", title=view)
        _finish(figure, axes, metric.title)
    caption = f"{metric.title} against the dose, by overlap view. {_limit_note(study, metric)}"
    return embedded(content.getvalue(), "image/svg+xml", caption)


def overlap_response(study: Study, metric: Metric) -> Picture:
    """Draw a score against the measured overlap, one panel per dose, with the physical limit."""
    panels = [(dose, [cell for cell in study.done if cell.dose == dose]) for dose in study.doses]
    with _figure(len(panels), legend=len(study.methods) + 2) as (figure, axes, content):
        for axis, (dose, found) in zip(axes, panels, strict=True):
            measured = [(cell, x) for cell in found if (x := cell.overlap()) is not None]
            measured.sort(key=lambda pair: pair[1])
            _response(axis, study, [cell for cell, _ in measured], metric, [x for _, x in measured])
            axis.set(xlabel="measured overlap of images (metric 2)", title=f"{dose:,} photons per frame")
        _finish(figure, axes, metric.title)
    caption = f"{metric.title} against the measured overlap, by dose. {_limit_note(study, metric)}"
    return embedded(content.getvalue(), "image/svg+xml", caption)


def fluence_response(study: Study, metric: Metric) -> Picture | None:
    """Draw network, best iterative method and limit against the photons per pixel, all cells in one panel."""
    cells = [(cell, x) for cell in study.done if (x := cell.photons_per_pixel())]
    if not cells:
        return None
    with _figure(1, legend=9) as (figure, axes, content):
        for view, marker in zip(study.views, _marks(study.views), strict=True):
            own = sorted(((x, cell) for cell, x in cells if cell.view == view), key=lambda pair: pair[0])
            for name, colour in (
                (NETWORK, _LEARNED_COLOURS[0]),
                (_BEST, _ITERATIVE_COLOURS[0]),
                (LIMIT, "0.2"),
            ):
                points = [(x, y) for x, cell in own if (y := _height(cell, name, metric)) is not None]
                axes[0].plot(
                    *np.reshape(points, (-1, 2)).T,
                    color=colour,
                    marker=marker,
                    markersize=5,
                    linestyle="--" if name == LIMIT else "-",
                    linewidth=_THIN,
                    label=f"{name}, {view}",
                )
        axes[0].set(xscale="log", xlabel="photons per object pixel")
        _finish(figure, axes, metric.title)
    caption = (
        f"{metric.title} against the photons per object pixel, which dose and thinning of the scan share. "
        f"Best iterative: the one with the highest phase PSNR in the cell. {_limit_note(study, metric)}"
    )
    return embedded(content.getvalue(), "image/svg+xml", caption)


def frc_curves(study: Study) -> Picture | None:
    """Draw the Fourier ring correlations of every cell, rows by dose, columns by view."""
    if not any(cell.first.frc for cell in study.done):
        return None
    shape = (len(study.doses), len(study.views))
    with _figure(*reversed(shape), legend=len(study.methods) + 3) as (figure, axes, content):
        for axis, cell in zip(axes, study.cells.values(), strict=True):
            axis.set(title=f"{cell.dose:,}, {cell.view}", xlabel="spatial frequency / Nyquist", xlim=(0, 1))
            if cell.runs:
                _frc_panel(axis, study, cell)
            else:
                _say_absent(axis, cell)
        _finish(figure, axes, "FRC")
    caption = (
        "Fourier ring correlation of each method with the truth. Threshold 0.5 is the one against a "
        "noise-free truth; half-bit and 1/7 are those for two noisy halves."
    )
    return embedded(content.getvalue(), "image/svg+xml", caption)


def training_curves(study: Study) -> Picture | None:
    """Draw the training curves, one panel per quantity, one line per run."""
    names = list(dict.fromkeys(name for cell in study.done for run in cell.runs for name in run.curves))
    if not names:
        return None
    colours = dict(
        zip(study.doses, mpl.colormaps["viridis"](np.linspace(0, 0.85, len(study.doses))), strict=True)
    )
    marks = dict(zip(study.views, _marks(study.views), strict=True))
    across = min(len(names), _TRAINING_COLUMNS)
    down = -(-len(names) // across)
    with _figure(across, down, legend=len(study.cells), panels=len(names), shared=False) as drawing:
        figure, axes, content = drawing
        for axis, name in zip(axes, names, strict=True):
            for cell in study.done:
                for run in cell.runs:
                    steps, values = np.reshape(run.curves.get(name, []), (-1, 2)).T
                    label = f"{cell.dose:,}, {cell.view}"
                    axis.plot(
                        steps,
                        values,
                        color=colours[cell.dose],
                        marker=marks[cell.view],
                        markersize=4,
                        linewidth=_THIN,
                        label=label if run is cell.first else None,
                    )
            axis.set(title=name, xlabel="epoch")
        _finish(figure, axes, "")
    return embedded(content.getvalue(), "image/svg+xml", "Training curves of every run, by dose and view.")


@contextmanager
def _figure(
    across: int, down: int = 1, *, legend: int, panels: int | None = None, shared: bool = True
) -> Generator[tuple[Any, list[Any], io.BytesIO]]:
    """Yield a figure with its panels, written as SVG when the block ends."""
    height = down * _PANEL_HEIGHT_IN + _LEGEND_LINE_IN * -(-legend // _LEGEND_COLUMNS) + 0.3
    settings: dict[Any, Any] = {
        "svg.hashsalt": "report",
        "svg.fonttype": "path",
        "font.size": 9,
        "axes.titlesize": 10,
    }
    content = io.BytesIO()
    with mpl.rc_context(settings):
        figure: Any = Figure(figsize=(_WIDTH_IN, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = list(figure.subplots(down, across, squeeze=False, sharex=shared, sharey=shared).ravel())
        for unused in axes[panels:] if panels else ():
            unused.set_visible(False)
        yield figure, axes[:panels], content
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})


def _finish(figure: Any, axes: Sequence[Any], label: str) -> None:
    """Add what all panels share: grid, label of y, one legend."""
    entries: dict[str, Any] = {}
    for axis in axes:
        axis.grid(visible=True, linewidth=0.3)
        axis.set_ylabel(label)
        if label:
            axis.label_outer()
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    if entries:
        figure.legend(
            entries.values(),
            entries.keys(),
            loc="outside lower center",
            ncols=_LEGEND_COLUMNS,
            fontsize=8,
            frameon=False,
        )


def _response(axis: Any, study: Study, cells: Sequence[Cell], metric: Metric, x: Sequence[float]) -> None:
    if metric is COMPLEX_NRMSE:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    for name, style in _styles(study).items():
        values = [cell.value(name, metric) for cell in cells]
        there = [(at, value) for at, value in zip(x, values, strict=True) if value]
        axis.errorbar(
            [at for at, _ in there],
            [value.mean for _, value in there],
            yerr=[value.spread or 0.0 for _, value in there] if any(v.spread for _, v in there) else None,
            markersize=3.5,
            capsize=2,
            label=name,
            **style,
        )
    for name in study.limits if metric.limit else ():
        points = [
            (at, y) for at, cell in zip(x, cells, strict=True) if (y := cell.limit(metric, name)) is not None
        ]
        axis.plot(
            *np.reshape(points, (-1, 2)).T,
            color="black",
            linestyle=_LIMIT_STYLES[name],
            linewidth=1.8,
            label=name,
        )


def _frc_panel(axis: Any, study: Study, cell: Cell) -> None:
    frc = cell.first.frc
    x = frc["nyquist_fraction"]
    for name, style in _styles(study).items():
        if (key := cell.first.key(name)) in frc:
            axis.plot(x, frc[key], label=name, **{**style, "marker": ""})
    if LIMIT in frc:
        axis.plot(x, frc[LIMIT], color="black", linestyle="--", linewidth=1.8, label=f"{LIMIT}, expected")
    grey = {"color": "0.4", "linewidth": 0.9}
    axis.axhline(_HALF, linestyle=(0, (6, 2)), label="threshold 0.5", **grey)
    axis.plot(x, frc["half_bit"], linestyle="-.", label="threshold half-bit", **grey)
    axis.axhline(1 / 7, linestyle=":", label="threshold 1/7", **grey)
    axis.set_ylim(-0.1, 1.05)


def _styles(study: Study) -> dict[str, dict[str, Any]]:
    """Return colour and line of each method: learned ones bold, references grey."""
    learned = cycle(_LEARNED_COLOURS)
    iterative = cycle(_ITERATIVE_COLOURS)
    reference = cycle(_REFERENCE_LINES)
    styles: dict[str, dict[str, Any]] = {}
    for number, (name, kind) in enumerate(study.methods.items()):
        marker = _MARKERS[number % len(_MARKERS)]
        if kind == "learned":
            styles[name] = {"color": next(learned), "linewidth": _BOLD, "marker": marker, "zorder": 3}
        elif kind == "iterative":
            styles[name] = {"color": next(iterative), "linewidth": _THIN, "marker": marker}
        else:
            styles[name] = {
                "color": "0.55",
                "linewidth": _THIN,
                "linestyle": next(reference),
                "marker": marker,
            }
    return styles


def _marks(names: Sequence[str]) -> list[str]:
    return [_MARKERS[number % len(_MARKERS)] for number in range(len(names))]


def _height(cell: Cell, name: str, metric: Metric) -> float | None:
    if name == LIMIT:
        return cell.limit(metric)
    method = cell.best_iterative() if name == _BEST else name
    value = cell.value(method, metric) if method else None
    return value.mean if value else None


def _say_absent(axis: Any, cell: Cell) -> None:
    axis.text(0.5, 0.5, cell.state, ha="center", va="center", color="0.4", transform=axis.transAxes)
    axis.set_ylim(-0.1, 1.05)


def _limit_note(study: Study, metric: Metric) -> str:
    if not (study.limits and metric.limit):
        return ""
    return "Black: the physical limit, which binds unbiased estimators; prior knowledge can beat it."
