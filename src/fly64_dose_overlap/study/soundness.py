"""Whether counts, probe and truth can belong together: what a scan made by hand may get wrong.

What is in datasets is checked when these are read (`files.rules`).
"""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Complex
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import FrameArray
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.physics.illumination import illumination
from fly64_dose_overlap.physics.thinning import FRAMES_PER_BLOCK
from fly64_dose_overlap.scan import Scan

LIKELY_TRANSMISSION = (0.1, 1.5)
"""Photons counted over photons of the probe: an object lets a part of them through."""
ROOT_ERROR = 4e-7
"""Relative error of a count whose square root was kept in single precision, at most."""
LIT_PHOTONS = 50
"""Mean photons of a frame from which on chance leaves none without any."""
TRUTH_TOLERANCE = 0.2
"""Relative difference of the photons that a truth expects from those that were counted."""


def whole_counts(where: str, amplitude: FrameArray) -> NDArray[np.float32]:
    """Return the photons of measured amplitudes, which are whole but for the rounding of their roots.

    Raises
    ------
    StudyError
        If a square is no whole number: rounding would make other frames of densities,
        of frames that were normalised, and of amplitudes that pass for counts.
    """
    counts = np.empty(amplitude.shape, np.float32)
    for first in range(0, len(amplitude), FRAMES_PER_BLOCK):
        block = slice(first, first + FRAMES_PER_BLOCK)
        with np.errstate(over="ignore", invalid="ignore"):
            photons = np.square(amplitude[block])
            whole = np.rint(photons, out=counts[block])
            bad = np.argwhere(~(np.abs(photons - whole) <= ROOT_ERROR * np.maximum(photons, 1)))
        if len(bad):
            frame, y, x = (int(index) for index in bad[0])
            found = f"frame {first + frame} has {photons[frame, y, x]:.4g} at [{y}, {x}]"
            hint = "scale them to photons, round, and name them counts; diffraction holds square roots"
            raise StudyError(where, f"frames must be counted photons, but {found}", hint)
    return counts


def require_sound(scan: Scan) -> None:
    """Refuse counts that are no Poisson counts; warn of dark frames, and of a probe of another power.

    Raises
    ------
    StudyError
        If a count is not finite, negative or no whole number, which thinning would hide, or there
        is no photon at all.
    """
    total = 0.0
    dark: list[int] = []
    for first in range(0, len(scan), FRAMES_PER_BLOCK):
        block = np.asarray(scan.counts[first : first + FRAMES_PER_BLOCK])
        for rule, bad in (
            ("finite", ~np.isfinite(block)),
            ("not negative", block < 0),
            ("whole numbers", block != np.rint(block)),
        ):
            if bad.any():
                frame, y, x = (int(index) for index in np.argwhere(bad)[0])
                raise StudyError(
                    "counts",
                    f"must be {rule}, but frame {first + frame} has {block[frame, y, x]} at [{y}, {x}]",
                    "give counted photons: the likelihood and the division of photons rest on them",
                )
        total += float(block.sum(dtype=np.float64))
        dark += [first + int(frame) for frame in np.flatnonzero(~block.any(axis=(1, 2)))]
    if total == 0:
        raise StudyError(
            "counts", f"there is no photon in {len(scan)} frames", "nothing can be reconstructed"
        )
    counted, sent = total / len(scan), float((np.abs(scan.probe) ** 2).sum(dtype=np.float64))
    if dark and counted > LIT_PHOTONS:
        warnings.warn(
            f"{len(dark)} of {len(scan)} frames hold no photon, the first is {dark[0]}, but a frame holds "
            f"{counted:.4g} on average: where the beam was off, leave them out (scan.frames)",
            stacklevel=4,
        )
    low, high = LIKELY_TRANSMISSION
    if not low * sent <= counted <= high * sent:
        warnings.warn(
            f"the probe carries {sent:.4g} photons per frame but {counted:.4g} are counted: scale the probe, "
            "whose squared modulus sums to the photons that fall on the object",
            stacklevel=4,
        )


def require_truth(scan: Scan, truth: NDArray[np.complex64]) -> Complex[NDArray[np.complex64], "h w"]:
    """Return a truth that belongs to a scan.

    Raises
    ------
    StudyError
        If it is not complex, finite and of the size of the object's grid, or the probe through it
        gives other numbers of photons than were counted.
    """
    if np.shape(truth) != scan.object_shape:
        raise StudyError(
            "truth", f"has the shape {np.shape(truth)}, but the object's grid is {scan.object_shape}"
        )
    if not np.iscomplexobj(truth) or not np.isfinite(truth).all():
        raise StudyError(
            "truth", "must be complex and finite", "give the transmission, not its modulus or phase"
        )
    light = illumination(scan.probe, scan.positions_px, scan.object_shape)
    expected = float((light * np.abs(truth) ** 2).sum()) / len(scan)
    counted = scan.photons_per_frame
    if abs(expected - counted) > TRUTH_TOLERANCE * counted:
        raise StudyError(
            "truth",
            f"probe and truth give {expected:.4g} photons per frame, but {counted:.4g} are counted",
            "give the truth and the probe in the gauge in which the scan was simulated",
        )
    return np.asarray(truth, np.complex64)
