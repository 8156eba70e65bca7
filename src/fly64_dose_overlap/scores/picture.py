"""Pictures of the comparison. The same arrays give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import DiskArray
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import atomic_path
from fly64_dose_overlap.scores.frc import FrcCurve, ThresholdName
from fly64_dose_overlap.scores.region import Region
from fly64_dose_overlap.scores.scores import phase_and_error

_PANEL_LONG_IN = 3.0
_DPI = 150
_MOST_PIXELS = 1200
"""Pixels drawn along an axis, more than twice those of a panel: a larger image is thinned out."""
_BACKGROUND = "0.85"
_LEAST_HALF_RANGE = 1e-3
_THRESHOLD_STYLES: dict[ThresholdName, tuple[str, str]] = {
    "half": ("0.5", "--"),
    "half-bit": ("half-bit", "-."),
    "one-seventh": ("1/7", ":"),
}

Field = NDArray[np.complexfloating]
Limits = tuple[float, float]


def comparison_picture(
    path: Path | str,
    truth: Field,
    methods: Mapping[str, Field | DiskArray],
    region: Region,
    *,
    title: str,
    captions: Mapping[str, str] | None = None,
) -> None:
    """Write a PNG of the truth and each method: amplitude, phase and phase error.

    One colour scale serves a whole row. Those of amplitude and phase span the truth over
    the region; that of the error is symmetric, half the truth's phase range to either side.
    Pixels outside the mask are grey.

    Parameters
    ----------
    path : Path or str
        File to write; it appears whole or not at all.
    truth : (y, x) complex
    methods : mapping of name to (y, x) complex
        Aligned reconstructions, in memory or on disk, drawn left to right in the mapping's order.
    region : Region
        Its rectangle is shown.
    title : str
    captions : mapping of name to str, optional
        Scores to print under the column of that name.

    Raises
    ------
    StudyError
        If there is no method, a shape differs, or a caption belongs to no method.
    """
    notes = dict(captions or {})
    _check(truth, methods, notes, region)
    columns = _columns(truth, methods, region)
    limits = _limits(columns["truth"])
    height, width = (_PANEL_LONG_IN * side / max(region.shape) for side in region.shape)
    width = max(width, 1.6)
    figure: Any = Figure(
        figsize=(width * len(columns) + 1.2, 3 * height + 1.6), layout="constrained", dpi=_DPI
    )
    axes: NDArray[Any] = np.asarray(figure.subplots(3, len(columns), squeeze=False))
    for j, (name, images) in enumerate(columns.items()):
        for i, image in enumerate(images):
            _draw(axes[i, j], image, limits[i], "RdBu_r" if i == 2 else ("gray", "viridis")[i])
        axes[0, j].set_title(name, fontsize=9)
        axes[2, j].set_xlabel(notes.get(name, ""), fontsize=7)
    axes[2, 0].set_visible(False)
    labels = ("amplitude", "phase (rad)", "phase error (rad)")
    for i, label in enumerate(labels):
        figure.colorbar(axes[i, -1].images[0], ax=list(axes[i]), label=label, extend="both", pad=0.01)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def frc_picture(path: Path | str, curves: Mapping[str, FrcCurve], *, title: str) -> None:
    """Write a PNG of Fourier ring correlations with their thresholds.

    Parameters
    ----------
    path : Path or str
        File to write; it appears whole or not at all.
    curves : mapping of name to FrcCurve
        Curves on the same rings, drawn in the mapping's order.
    title : str

    Raises
    ------
    StudyError
        If there is no curve, or two have different rings.
    """
    if not curves:
        raise StudyError("FRC picture", "needs at least one curve, got none")
    first = next(iter(curves.values()))
    figure: Any = Figure(figsize=(6.0, 4.0), layout="constrained", dpi=_DPI)
    axes = figure.subplots()
    for name, curve in curves.items():
        if not np.array_equal(curve.frequency, first.frequency):
            raise StudyError(
                "FRC picture",
                f"curves must share their rings, got {len(curve.frc)} of {name!r} and {len(first.frc)}",
            )
        axes.plot(curve.nyquist_fraction, curve.frc, label=name, linewidth=1.4)
    for name, (label, style) in _THRESHOLD_STYLES.items():
        axes.plot(
            first.nyquist_fraction,
            first.threshold(name),
            color="0.4",
            linestyle=style,
            linewidth=0.9,
            label=label,
        )
    lowest = min(float(curve.frc.min()) for curve in curves.values())
    axes.set(
        xlim=(0, 1),
        ylim=(min(-0.05, lowest - 0.05), 1.05),
        xlabel="spatial frequency / Nyquist",
        ylabel="Fourier ring correlation",
        title=title,
    )
    axes.grid(visible=True, linewidth=0.3)
    axes.legend(fontsize=7)
    _save(figure, path)


def _columns(
    truth: Field, methods: Mapping[str, Field | DiskArray], region: Region
) -> dict[str, list[NDArray[np.float64]]]:
    """Return amplitude, phase and phase error of each column, NaN outside the mask."""
    rows, across = region.rectangle
    mask = region.mask[rows, across]
    every = -(-max(region.shape) // _MOST_PIXELS)
    columns: dict[str, list[NDArray[np.float64]]] = {}
    for name, field in {"truth": truth, **methods}.items():
        found = field[rows][:, across]
        phase, error = phase_and_error(truth[rows, across], found, mask)
        images = (np.abs(found).astype(np.float64), phase + error, error)
        columns[name] = [np.where(mask, image, np.nan)[::every, ::every].copy() for image in images]
    return columns


def _limits(truth: list[NDArray[np.float64]]) -> list[Limits]:
    spans: list[Limits] = []
    for image in truth[:2]:
        low, high = float(np.nanmin(image)), float(np.nanmax(image))
        middle, half = (low + high) / 2, max((high - low) / 2, _LEAST_HALF_RANGE)
        spans.append((middle - half, middle + half))
    half_phase = (spans[1][1] - spans[1][0]) / 2
    return [*spans, (-half_phase, half_phase)]


def _draw(axes: Any, image: NDArray[np.float64], limits: Limits, colours: str) -> None:
    axes.set_facecolor(_BACKGROUND)
    axes.imshow(image, cmap=colours, vmin=limits[0], vmax=limits[1])
    axes.set_xticks([])
    axes.set_yticks([])


def _save(figure: Any, path: Path | str) -> None:
    """Write without matplotlib's version stamp, which would change the bytes."""
    FigureCanvasAgg(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _check(
    truth: Field, methods: Mapping[str, Field | DiskArray], captions: Mapping[str, str], region: Region
) -> None:
    if not methods:
        raise StudyError("comparison picture", "needs at least one method, got none")
    if "truth" in methods:
        raise StudyError("comparison picture", "no method may be called 'truth', the first column's name")
    unknown = sorted(set(captions) - set(methods))
    if unknown:
        raise StudyError("comparison picture", f"captions for no method: {', '.join(unknown)}")
    for name, field in {"truth": truth, **methods}.items():
        region.require_shape(name, field)
