"""Frames and an object that is known: whether a file's own object, or a truth, is that of the frames."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import FrameArray
from fly64_dose_overlap.config import NOTHING_TO_MEND, MendParams, TurnName
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import BaseSet, optics_of
from fly64_dose_overlap.files.mending import (
    FRAME_TURNS,
    ORDER_TURNS,
    POSITION_TURNS,
    subsets,
    turn_line,
    turned,
)
from fly64_dose_overlap.physics.illumination import illumination
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.physics.thinning import FRAMES_PER_BLOCK
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.study.dispersion import dispersion
from fly64_dose_overlap.study.gauge import gauged_truth
from fly64_dose_overlap.study.soundness import defects, require_sound

PIXELS_COMPARED = 2**17
FRAMES_COMPARED = (16, 48)
"""As many frames as have `PIXELS_COMPARED` pixels in all modes, within these limits, evenly spaced."""
LEAST_GAIN = 0.02
"""Part of the misfit that another orientation must take off to be believed."""
LEAST_DEVIATIONS = 5.0
"""Standard errors, over frames, that the gain must exceed zero by."""
TRUTH_TOLERANCE = 0.2
"""Relative difference of the photons that a truth expects from those that were counted."""

Roots = Float[NDArray[np.float32], "frame y x"]


@dataclass(frozen=True, eq=False)
class Orientation:
    """How well the file's own object explains its frames once some facts are turned."""

    changes: tuple[TurnName, ...]
    """What is turned; empty for the file as it is."""
    misfit: float
    """Sum over frames and pixels of (sqrt(n) - sqrt(I))^2, over that of the mean of the other frames in
    place of I: an object that explains nothing of what differs from frame to frame has 1 at best, and
    noise alone up to 1 where photons are few."""
    by_frame: NDArray[np.float64]
    """(frame,), the same of each frame, in photons."""


def scan_of(base: BaseSet) -> Scan:
    """Return the scan of measured frames; its counts (frame, y, x), photons, are in memory."""
    assert base.amplitude is not None
    counts = np.empty(base.amplitude.shape, np.float32)
    for first in range(0, len(counts), FRAMES_PER_BLOCK):
        block = slice(first, first + FRAMES_PER_BLOCK)
        np.rint(np.square(base.amplitude[block]), out=counts[block])
    height, width = base.obj.shape
    return Scan(
        counts,
        base.probe,
        base.positions_px,
        (height, width),
        scan_index=base.scan_index,
        optics=optics_of(base.record),
        record=base.record,
        mask=base.mask,
        background=base.background,
    )


def examined(
    base: BaseSet, where: str, *, probe_in_photons: bool, mend: MendParams = NOTHING_TO_MEND
) -> tuple[Scan, list[str]]:
    """Return the scan of measured frames, and what speaks against it, each in one line.

    ``mend`` is what was mended as its file was read.

    Raises
    ------
    StudyError
        If the base set, which ``where`` names, has no frames, or as `defects`.
    """
    if base.amplitude is None:
        hint = "name them counts or diffraction, or name the dataset in base.fields (fields= in Python)"
        raise StudyError(where, "has no frames", hint)
    scan = scan_of(base)
    found = defects(scan, probe_in_photons=probe_in_photons, mend=mend)
    doubts = (orientation_doubt(scan, base.obj, mend), scatter.doubt if (scatter := dispersion(scan)) else "")
    return scan, [*found, *filter(None, doubts)]


def halves(scan: Scan, seed: int) -> Iterator[tuple[str, tuple[Scan, Scan]]]:
    """Yield pairs of scans that share no photon: ``frames``, and ``thinned``, halves of each one's photons.

    Of every two frames in their order one goes to either half, by chance. Every other frame of a raster
    would be a coarser raster: the pattern that its pitch leaves in an object is opposite in both halves,
    and at that period they would seem to contradict each other.
    """
    if scan.groups is None or scan.groups.shape[1] == 1:  # others cannot be divided
        coins = generator(seed, "agreement", "frames").integers(2, size=(len(scan) + 1) // 2)
        pairs = np.stack([coins, 1 - coins]) + 2 * np.arange(len(coins))
        first, second = (scan.frames(np.sort(chosen[chosen < len(scan)])) for chosen in pairs)
        yield "frames", (first, second)
    yield "thinned", scan.divide(0.5, generator(seed, "agreement"))


def orientation_doubt(scan: Scan, obj: NDArray[np.complex64], mend: MendParams = NOTHING_TO_MEND) -> str:
    """Return in one line why the frames of a file may not be those of its own object, or an empty string."""
    if not tells_orientation(scan, obj):
        return ""
    found = orientations(scan, obj)
    given, best = found[0], best_of(found)
    if best is given and given.misfit <= 1:
        return ""
    mirrored = orientations(scan, obj.conj())[0].misfit
    if mirrored < min(best.misfit, 1):
        return (
            "its own object is the conjugate of what probe, positions and frames say, "
            f"misfit {mirrored:.3g} instead of {given.misfit:.3g}: conjugate the object in the file"
        )
    if best is not given and best.misfit < 1:
        return (
            f"its own object explains the frames better with {turn_line(best.changes, mend)}, "
            f"misfit {best.misfit:.3g} instead of {given.misfit:.3g}; "
            "see dose-overlap inspect FILE --find-orientation"
        )
    if given.misfit > 1:
        return (
            f"its own object explains the frames worse than their mean does, misfit {given.misfit:.3g} for "
            "1: do unit, axes and order of positions, frames, probe and object belong together?"
        )
    return ""


def require_truth(
    scan: Scan, truth: NDArray[np.complex64]
) -> tuple[Scan, Complex[NDArray[np.complex64], "h w"]]:
    """Return a scan and a truth that belong together, in the standard gauge.

    It warns as `require_sound` and `warn_of_truth` do.

    Raises
    ------
    StudyError
        If the truth is not complex, finite and of the size of the object's grid, or the probe
        through it gives other numbers of photons than were counted.
    """
    scan, truth = gauged_truth(scan, truth)
    expected = _expected_photons(scan, truth) / len(scan)
    counted = scan.photons_per_frame
    if abs(expected - counted) > TRUTH_TOLERANCE * counted:
        problem = f"probe and truth give {expected:.4g} photons per frame, but {counted:.4g} are counted"
        hint = "give the truth and the probe in the gauge in which the scan was simulated"
        raise StudyError("truth", problem, hint)
    scan = require_sound(scan, stacklevel=5)
    warn_of_truth(scan, truth, stacklevel=5)
    return scan, truth


def _expected_photons(scan: Scan, obj: Complex[NDArray[np.complex64], "h w"]) -> float:
    """Return the photons of all frames that pixels which count are expected to count."""
    if scan.mask is None and scan.background is None:
        light = illumination(scan.probe, scan.positions_px, scan.object_shape)
        return float((light * np.abs(obj) ** 2).sum())
    model, total = scan.model, 0.0
    with torch.no_grad():
        for frames in model.batches():
            expected = model.expected(torch.from_numpy(obj), frames)
            blind = torch.zeros_like(expected)
            total += float(model.pixels(frames).filled(expected, blind).double().sum())
    return total


def warn_of_truth(scan: Scan, truth: NDArray[np.complex64], stacklevel: int) -> None:
    """Warn of a truth (y, x) that is turned, conjugated or shifted against the frames of its scan."""
    if doubt := orientation_doubt(scan, truth):
        warnings.warn(f"truth: {doubt}", stacklevel=stacklevel)


def tells_orientation(scan: Scan, obj: NDArray[np.complex64]) -> bool:
    """Return whether there are frames to be told apart, and an object that is no constant stand-in."""
    return len(scan) > 1 and bool(np.ptp(np.abs(obj)) + np.ptp(np.angle(obj)) > 0)


def best_of(found: list[Orientation]) -> Orientation:
    """Return the orientation that explains the frames best, the first unless another is surely better.

    Of those that come within `LEAST_GAIN` of the best, as of a probe with a symmetry, it is
    the one with the fewest changes.
    """
    given = found[0]
    enough = min(each.misfit for each in found) / (1 - LEAST_GAIN)
    best = min((each for each in found if each.misfit <= enough), key=lambda each: len(each.changes))
    gain = given.by_frame - best.by_frame
    error = gain.std(ddof=1) / len(gain) ** 0.5
    surely = best.misfit < (1 - LEAST_GAIN) * given.misfit and gain.mean() > LEAST_DEVIATIONS * error
    return best if surely else given


def orientations(scan: Scan, obj: NDArray[np.complex64]) -> list[Orientation]:
    """Compare some frames with the object's under every orientation; the first is the file's own.

    Tried are positions with axes swapped and inverted, the probe's conjugate, frames
    transposed, flipped and shifted by half their side, and positions of the frame before,
    of the one after and in reverse, each with each other. There must be two frames at least;
    the power of the probe is of no account.
    """
    few, many = FRAMES_COMPARED
    wanted = min(max(PIXELS_COMPARED // scan.probe.size, few), many)
    chosen = np.unique(np.linspace(0, len(scan) - 1, min(wanted, len(scan))).round().astype(np.int64))
    counting = scan.always_counting[None].astype(np.float32)
    background = np.float32(0) if scan.background is None else scan.background
    seen = list(_frames(scan.counts, background, chosen, counting))
    roots = np.stack([array.reshape(len(chosen), -1) for _, array, _ in seen], axis=1)
    masks = np.stack([mask.ravel() for _, _, mask in seen])
    photons = (roots.astype(np.float64) ** 2).sum(axis=2)
    counts = roots[:, 0] ** 2
    others = (counts.sum(axis=0) - counts) / (len(chosen) - 1)
    reference = float(((roots[:, 0] - np.sqrt(others)) ** 2).sum(dtype=np.float64))
    found: list[Orientation] = []
    for changes, expected in _expected(scan, obj, chosen):
        expected = expected.reshape(len(chosen), -1)
        power = expected**2 @ masks.T
        scale = np.sqrt(photons[:, 0].sum() / np.maximum(power.sum(axis=0, dtype=np.float64), 1e-30))
        cross = np.matmul(roots, expected[:, :, None])[..., 0]
        misfit = photons + scale**2 * power - 2 * scale * cross
        for (turns, _, _), by_frame in zip(seen, misfit.T.astype(np.float64), strict=True):
            part = float(by_frame.sum()) / max(reference, 1e-30)
            found.append(Orientation((*changes, *turns), part, by_frame))
    return found


def _frames(
    counts: FrameArray,
    background: np.float32 | NDArray[np.float32],
    chosen: Int[NDArray[np.int64], " frame"],
    counting: Roots,
) -> Iterator[tuple[tuple[TurnName, ...], Roots, Roots]]:
    """Yield the roots of some frames in every layout, with a mask (1, y, x), and others as they are."""

    def of(rows: NDArray[np.int64]) -> Roots:
        return np.sqrt(np.maximum(counts[rows] - background, 0) * counting)

    roots = of(chosen)
    for turns in subsets(FRAME_TURNS):
        yield turns, turned(roots, turns), turned(counting, turns)
    others = (chosen + 1) % len(counts), chosen - 1, len(counts) - 1 - chosen
    for name, rows in zip(ORDER_TURNS, others, strict=True):
        yield (name,), of(rows), counting


def _expected(
    scan: Scan, obj: NDArray[np.complex64], chosen: NDArray[np.int64]
) -> Iterator[tuple[tuple[TurnName, ...], Roots]]:
    """Yield the roots of expected frames for every orientation of positions and probe that fits the grid."""
    for turns in subsets((*POSITION_TURNS, "conjugate_probe")):
        positions = scan.positions_px[:, ::-1] if "swap_positions" in turns else scan.positions_px
        middle = positions.min(axis=0) + positions.max(axis=0)
        inverted = ["invert_y" in turns, "invert_x" in turns]
        positions = np.where(inverted, middle - positions, positions)[chosen]
        probe = torch.from_numpy(scan.probe.conj() if "conjugate_probe" in turns else scan.probe)
        try:
            model = ScanModel(probe.resolve_conj(), positions, scan.object_shape)
        except ValueError:  # another grid
            continue
        with torch.no_grad():
            expected = model.expected(torch.from_numpy(obj), slice(0, len(chosen))).sqrt().numpy()
        yield turns, expected
