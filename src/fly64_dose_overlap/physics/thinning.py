"""Divide counted photons into independent Poisson sets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import FrameArray, Spool

FRAMES_PER_BLOCK = 256


def thin(counts: NDArray[np.float32], fraction: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Keep each photon with probability ``fraction``.

    Parameters
    ----------
    counts : (...) float, photons
        Whole numbers.

    Returns
    -------
    (...) float32, photons
        Poisson with ``fraction`` of the mean, and independent of ``counts`` less the
        result, if ``counts`` is Poisson.
    """
    kept = np.zeros(counts.shape, np.float32)
    lit = counts > 0
    kept[lit] = rng.binomial(counts[lit].astype(np.int64), fraction)
    return kept


def divide(counts: FrameArray, fraction: float, rng: np.random.Generator) -> tuple[FrameArray, FrameArray]:
    """Divide the photons of a scan into two independent sets, block by block.

    Parameters
    ----------
    counts : (frame, y, x) float, photons
        Whole numbers.
    fraction : float
        Expected part of the first set.

    Returns
    -------
    first, second : (frame, y, x) float32, photons
        On disk, in temporary files without a name.
    """
    first, second = Spool(counts.shape, np.float32), Spool(counts.shape, np.float32)
    for start in range(0, len(counts), FRAMES_PER_BLOCK):
        block = np.asarray(counts[start : start + FRAMES_PER_BLOCK], np.float32)
        kept = thin(block, fraction, rng)
        first.append(kept)
        second.append(block - kept)
    return first.finish(), second.finish()
