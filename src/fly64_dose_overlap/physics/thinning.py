"""Divide counted photons into independent Poisson sets."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fly64_dose_overlap.physics.counts import Counts, Remainder, Store, StoredCounts, frame_blocks


def thin(
    counts: Float[Tensor, "*shape"], fraction: float, rng: np.random.Generator
) -> Float[Tensor, "*shape"]:
    """Keep each photon with probability ``fraction``.

    Parameters
    ----------
    counts : (...) float, photons
        Whole numbers.
    fraction : float
    rng : numpy.random.Generator

    Returns
    -------
    (...) float, photons
        Poisson with ``fraction`` of the mean, and independent of ``counts`` less the
        result, if ``counts`` is Poisson.
    """
    whole = counts.cpu().numpy().astype(np.int64)
    lit = whole > 0
    kept = np.zeros(whole.shape, np.float32)
    kept[lit] = rng.binomial(whole[lit], fraction)
    return torch.from_numpy(kept).to(counts.device)


def divide(counts: Counts, fraction: float, rng: np.random.Generator, store: Store) -> tuple[Counts, Counts]:
    """Divide the photons of a scan into two independent sets, block by block.

    Parameters
    ----------
    counts : Counts
        Whole numbers.
    fraction : float
        Expected part of the first set.
    rng : numpy.random.Generator
    store : callable
        Keeps the first set, of which the second is what is left.
    """
    blocks = (thin(block, fraction, rng).numpy() for block in frame_blocks(counts))
    part = StoredCounts(store(counts.shape, np.float32, blocks))
    return part, Remainder(counts, part)
