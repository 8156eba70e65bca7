"""Pictures of one cell: reconstructions beside the truth, and Fourier ring correlations.

The same arrays give the same bytes.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import DiskArray
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.report.drawing import figure, write_png
from fly64_dose_overlap.scores.frc import FrcCurve, ThresholdName
from fly64_dose_overlap.scores.region import Region
from fly64_dose_overlap.scores.scores import phase_and_error

TRUTH, REFERENCE = "truth", "reference"
"""What the first picture shows, where frames were simulated and where they were measured."""
MOST_PIXELS = 1200
"""Pixels drawn along an axis, more than twice those of a panel: a larger image is thinned out."""

_PANEL_IN = (2.3, 2.6)
"""Largest width and height of an image."""
_LEAST_COLUMN_IN = 1.6
_TICK_IN = 0.55
"""Room for a number at a colour bar."""
_NAMES_IN, _NAME_CHARACTERS = 1.45, 18
_LINE_IN = 0.16
_GAP_IN = 0.1
_BAR_IN, _BELOW_BAR_IN = 0.11, 0.47
_LEAST_HALF_RANGE = 1e-3
_BACKGROUND = "0.85"
_BAR_PART = 0.25
_THRESHOLD_STYLES: dict[ThresholdName, tuple[str, str]] = {
    "half": ("0.5", "--"),
    "half-bit": ("half-bit", "-."),
    "one-seventh": ("1/7", ":"),
}

Field = NDArray[np.complexfloating]
Limits = tuple[float, float]


@dataclass(frozen=True)
class Quantity:
    """What is shown of a complex field, its name with unit, and its colours in matplotlib."""

    name: str
    label: str
    colours: str


QUANTITIES = (
    Quantity("amplitude", "amplitude", "gray"),
    Quantity("phase", "phase (rad)", "viridis"),
    Quantity("phase error", "phase error (rad)", "RdBu_r"),
)


def comparison_picture(
    path: Path | str,
    truth: Field,
    methods: Mapping[str, Field | DiskArray],
    region: Region,
    *,
    title: str,
    captions: Mapping[str, str] | None = None,
    pixel_nm: float | None = None,
    first: str = TRUTH,
) -> None:
    """Write a PNG of the truth and each method, a row each: amplitude, phase and phase error.

    One colour scale serves a whole column. Those of amplitude and phase span the truth over
    the region; that of the error is symmetric, half the truth's phase range to either side.
    Pixels outside the mask are grey.

    Parameters
    ----------
    truth : (y, x) complex
    methods : mapping of name to (y, x) complex
        Aligned reconstructions, in memory or on disk, drawn in the mapping's order.
    region : Region
        Its rectangle is shown.
    title : str
        Further lines than the first are drawn smaller.
    captions : mapping of name to str, optional
        Scores to print below that name.
    pixel_nm : float, optional
        Side of an object pixel, for the scale bar; without it the bar counts pixels. It stands
        where the truth's error would, to hide nothing.
    first : str
        Name of the first row.

    Raises
    ------
    StudyError
        If there is no method, a shape differs, or a caption belongs to no method.
    """
    notes = captions or {}
    if not methods:
        raise StudyError("comparison picture", "needs at least one method, got none")
    if first in methods:
        raise StudyError("comparison picture", f"no method may be called {first!r}, the first row's name")
    if unknown := sorted(set(notes) - set(methods)):
        raise StudyError("comparison picture", f"captions for no method: {', '.join(unknown)}")
    for name, field in {first: truth, **methods}.items():
        region.require_shape(name, field)
    rows = images(truth, methods, region.mask, region.rectangle, first)
    labels = [f"{textwrap.fill(name, _NAME_CHARACTERS)}\n{notes.get(name, '')}".strip() for name in rows]
    layout = _Layout.of(region.shape, labels, title)
    with figure(*layout.size_in, {"font.size": 9, "figure.constrained_layout.use": False}) as drawn:
        _draw_title(drawn, title, layout)
        axes = _draw_images(drawn, rows, colour_limits(rows[first]), layout)
        for axis, label in zip(axes[:, 0], labels, strict=True):
            axis.set_ylabel(label, rotation=0, ha="right", va="center")
        corner = axes[0, -1]
        corner.set_axis_off()
        corner.images[0].set_visible(False)
        length_px, text = scale_bar(region.shape[1], pixel_nm)
        look: dict[str, Any] = {"frameon": False, "size_vertical": length_px / 30}
        corner.add_artist(AnchoredSizeBar(corner.transData, length_px, text, "lower left", **look))
        write_png(drawn, path)


@dataclass(frozen=True)
class _Layout:
    """Where the parts of a comparison lie, inches; sizes are width and height."""

    panel_in: tuple[float, float]
    pitch_in: tuple[float, float]
    """From a column to the next, and from a row to the next."""
    top_in: float
    size_in: tuple[float, float]

    @classmethod
    def of(cls, shape: tuple[int, ...], labels: Sequence[str], title: str) -> _Layout:
        """Fit images of a shape beside labels of several lines, however small the images are."""
        width = min(_PANEL_IN[0], _PANEL_IN[1] * shape[1] / shape[0])
        height = width * shape[0] / shape[1]
        text = _LINE_IN * max(label.count("\n") + 1 for label in labels)
        column, row = max(width, _LEAST_COLUMN_IN) + _GAP_IN, max(height, text) + _GAP_IN
        top = 0.35 + 0.2 * title.count("\n")
        below = _GAP_IN + _BAR_IN + _BELOW_BAR_IN
        size = _NAMES_IN + len(QUANTITIES) * column, top + len(labels) * row + below
        return cls((width, height), (column, row), top, size)

    def box(self, column: int, row: int) -> tuple[float, float, float, float]:
        """Return left, bottom, width and height of an image, in parts of the figure."""
        (width, height), (across, down) = self.panel_in, self.pitch_in
        left = _NAMES_IN + column * across + (across - _GAP_IN - width) / 2
        bottom = self.size_in[1] - self.top_in - row * down - (down - _GAP_IN + height) / 2
        return self._parts(left, bottom, width, height)

    def bar(self, column: int) -> tuple[float, float, float, float]:
        """Return the same of a column's colour bar."""
        width = self.pitch_in[0] - _GAP_IN
        return self._parts(_NAMES_IN + column * self.pitch_in[0], _BELOW_BAR_IN, width, _BAR_IN)

    def _parts(self, *box: float) -> tuple[float, float, float, float]:
        left, bottom, width, height = box
        across, up = self.size_in
        return left / across, bottom / up, width / across, height / up


def _draw_title(drawn: Any, title: str, layout: _Layout) -> None:
    first, _, further = title.partition("\n")
    high = layout.size_in[1]
    drawn.suptitle(first, y=1 - 0.08 / high, va="top", fontsize=11)
    drawn.text(0.5, 1 - 0.3 / high, further, ha="center", va="top", color="0.35")


def _draw_images(
    drawn: Any, rows: Mapping[str, Sequence[NDArray[np.float64]]], limits: Sequence[Limits], layout: _Layout
) -> NDArray[Any]:
    """Draw an image in each row and column, and a colour bar below each column; return the axes."""
    axes: NDArray[Any] = np.empty((len(rows), len(QUANTITIES)), dtype=object)
    for i, shown in enumerate(rows.values()):
        for j, (image, (low, high), quantity) in enumerate(zip(shown, limits, QUANTITIES, strict=True)):
            axes[i, j] = axis = drawn.add_axes(layout.box(j, i), facecolor=_BACKGROUND, xticks=[], yticks=[])
            axis.imshow(image, cmap=quantity.colours, vmin=low, vmax=high)
    for j, quantity in enumerate(QUANTITIES):
        box = layout.bar(j)
        ticks = MaxNLocator(int(box[2] * layout.size_in[0] / _TICK_IN))
        below = drawn.add_axes(box)
        bar = drawn.colorbar(
            axes[-1, j].images[0], cax=below, orientation="horizontal", extend="both", ticks=ticks
        )
        bar.set_label(quantity.label)
    return axes


def frc_picture(path: Path | str, curves: Mapping[str, FrcCurve], *, title: str) -> None:
    """Write a PNG of Fourier ring correlations on the same rings, in the mapping's order, with thresholds.

    Raises
    ------
    StudyError
        If there is no curve, or two have different rings.
    """
    if not curves:
        raise StudyError("FRC picture", "needs at least one curve, got none")
    first = next(iter(curves.values()))
    for name, curve in curves.items():
        if not np.array_equal(curve.frequency, first.frequency):
            found = f"{len(curve.frc)} of {name!r} and {len(first.frc)}"
            raise StudyError("FRC picture", f"curves must share their rings, got {found}")
    lowest = min(float(curve.frc.min()) for curve in curves.values())
    with figure(6.0, 4.0, {}) as drawn:
        axes = drawn.subplots()
        for name, curve in curves.items():
            axes.plot(curve.nyquist_fraction, curve.frc, label=name, linewidth=1.4)
        for name, (label, style) in _THRESHOLD_STYLES.items():
            grey = {"color": "0.4", "linewidth": 0.9}
            axes.plot(first.nyquist_fraction, first.threshold(name), linestyle=style, label=label, **grey)
        axes.set(xlim=(0, 1), ylim=(min(-0.05, lowest - 0.05), 1.05), title=title)
        axes.set(xlabel="spatial frequency / Nyquist", ylabel="Fourier ring correlation")
        axes.grid(visible=True, linewidth=0.3)
        axes.legend(fontsize=9)
        write_png(drawn, path)


def images(
    truth: Field,
    methods: Mapping[str, Field | DiskArray],
    mask: NDArray[np.bool_],
    rectangle: tuple[slice, slice],
    first: str = TRUTH,
) -> dict[str, list[NDArray[np.float64]]]:
    """Return the `QUANTITIES` of the truth, under the name ``first``, and of each method.

    They are cut to a rectangle, and NaN outside the mask.
    """
    rows, across = rectangle
    mask = mask[rows, across]
    every = -(-max(mask.shape) // MOST_PIXELS)
    found: dict[str, list[NDArray[np.float64]]] = {}
    for name, field in {first: truth, **methods}.items():
        part = field[rows][:, across]
        phase, error = phase_and_error(truth[rows, across], part, mask)
        shown = (np.abs(part).astype(np.float64), phase + error, error)
        found[name] = [np.where(mask, image, np.nan)[::every, ::every].copy() for image in shown]
    return found


def colour_limits(truth: list[NDArray[np.float64]]) -> list[Limits]:
    """Return the range of colours of each of the `QUANTITIES`, from those of the truth."""
    spans: list[Limits] = []
    for image in truth[:2]:
        low, high = float(np.nanmin(image)), float(np.nanmax(image))
        middle, half = (low + high) / 2, max((high - low) / 2, _LEAST_HALF_RANGE)
        spans.append((middle - half, middle + half))
    half_phase = (spans[1][1] - spans[1][0]) / 2
    return [*spans, (-half_phase, half_phase)]


def scale_bar(width_px: int, pixel_nm: float | None) -> tuple[float, str]:
    """Return a length up to a quarter of an image's width, in pixels and in words.

    It is 1, 2 or 5 times a power of ten.

    Examples
    --------
    >>> scale_bar(479, 57.24), scale_bar(479, None), scale_bar(40, None), scale_bar(28, 0.1)
    ((87.3515024458421, '5 µm'), (100.0, '100 px'), (10.0, '10 px'), (5.0, '0.5 nm'))
    """
    most = _BAR_PART * width_px * (1 if pixel_nm is None else pixel_nm)
    power = 10.0 ** math.floor(math.log10(most))
    length = max(step * power for step in (1, 2, 5) if step * power <= most)
    if pixel_nm is None:
        return length, f"{length:g} px"
    return length / pixel_nm, f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm"
