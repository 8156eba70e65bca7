"""Losses between expected intensity and counted photons, of order one at every dose."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

BACKGROUND_PHOTONS = 0.1
"""Added to the expected intensity: most pixels count no photon, and a logarithm or a
ratio of nearly nothing would decide the fit."""


def poisson_deviance(
    expected: Float[Tensor, "*batch y x"],
    counts: Float[Tensor, "*batch y x"],
    background: float = BACKGROUND_PHOTONS,
) -> Float[Tensor, ""]:
    """Return the mean Poisson deviance per pixel.

    Twice the negative log likelihood, less that of the saturated model. It has the
    gradient of the likelihood, is about one where the model is right and photons are
    many, and stays of order one at any dose, so that an optimiser's epsilon never
    swallows it.

    Parameters
    ----------
    expected : (..., y, x) float, photons
    counts : (..., y, x) float, photons
    background : float, photons
    """
    rate = expected + background
    seen = counts.clamp_min(torch.finfo(counts.dtype).tiny)
    return 2 * (rate - counts + counts * (seen.log() - rate.log())).mean()


def amplitude_error(
    expected: Float[Tensor, "*batch y x"],
    counts: Float[Tensor, "*batch y x"],
    background: float = BACKGROUND_PHOTONS,
) -> Float[Tensor, ""]:
    """Return the mean absolute error of amplitudes, sqrt(photons)."""
    return ((expected + background).sqrt() - counts.sqrt()).abs().mean()
