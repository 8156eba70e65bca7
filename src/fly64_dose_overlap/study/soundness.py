"""Whether counts, probe, object and truth can belong together: what a scan may get wrong.

What makes arrays a dataset at all is checked when they are read (`files.rules`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, median_filter

from fly64_dose_overlap.config import NOTHING_TO_MEND, MendParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import BaseSet
from fly64_dose_overlap.files.mending import MOST_NAMED, frames_line, pixels_line, turn_line
from fly64_dose_overlap.files.rules import MASK_THEM
from fly64_dose_overlap.physics.illumination import bare_far_field
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.study.gauge import lit_pixels

LIKELY_TRANSMISSION = (0.1, 1.5)
"""Photons counted over photons of the probe: an object lets a part of them through."""
LEAST_PART = 0.5
"""Of the bare probe's light that pixels which count must see, for photons to be compared with it."""
LIT_PHOTONS = 500
"""Mean photons of a frame from which on chance leaves none, be it a hundred times dimmer, without any."""
OUTLIER = 30
"""A detector pixel with so many times the photons of its neighbours and of the bare probe is hot, and a
frame with so many times those of nine tenths of the frames too bright: scans have up to 4 and 2 times."""
EVEN = 0.01
"""Part of the probe's power that may lie further out than an even one's."""
FEW_PHOTONS = 50
"""What a count may exceed by chance."""
SURE_PHOTONS = 300
"""Where the bare probe sends so many, an object leaves some."""
MOST_BLIND = 0.5
"""Part of the pixels that a mask may leave out before it is taken for one that is inverted."""
MOST_AT_TOP, NEAR_TOP = 10, 0.9
"""Counts that may be the largest of all, and from which part of it on a count is near it: of those there are
more, unless the detector saturates."""
CHANCE = 1e-6
"""That a scan of Poisson counts is refused since a pixel counted the same in every frame."""
MOST_COUNTS = 2.0**53
"""Of a pixel: what is more is no whole number in double precision."""


class _Photons(NamedTuple):
    """What one pass over the frames finds: sums of the counts, the least and the largest of each pixel."""

    by_frame: Float[NDArray[np.float64], " frame"]
    by_pixel: Float[NDArray[np.float64], "y x"]
    low: Float[NDArray[np.float32], "y x"]
    high: Float[NDArray[np.float32], "y x"]
    divisor: int
    """Greatest common divisor of all counts."""
    at_top: int
    """Counts that are the largest of all."""
    near_top: int
    """Counts below that by no more than a tenth."""


def require_sound(scan: Scan, *, stacklevel: int = 4) -> Scan:
    """Refuse counts that are no Poisson counts, and warn of what else `defects` finds, once for each.

    Returns
    -------
    Scan
        Without what the detector left in pixels that do not count.

    Raises
    ------
    StudyError
        As `defects`.
    """
    for message in defects(scan):
        warnings.warn(message, stacklevel=stacklevel)
    return scan.cleared()


def defects(scan: Scan, *, probe_in_photons: bool = True, mend: MendParams = NOTHING_TO_MEND) -> list[str]:
    """Return what speaks against counts and probe of a scan, each in one line; one pass over the frames.

    Parameters
    ----------
    probe_in_photons : bool
        Whether the power of the probe must be that of the counts. It may have any unit in a
        base set, from which a study simulates frames at doses of its own.
    mend : MendParams
        What was mended as the file was read.

    Raises
    ------
    StudyError
        If a count is not finite, negative or no whole number, which thinning would hide, a detector
        pixel counts the same in every frame, or there is no photon at all.
    """
    photons = _add_up(scan)
    if not photons.by_frame.any():
        problem = f"there is no photon in {len(scan)} frames"
        raise StudyError("counts", problem, "nothing can be reconstructed")
    # No number is a count of more than a part 0.4 / sqrt(n) of all frames: that of the mode of a
    # Poisson variable of mean n.
    constant = (photons.low == photons.high) & (photons.low > 0)
    chance = len(scan) * np.log(0.4 / np.sqrt(np.maximum(photons.low, 1)))
    stuck = np.argwhere(constant & (chance < np.log(CHANCE / constant.size)))
    if len(stuck):
        y, x = stuck[0]
        problem = f"{len(stuck)} pixels hold the same value in all {len(scan)} frames"
        example = f"such as [{y}, {x}] with {photons.low[y, x]:.10g}: a mask?"
        hint = _masked(stuck, "these", scan, mend)
        raise StudyError("counts", f"{problem}, {example}", hint)
    usual = np.quantile(photons.by_frame, 0.9)
    bright = (photons.by_frame > OUTLIER * usual + FEW_PHOTONS) & (usual > 0)
    # Of a frame that is too bright, single pixels outshine all others.
    found = [
        *(() if bright.any() else _odd_pixels(scan, photons.by_pixel, mend)),
        *off_centre(scan.probe, mend),
    ]
    blind = 1 - float(scan.counting_part.mean())
    if blind > MOST_BLIND:
        found.append(
            f"{blind:.0%} of the pixels do not count: a mask is true where a pixel counts; is it inverted? "
            "base.fields takes one that is true where none does under the name bad"
        )
    top = float(photons.high.max())
    saturated = photons.at_top > max(MOST_AT_TOP, photons.near_top) and top > FEW_PHOTONS
    if saturated and photons.divisor < 2:
        found.append(
            f"{photons.at_top} counts are {top:.10g}, and none is more: the detector saturates there, and "
            "what it lacks is taken for the object's; measure with less light"
        )
    powers = (np.abs(scan.probe.astype(np.complex128)) ** 2).sum(axis=(1, 2))
    if not powers.all():
        found.append(f"probe mode {int(np.argmin(powers))} is zero everywhere: leave it out")
    if len(scan) > 1 and (span := float(np.ptp(scan.positions_px, axis=0).max())) < 1:
        found.append(
            f"all {len(scan)} frames lie within {span:.3g} object pixels: where positions have another unit, "
            "state it, base.fields: {frames: NAME, y: NAME, x: NAME, unit: um, probe: NAME, "
            "object_pixel_m: 2e-8}"
        )
    if photons.divisor > 1:
        found.append(
            f"every count is a multiple of {photons.divisor}, and noise is that of photons: state "
            f"base.counts_per_photon: {photons.divisor}"
        )
    if bright.any():
        worst = int(np.argmax(photons.by_frame))
        found.append(
            f"{bright.sum()} of {len(scan)} frames are far brighter than the others, such as frame "
            f"{scan.scan_index[worst]} with {photons.by_frame[worst]:.4g} photons for "
            f"{np.median(photons.by_frame):.4g}: leave {'it' if bright.sum() == 1 else 'them'} out, "
            f"{frames_line(scan.scan_index[bright], mend)}"
        )
    counted, sent = float(photons.by_frame.mean()), _power(scan.probe)
    dark = np.flatnonzero((photons.by_frame == 0) & _lit_frames(scan))
    if len(dark) and counted > LIT_PHOTONS:
        found.append(
            f"{len(dark)} of {len(scan)} frames hold no photon, the first is {scan.scan_index[dark[0]]}, but "
            f"a frame holds {counted:.4g} on average: where the beam was off, "
            f"leave them out, {frames_line(scan.scan_index[dark], mend)}"
        )
    low, high = LIKELY_TRANSMISSION
    seen = scan.counting_part
    if scan.background is not None:
        dark_photons = float((scan.background * seen).sum())
        if dark_photons > counted:
            found.append(
                f"the background has {dark_photons:.4g} photons per frame, more than the {counted:.4g} "
                "counted: is it of one frame, and in photons?"
            )
            return found
        counted -= dark_photons
    # Of the bare probe's light; an object may send more of it behind a mask that hides most.
    part = float((bare_far_field(scan.probe) * seen).sum()) / sent if sent else 0.0
    known = probe_in_photons and part >= LEAST_PART
    if known and not low * part * sent <= counted <= high * part * sent:
        found.append(
            f"the probe carries {sent:.4g} photons per frame but {counted:.4g} are counted: scale the probe, "
            "whose squared modulus sums to the photons that fall on the object"
        )
    return found


def remarks_on_object(base: BaseSet) -> list[str]:
    """Return what a user may not expect of an object that becomes the truth, each in one sentence.

    Raises
    ------
    StudyError
        If the object is the same everywhere, a stand-in for its grid.
    """
    if not np.ptp(np.abs(base.obj)) + np.ptp(np.angle(base.obj)):
        hint = "fdo.read_scan and fdo.agreement reconstruct frames that were measured"
        raise StudyError("object", "is the same everywhere: there is nothing to simulate", hint)
    from skimage.restoration import unwrap_phase

    lit = lit_pixels(base.probe, base.positions_px, base.obj.shape)
    largest = float(np.abs(base.obj[lit]).max())
    span = float(np.ptp(unwrap_phase(np.ma.array(np.angle(base.obj), mask=~lit))[lit]))
    found: list[str] = []
    if largest > 1 + 1e-3:
        found.append(
            f"the object's modulus reaches {largest:.3g}, and no transmission exceeds 1: its scale is moved "
            "into the probe"
        )
    if span > 2 * np.pi:
        found.append(
            f"the object's phase spans {span:.3g} rad, more than 2 pi: scores compare phases in (-pi, pi]"
        )
    return found


def _add_up(scan: Scan) -> _Photons:
    by_frame: list[NDArray[np.float64]] = []
    by_pixel = np.zeros((scan.side, scan.side))
    low, high = np.full(by_pixel.shape, np.inf, np.float32), np.zeros(by_pixel.shape, np.float32)
    divisor = first = at_top = near_top = 0
    top = np.float32(0)
    for counts in scan.blocks():
        block = counts.astype(np.result_type(counts, np.float32), copy=False)
        for rule, bad in (
            ("finite", ~np.isfinite(block)),
            ("not negative", block < 0),
            ("whole numbers", block != np.rint(block)),
            (f"at most {MOST_COUNTS:.3g}", block > MOST_COUNTS),
        ):
            if bad.any():
                frame, y, x = np.argwhere(bad)[0]
                found = f"frame {first + frame} has {block[frame, y, x]} at [{y}, {x}]"
                hint = "give counted photons: the likelihood and the division of photons rest on them"
                raise StudyError("counts", f"must be {rule}, but {found}", hint)
        first += len(block)
        by_frame.append(block.sum(axis=(1, 2), dtype=np.float64))
        by_pixel += block.sum(axis=0, dtype=np.float64)
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
        largest = block.max(initial=0)
        if largest > top:
            # Of a block whose largest count is far below that of another nothing is near.
            near_top = at_top = 0
            top = largest
        at_top += int(np.count_nonzero(block == top))
        near_top += int(np.count_nonzero((block >= NEAR_TOP * top) & (block < top)))
        if divisor != 1:
            divisor = int(np.gcd.reduce(block.astype(np.int64), axis=None, initial=divisor))
    return _Photons(np.concatenate(by_frame), by_pixel, low, high, divisor, at_top, near_top)


def _odd_pixels(scan: Scan, photons: NDArray[np.float64], mend: MendParams) -> Iterator[str]:
    """Tell of detector pixels with far more or far fewer photons than others let expect."""
    around = np.ones((3, 3), dtype=bool)
    around[1, 1] = False
    counting = scan.counting_part > 0
    nearest: Any = distance_transform_edt(~counting, return_distances=False, return_indices=True)
    neighbours = median_filter(photons[*nearest], footprint=around, mode="nearest")
    # The far field of the bare probe, which an object spreads out.
    bare = bare_far_field(scan.probe) * (photons.sum() / _power(scan.probe))
    hot = photons > OUTLIER * np.maximum(neighbours, bare) + FEW_PHOTONS
    if hot.any():
        y, x = np.unravel_index(np.argmax(hot * photons), hot.shape)
        yield (
            f"{hot.sum()} detector pixels are far brighter than their neighbours, such as [{y}, {x}] with "
            f"{photons[y, x]:.4g} photons over all frames for {neighbours[y, x]:.4g}: "
            f"{_masked(np.argwhere(hot), 'hot ones', scan, mend)}"
        )
    dark = (photons == 0) & (bare > SURE_PHOTONS) & counting
    if dark.any():
        y, x = np.unravel_index(np.argmax(dark * bare), dark.shape)
        yield (
            f"{dark.sum()} detector pixels count no photon, such as [{y}, {x}], where the probe alone sends "
            f"{bare[y, x]:.4g}: {_masked(np.argwhere(dark), 'dead ones', scan, mend)}, or, if the zero "
            f"frequency is not at [N/2, N/2], {turn_line(['shift_frames'], mend)}"
        )


def _masked(pixels: NDArray[np.intp], which: str, scan: Scan, mend: MendParams) -> str:
    """Say how pixels (pixel, 2) are masked."""
    if len(pixels) > MOST_NAMED:
        return f"{MASK_THEM} at {which}"
    return f"mask {'it' if len(pixels) == 1 else 'them'}, {pixels_line(pixels, scan.side, mend)}"


def _lit_frames(scan: Scan) -> NDArray[np.bool_]:
    """Return the frames (frame,) of which a mask leaves any pixel."""
    if scan.mask is None or scan.mask.ndim == 2:
        return np.ones(len(scan), bool)
    return np.logical_or.reduce(np.asarray(scan.mask), axis=(1, 2))


def off_centre(probe: NDArray[np.complex64], mend: MendParams = NOTHING_TO_MEND) -> Iterator[str]:
    """Tell of a probe (mode, y, x) whose power lies at the edge of its frame."""
    power = (np.abs(probe.astype(np.complex128)) ** 2).sum(axis=0)
    side = len(power)
    inwards = np.cos(2 * np.pi * (np.arange(side) - side // 2) / side)
    edges = [
        name for axis, name in ((1, "y"), (0, "x")) if inwards @ power.sum(axis=axis) < -EVEN * power.sum()
    ]
    if edges:
        hint = f"state {turn_line(['shift_probe'], mend)}" if len(edges) == 2 else "roll it to the middle"
        yield (
            f"the probe's power lies at the edge of its frame along {' and '.join(edges)}: {hint}, or take "
            "a larger frame"
        )


def _power(probe: NDArray[np.complex64]) -> float:
    return float((np.abs(probe.astype(np.complex128)) ** 2).sum())
