"""Divide counted photons into independent Poisson sets."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


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
