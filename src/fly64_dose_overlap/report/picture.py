"""Pictures of one cell: reconstructions beside the truth, and Fourier ring correlations.

The same arrays give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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

_WIDTH_IN = 8.5
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
    captions : mapping of name to str, optional
        Scores to print beside the row of that name.
    pixel_nm : float, optional
        Side of an object pixel, for the scale bar; without it the bar counts pixels.
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
    limits = colour_limits(rows[first])
    height_in = _WIDTH_IN / len(QUANTITIES) * region.shape[0] / region.shape[1]
    with figure(_WIDTH_IN, len(rows) * (height_in + 0.1) + 1.1, {"font.size": 9}) as drawn:
        axes: NDArray[Any] = np.asarray(drawn.subplots(len(rows), len(QUANTITIES), squeeze=False))
        for i, (name, shown) in enumerate(rows.items()):
            for axis, image, (low, high), quantity in zip(axes[i], shown, limits, QUANTITIES, strict=True):
                axis.set(facecolor=_BACKGROUND, xticks=[], yticks=[])
                axis.imshow(image, cmap=quantity.colours, vmin=low, vmax=high)
            axes[i, 0].set_ylabel(f"{name}\n{notes.get(name, '')}".strip(), fontsize=9)
        for column, quantity in zip(axes.T, QUANTITIES, strict=True):
            bar = drawn.colorbar(column[-1].images[0], ax=list(column), location="bottom", extend="both")
            bar.set_label(quantity.label)
        axes[0, -1].set_visible(False)
        length_px, text = scale_bar(region.shape[1], pixel_nm)
        axes[0, 0].add_artist(AnchoredSizeBar(axes[0, 0].transData, length_px, text, "lower right"))
        drawn.suptitle(title, fontsize=11)
        write_png(drawn, path)


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
