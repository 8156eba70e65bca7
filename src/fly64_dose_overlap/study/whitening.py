"""Counts of a detector that shares charge, made counts that scatter as those of photons do.

A photon or electron makes now more and now fewer units of the detector, some of them in the
pixels beside its own. Frames divided by the root of their noise spectrum have noise of the same
power at all frequencies, that of photons; rounded with no light lost, they may be thinned.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft as scipy_fft
from scipy import ndimage
from scipy.spatial import KDTree  # pyright: ignore[reportMissingTypeStubs]

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.study.dispersion import Dispersion, dimmest, dispersion, overlaid

REACH_PX = 2
"""How far along each axis charge comes."""
FEWEST_PIXELS, LEAST_UNITS = 200, 30
"""Noise is measured in so many of the dimmest pixels at least, of those that hold so many units in all
frames."""
FURTHEST_PX = 4
"""How far apart pixels are looked at."""
MOST_SHARED = 0.3
"""Of the variance of a pixel, by the object."""
LEAST_POWER = 0.05
"""Of the noise spectrum, over that of frequency zero: finer light is not brought back."""
MARGIN = 1.3
"""Of units by the noise spectrum, over those by single pixels and their neighbours."""
MOST_OWED = 4.0
"""Photons that rounding hands on to neighbouring pixels at most."""
FRAMES_PER_BLOCK = 256
# Unlike numpy's it keeps single precision.
fft: Any = scipy_fft
REMEDY = "state base.noise: counts and base.counts_per_photon"


class Whitened(NamedTuple):
    """A scan with counts of photons, and what was found of the detector's own."""

    scan: Scan
    units: float
    """Of the detector, that scatter as one photon does."""
    before: Dispersion
    after: Dispersion


def whitened(scan: Scan, where: str) -> Whitened:
    """Return a scan with counts of photons, made of those of a detector.

    Their noise spectrum is measured, see `noise_covariance`. Pixels that a mask leaves out in any
    frame are left out in all.

    Raises
    ------
    StudyError
        If the counts of the frames, which ``where`` names, scatter as photons do already, or have too
        few dim pixels for their noise to be measured.
    """
    before = dispersion(scan)
    if before is not None and not before.doubt:
        found = f"Fano factor {before.fano:.2f}, {before.neighbours:.2f} shared by neighbours"
        raise StudyError(where, f"counts scatter as photons do ({found})", "state base.noise: counts")
    covariance = noise_covariance(scan, where)
    units = float(covariance.sum())
    # The four pixels beside one share as much with it, and the four at its corners no more.
    most = 0.0 if before is None else MARGIN * (before.fano + 8 * max(before.neighbours, 0.0))
    if before is None or not 1 <= units <= most:
        fano = "unknown" if before is None else f"{before.fano:.3g}"
        problem = (
            f"{units:.3g} units scatter as a photon by the noise spectrum, but the Fano factor is {fano}"
        )
        raise StudyError(where, f"{problem}: noise cannot be told from the object", REMEDY)
    side, margin = scan.side, 2 * REACH_PX
    padded = side + 2 * margin
    margins = (margin, margin)
    # Even, with the distance 0 first, so that its spectrum is real.
    kernel = np.zeros((padded, padded))
    kernel[: len(covariance), : len(covariance)] = covariance
    kernel = np.roll(kernel, (-REACH_PX, -REACH_PX), axis=(0, 1))
    power = np.maximum(np.fft.rfft2(kernel).real, LEAST_POWER * units)
    weights = (1 / np.sqrt(units * power)).astype(np.float32)
    edt: Any = ndimage.distance_transform_edt
    nearest = edt(~scan.always_counting, return_distances=False, return_indices=True)

    def filtered(images: NDArray[np.float32]) -> NDArray[np.float32]:
        images = np.pad(images[:, *nearest], ((0, 0), margins, margins), mode="symmetric")
        images = fft.irfft2(fft.rfft2(images) * weights, (padded, padded))
        return images[:, margin : margin + side, margin : margin + side]

    counts = np.empty(scan.counts.shape, np.float32)
    for first in range(0, len(scan), FRAMES_PER_BLOCK):
        block = slice(first, first + FRAMES_PER_BLOCK)
        counts[block] = rounded(filtered(scan.counts[block].astype(np.float32)))
    counts *= scan.always_counting
    background = scan.background
    if background is not None:
        background = np.maximum(filtered(background[None])[0], 0)
    mask = None if scan.mask is None else scan.always_counting
    made = replace(scan, counts=counts, mask=mask, background=background)
    after = dispersion(made)
    if after is None:
        problem = f"{made.photons_per_frame:.3g} photons a frame are left of {units:.3g} units each, too few"
        raise StudyError(where, problem, REMEDY)
    return Whitened(made, units, before, after)


def noise_covariance(scan: Scan, where: str) -> NDArray[np.float64]:
    """Return the covariance of the noise of two pixels over their mean, (dy, dx) up to `REACH_PX` each way.

    Each frame is compared with that measured next to it, of which the object is nearly the same, in
    pixels so dim that what the object does change, which goes by the square of the light, is less than
    noise. Of photons it is 1 at distance 0 and 0 elsewhere.

    Raises
    ------
    StudyError
        As `whitened`.
    """
    tree: Any = KDTree(scan.positions_px)
    nearest = tree.query(scan.positions_px, min(2, len(scan)))[1].reshape(len(scan), -1)
    # Of two frames at one position either may come first.
    beside = np.where(nearest[:, -1] == np.arange(len(scan)), nearest[:, 0], nearest[:, -1])
    reach = range(-FURTHEST_PX, FURTHEST_PX + 1)
    lags = [(dy, dx) for dy in reach for dx in reach if (dy, dx) >= (0, 0)]
    light = np.zeros((scan.side, scan.side))
    products = {lag: np.zeros_like(light[overlaid(*lag)[0]]) for lag in lags}
    for first in range(0, len(scan), FRAMES_PER_BLOCK):
        rows = np.arange(first, min(first + FRAMES_PER_BLOCK, len(scan)))
        counts = scan.counts[rows].astype(np.float32)
        light += counts.sum(axis=0, dtype=np.float64)
        change = counts - scan.counts[beside[rows]].astype(np.float32)
        for lag in lags:
            one, other = (change[:, *window] for window in overlaid(*lag))
            products[lag] += np.einsum("fyx,fyx->yx", one, other) / 2
    seen = scan.always_counting & (light >= LEAST_UNITS)
    found = np.zeros((len(reach), len(reach)))
    for (dy, dx), product in products.items():
        one, other = overlaid(dy, dx)
        both = seen[one] & seen[other]
        mean = np.sqrt(light[one] * light[other])[both]
        dim = dimmest(mean, FEWEST_PIXELS)
        if len(dim) < FEWEST_PIXELS:
            raise StudyError(
                where,
                f"has {len(dim)} lit pixels that count in every frame, too few to measure their noise in",
                REMEDY,
            )
        value = np.median(product[both][dim] / mean[dim])
        found[dy - reach[0], dx - reach[0]] = found[-dy - reach[0], -dx - reach[0]] = value
    y, x = np.meshgrid(reach, reach, indexing="ij")
    away = np.hypot(y, x)
    near = np.maximum(np.abs(y), np.abs(x)) <= REACH_PX
    # What pixels further apart share is the object's, which fades as they are further apart.
    slope, start = np.polyfit(away[~near], found[~near], 1)
    noise = (found - start - slope * away)[near].reshape(2 * REACH_PX + 1, -1)
    if noise.sum() <= 0:
        raise StudyError(where, "has frames that do not change: noise cannot be measured in them", REMEDY)
    if start > MOST_SHARED * found.max():
        raise StudyError(
            where,
            f"the object makes {start / found.max():.0%} of the variance of dim pixels: it changes too much "
            "from frame to frame for noise to be told from it",
            REMEDY,
        )
    return noise


def rounded(photons: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return whole numbers, none negative, for numbers of photons (frame, y, x): the light stays where it is.

    What is rounded off goes to pixels not yet rounded (Floyd and Steinberg, Proc. SID 17, 75, 1976).
    """
    _, height, width = photons.shape
    left = np.ascontiguousarray(photons.transpose(1, 2, 0))
    out = np.empty_like(left)
    for y in range(height):
        step = 1 if y % 2 == 0 else -1
        for x in range(width)[::step]:
            out[y, x] = np.maximum(np.rint(left[y, x]), 0)
            owed = np.clip(left[y, x] - out[y, x], -MOST_OWED, MOST_OWED)
            for dy, dx, part in ((0, step, 7), (1, -step, 3), (1, 0, 5), (1, step, 1)):
                if y + dy < height and 0 <= x + dx < width:
                    left[y + dy, x + dx] += owed * np.float32(part / 16)
    return out.transpose(2, 0, 1)
