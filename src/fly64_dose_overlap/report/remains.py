"""What a reconstruction leaves unexplained, by frame and detector pixel, and the instrument it found."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from numpy.typing import NDArray

from fly64_dose_overlap.files.npz import NpzReader
from fly64_dose_overlap.report.drawing import data_uri, figure
from fly64_dose_overlap.report.findings import by_interest
from fly64_dose_overlap.report.study import REFERENCE, Cell, Study
from fly64_dose_overlap.scores.evaluation import Evaluation
from fly64_dose_overlap.scores.found import FoundInstrument

MOST_METHODS = 4
MISFIT_IN = (3.1, 2.9)
"""Of a panel."""
INSTRUMENT_IN = (13.0, 4.0)
ARROWS = 10.0
"""By how much arrows are longer than what they show."""
MOST_MISFIT = 2.0, 100.0
"""Chi-square of a frame, and misfit of a pixel, at the upper end of the colours."""
BY_FRAME, BY_PIXEL = "by_frame", "by_pixel"
PARTS = ("probe", "away_px", "flux")


@dataclass(frozen=True)
class Remains:
    """Pictures of one cell as data URIs; of instruments only where methods have found them."""

    misfit: str
    instruments: list[str]


def members_of(evaluation: Evaluation) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield what `remains_of` draws, for reports/reconstruction.npz."""
    yield "positions_px", evaluation.scan.positions_px
    yield "frames", evaluation.scan.scan_index
    for key, found in evaluation.fits.items():
        yield f"{key}_{BY_FRAME}", found.by_frame
        yield f"{key}_{BY_PIXEL}", found.by_pixel
    for key, found in evaluation.instruments.items():
        for part in PARTS:
            yield f"{key}_{part}", getattr(found, part)


def remains_of(study: Study, cell: Cell) -> Remains | None:
    """Return the pictures of a cell's first run, None where it has none at hand."""
    run = cell.first
    names = [name for name in by_interest(study) if study.methods[name] != REFERENCE][:MOST_METHODS]
    if run.reconstruction is None:
        return None
    with NpzReader(run.reconstruction) as reader:
        keys = {name: run.key(name) for name in names if f"{run.key(name)}_{BY_FRAME}" in reader}
        if not keys:
            return None
        positions, frames = reader.load("positions_px"), reader.load("frames")
        maps = {
            name: (reader.load(f"{key}_{BY_FRAME}"), reader.load(f"{key}_{BY_PIXEL}"))
            for name, key in keys.items()
        }
        instruments = {
            name: FoundInstrument(
                probe=reader.load(f"{key}_probe"),
                away_px=reader.load(f"{key}_away_px"),
                flux=reader.load(f"{key}_flux"),
                positions_px=positions,
                frames=frames,
            )
            for name, key in keys.items()
            if f"{key}_probe" in reader
        }
    with figure(MISFIT_IN[0] * len(maps), 2 * MISFIT_IN[1], {"font.size": 8}) as drawn:
        draw_misfit(drawn, positions, maps)
        misfit = _uri(drawn)
    pictures = list[str]()
    for label, instrument in _by_label(instruments).items():
        with figure(*INSTRUMENT_IN, {"font.size": 8}) as drawn:
            draw_instrument(drawn, label, instrument)
            pictures.append(_uri(drawn))
    return Remains(misfit, pictures)


def _by_label(instruments: dict[str, FoundInstrument]) -> dict[str, FoundInstrument]:
    """Return each instrument once, under the names of all methods that were given it."""
    names: dict[str, list[str]] = {}
    for name, found in instruments.items():
        same = (
            first
            for first in names
            if all(np.array_equal(getattr(instruments[first], part), getattr(found, part)) for part in PARTS)
        )
        names.setdefault(next(same, name), []).append(name)
    return {", ".join(others): instruments[first] for first, others in names.items()}


def draw_misfit(
    drawn: Any,
    positions: NDArray[np.float64],
    maps: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> None:
    """Draw maps of the misfit by frame, at its position, and by detector pixel, of each method by name."""
    axes = drawn.subplots(2, len(maps), squeeze=False)
    y, x = positions.T
    dots = shown = None
    for (above, below), (name, (by_frame, by_pixel)) in zip(axes.T, maps.items(), strict=True):
        dots = above.scatter(
            x, y, c=by_frame, s=4, vmin=2 - MOST_MISFIT[0], vmax=MOST_MISFIT[0], cmap="RdBu_r"
        )
        above.set(title=name, aspect="equal", xlabel="x (object pixels)", ylabel="y (object pixels)")
        above.invert_yaxis()
        least = 1 / MOST_MISFIT[1]
        shades = LogNorm(least, MOST_MISFIT[1])
        shown = below.imshow(np.maximum(by_pixel, least), norm=shades, cmap="RdBu_r")
        below.set(xticks=[], yticks=[], xlabel="detector")
    drawn.colorbar(dots, ax=axes[0], label="chi-square of a frame", extend="both")
    drawn.colorbar(shown, ax=axes[1], label="squared sum / variance", extend="both")


def draw_instrument(drawn: Any, label: str, found: FoundInstrument) -> None:
    """Draw the modes of the probe, how far positions moved, and the light of each frame."""
    probe, positions, flux = drawn.subplots(1, 3)
    probe.imshow(np.concatenate(list(np.abs(found.probe)), axis=1), cmap="viridis")
    shares = ", ".join(f"{power:.1%}" for power in found.mode_powers)
    probe.set(title=f"modes of the probe, {shares}", xticks=[], yticks=[])
    (y, x), (dy, dx) = found.positions_px.T, found.away_px.T
    positions.quiver(x, y, dx, dy, angles="xy", scale_units="xy", scale=1 / ARROWS, width=0.003)
    positions.set(
        title=f"positions moved by {found.position_rms_px:.2g} px rms (arrows {ARROWS:g} times as long)",
        xlabel="x (object pixels)",
        ylabel="y (object pixels)",
        aspect="equal",
    )
    positions.invert_yaxis()
    flux.plot(found.frames, found.flux, ".", markersize=3)
    flux.set(title="light of each frame", xlabel="frame", ylabel="in that of the probe")
    drawn.suptitle(label)


def _uri(drawn: Any) -> str:
    """Return a figure as a PNG in a data URI."""
    content = io.BytesIO()
    drawn.savefig(content, format="png", metadata={"Software": None})
    return data_uri(content)
