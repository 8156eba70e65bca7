"""What was understood of a file with measured frames: in words, as a picture, and which way its axes run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree  # pyright: ignore[reportMissingTypeStubs]

from fly64_dose_overlap.config import NOTHING_TO_MEND, MendParams, TurnName
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.mending import FRAME_TURNS, subsets, turn_line, turned
from fly64_dose_overlap.methods.posterior import Posterior
from fly64_dose_overlap.parallel import one_torch_thread
from fly64_dose_overlap.physics.fit import Fit, fit, mean_frame_deviance, tells_nothing
from fly64_dose_overlap.progress import track
from fly64_dose_overlap.report.drawing import figure, write_png
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.study.dispersion import dispersion
from fly64_dose_overlap.study.geometry import resolve_diameter
from fly64_dose_overlap.study.measured import best_of, orientations, tells_orientation
from fly64_dose_overlap.study.overlap import image_based_overlap

NEIGHBOURS = 6
FRAMES_TRIED = 300
"""Of the middle of a scan, by which an orientation is judged."""
EPOCHS_TRIED = 20
LEAST_MARGIN = 3e-3
"""Of the deviance of the next orientation, for one to be called the best."""
HELD_OUT = 0.1
"""Part of their photons that judges."""


def described(scan: Scan) -> Iterator[str]:
    """Yield what a scan holds, a line for each thing, with its unit."""
    photons = np.concatenate([block.sum(axis=(1, 2), dtype=np.float64) for block in scan.blocks()])
    low, mean, high = photons.min(), photons.mean(), photons.max()
    yield f"frames: {len(scan)} of {scan.side} x {scan.side} pixels"
    yield f"photons per frame: {mean:.4g} on average, {low:.4g} to {high:.4g}"
    scatter = dispersion(scan)
    if scatter is not None and scatter.tells:
        yield (
            f"noise: Fano factor {scatter.fano:.2f} and {scatter.neighbours:.2f} shared by neighbours "
            "in dim pixels (photons: 1 and 0)"
        )
    else:
        yield "noise: too few frames or dim pixels for it to be told from the object"
    powers = (np.abs(scan.probe.astype(np.complex128)) ** 2).sum(axis=(1, 2))
    shares = ", ".join(f"{100 * power / powers.sum():.0f} %" for power in powers)
    diameter, source = resolve_diameter(scan.probe, None)
    yield f"probe: {len(powers)} modes ({shares} of the power), {diameter:.3g} px wide ({source})"
    span = np.ptp(scan.positions_px, axis=0)
    yield f"positions: over {span[0]:.4g} x {span[1]:.4g} object pixels (y, x)"
    if len(scan) > 1:
        tree: Any = KDTree(scan.positions_px)
        step = float(np.median(tree.query(scan.positions_px, k=2)[0][:, 1]))
        overlap = image_based_overlap(scan.positions_px, diameter, min(NEIGHBOURS, len(scan) - 1))
        yield f"step: {step:.3g} px to the nearest position, measured overlap {overlap:.2f}"
    rows, columns = scan.object_shape
    optics = scan.optics
    pixel = "" if optics is None else f", {optics.object_pixel_m * 1e9:.4g} nm a pixel"
    yield f"object: a grid of {rows} x {columns}{pixel}"
    if optics is not None:
        yield f"wavelength: {optics.wavelength_m * 1e9:.4g} nm"
    blind = int((~scan.always_counting).sum())
    each = "" if scan.mask is None or scan.mask.ndim == 2 else " in some frame or other"
    yield f"mask: {blind} of {scan.side**2} pixels do not count{each}"
    if scan.background is not None:
        yield f"background: {float(scan.background.sum()):.4g} photons per frame"
    unknown = [name for name, value in (("optics", optics), ("mask", scan.mask)) if value is None]
    if unknown:
        yield f"the file does not say: {', '.join(unknown)}"


def draw(scan: Scan, path: Path, title: str) -> None:
    """Write a PNG of the mean frame, a frame, the probe, and the positions over the illumination."""
    mean = sum(block.sum(axis=0, dtype=np.float64) for block in scan.blocks()) / len(scan)
    middle = len(scan) // 2
    probe = np.concatenate(list(scan.probe), axis=1)
    with figure(9.0, 8.0, {"font.size": 9}) as drawn:
        axes: NDArray[Any] = np.asarray(drawn.subplots(2, 2))
        for axis, image, name in (
            (axes[0, 0], np.log10(mean + 1e-3), "mean frame, log10 photons"),
            (axes[0, 1], np.log10(np.asarray(scan.counts[middle]) + 0.1), f"frame {middle}, log10 photons"),
            (axes[1, 0], np.abs(probe), "probe, modulus of each mode"),
        ):
            drawn.colorbar(axis.imshow(image, cmap="viridis"), ax=axis, shrink=0.8)
            axis.set(title=name, xticks=[], yticks=[])
        axis = axes[1, 1]
        drawn.colorbar(axis.imshow(scan.illumination(), cmap="gray"), ax=axis, shrink=0.8)
        y, x = scan.positions_px.T
        axis.plot(x, y, "-", color="#d1495b", linewidth=0.4)
        axis.plot(x[:1], y[:1], "o", color="#d1495b", markersize=4)
        axis.set(title="positions in their order over the illumination, photons")
        drawn.suptitle(title, fontsize=11)
        write_png(drawn, path)


@dataclass(frozen=True)
class Turn:
    """How well an orientation explains photons that were held out."""

    changes: tuple[TurnName, ...]
    """What is turned; empty for the file as it is."""
    fit: Fit
    """Its deviance is what orientations are compared by."""


TRIED: tuple[TurnName, ...] = (*FRAME_TURNS[:3], "conjugate_probe")


def judged(scan: Scan, obj: NDArray[np.complex64], mend: MendParams = NOTHING_TO_MEND) -> Iterator[str]:
    """Yield orientations in a line each, the best first: by the file's own object, or without one.

    ``mend`` is what was mended as the file was read.

    Raises
    ------
    StudyError
        If a scan tells none.
    """
    if tells_orientation(scan, obj):
        tried = orientations(scan, obj)
        best, given = best_of(tried), tried[0]
        conjugate = given.misfit if best is given else orientations(scan, obj.conj())[0].misfit
        if conjugate < best.misfit:
            yield f"misfit {conjugate:.4g}: as it is, but for an object that is the conjugate (best)"
        shown = {best, given, *sorted(tried, key=lambda o: o.misfit)[:5]}
        for each in sorted(shown, key=lambda o: (o is not best, o.misfit, len(o.changes))):
            first = each is best and conjugate >= best.misfit
            marks = f"{' (best)' if first else ''}{' (the file)' if each is given else ''}"
            yield f"misfit {each.misfit:.4g}: {_in_words(each.changes, mend)}{marks}"
        yield "a misfit of 1 is that of the mean frame"
        return
    ways, mean = turns(scan)
    found = sorted(ways, key=lambda each: each.fit.deviance)
    best, margin = found[0], found[1].fit.deviance / found[0].fit.deviance - 1
    fits = not tells_nothing(best.fit, mean)
    for each in found[:5]:
        first = " (best)" if each is best and fits and margin > LEAST_MARGIN else ""
        marks = f"{first}{'' if each.changes else ' (the file)'}"
        yield f"deviance {each.fit.deviance:.5f}: {_in_words(each.changes, mend)}{marks}"
    yield (
        f"of photons held out, after {EPOCHS_TRIED} epochs of ML; the next is {margin:.2%} worse"
        f"{'' if margin > LEAST_MARGIN else ', which is too little to tell one'}"
    )
    if not fits:
        yield (
            f"none of these fits: the mean of all frames has {mean:.5f}, noise alone "
            f"{best.fit.deviance_floor:.5f}. Not tried are the order of frames (advance_frames, delay_frames "
            "or reverse_frames), the place of the zero frequency (shift_frames), the probe, and unit and "
            "scale of positions"
        )


def _in_words(changes: tuple[TurnName, ...], mend: MendParams) -> str:
    return turn_line(changes, mend) if changes else "as it is"


def turns(scan: Scan) -> tuple[list[Turn], float]:
    """Reconstruct the middle of a scan in each orientation of its frames, and compare held-out photons.

    Beside them stands the deviance of the frames' own mean, which needs no orientation.

    No object is needed. Tried are the eight ways to turn and flip the frames against the positions. The
    conjugate probe with frames turned by half a turn gives the conjugate object and the same frames: of
    such pairs both are listed, and tell of the probe by the one with fewer changes.

    Raises
    ------
    StudyError
        If there are too few frames that overlap.
    """
    if len(scan) < 2:
        raise StudyError("orientation", "a single frame tells none")
    centre = np.median(scan.positions_px, axis=0)
    distance = np.hypot(*(scan.positions_px - centre).T)
    chosen = np.sort(np.argsort(distance, kind="stable")[:FRAMES_TRIED])
    part = replace(scan.frames(chosen), groups=None).cropped()[0]
    fitted, held = part.divide(1 - HELD_OUT, generator(0, "inspect", "orientation"))
    found: list[Turn] = []
    ways = list(subsets(TRIED))
    with one_torch_thread():
        for changes in track(iter(ways), total=len(ways), label="orientations", unit="orientation"):
            first, second = (_turned(each, changes) for each in (fitted, held))
            *_, obj = islice(Posterior()(first), EPOCHS_TRIED)
            rng = generator(0, "inspect", "floor")
            found.append(Turn(changes, fit(second.model, second.counts, obj, rng)))
    mean = np.asarray(fitted.counts[:]).mean(axis=0, dtype=np.float64) * (HELD_OUT / (1 - HELD_OUT))
    return found, mean_frame_deviance(held.model, held.counts, mean)


def _turned(scan: Scan, changes: tuple[TurnName, ...]) -> Scan:
    """Return a scan with its frames, and what belongs to their pixels, turned."""
    return replace(
        scan,
        counts=turned(np.asarray(scan.counts[:]), changes),
        mask=None if scan.mask is None else turned(np.asarray(scan.mask[:]), changes),
        background=None if scan.background is None else turned(scan.background, changes),
        probe=scan.probe.conj() if "conjugate_probe" in changes else scan.probe,
    )
