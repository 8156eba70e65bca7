"""How well expected intensity explains counted photons.

Most pixels count no photon, and a logarithm or a ratio of nearly nothing would decide a
fit. So a background b is added, to the expected photons and to the counted ones: the
shifted Poisson model (Snyder, Hammoud and White, J. Opt. Soc. Am. A 10, 1014, 1993). Its
mean gradient, (I - I_true) / (I + b), vanishes at the truth for every b. With b added to
the expected photons alone it would not: where photons are few an object that scatters
less would be preferred, down to nothing.
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from fly64_dose_overlap.physics.counts import Counts
from fly64_dose_overlap.physics.propagation import intensity
from fly64_dose_overlap.physics.scan import ScanModel

BACKGROUND_PHOTONS = 0.1
"""Added to expected and counted photons, see above."""


def poisson_deviance(
    expected: Float[Tensor, "*batch y x"],
    counts: Float[Tensor, "*batch y x"],
    background: float = BACKGROUND_PHOTONS,
) -> Float[Tensor, ""]:
    """Return the mean Poisson deviance per pixel, both sides shifted by a background.

    Twice the negative log likelihood, less that of the saturated model. It has the
    gradient of the likelihood, is about one where the model is right and photons are
    many, and stays of order one at any dose, so that an optimiser's epsilon never
    swallows it.

    Parameters
    ----------
    expected : (..., y, x) float, photons
    counts : (..., y, x) float, photons
    background : float, photons, > 0
    """
    rate, seen = expected + background, counts + background
    return 2 * (rate - seen + seen * (seen.log() - rate.log())).mean()


def amplitude_error(
    expected: Float[Tensor, "*batch y x"],
    counts: Float[Tensor, "*batch y x"],
    background: float = BACKGROUND_PHOTONS,
) -> Float[Tensor, ""]:
    """Return the mean absolute error of amplitudes, both shifted by a background, sqrt(photons)."""
    return ((expected + background).sqrt() - (counts + background).sqrt()).abs().mean()


def scan_likelihood(
    model: ScanModel,
    counts: Counts,
    obj: Complex[Tensor, "h w"],
    background: float = BACKGROUND_PHOTONS,
) -> tuple[float, Complex[Tensor, "h w"]]:
    """Return the negative log likelihood of an object under all frames, and its gradient.

    Parameters
    ----------
    model : ScanModel
    counts : Counts
    obj : (y, x) complex
    background : float, photons

    Returns
    -------
    value : float, nats
        Sum of I + b - (n + b) log(I + b), which leaves out what only depends on the counts.
    gradient : (y, x) complex
        The value changes by the real part of sum conj(gradient) change.
    """
    value = 0.0
    gradient = model.blank(obj.dtype)
    for frames in model.batches():
        field = model.far_field(obj, frames)
        rate = intensity(field).sum(dim=1) + background
        seen = counts[frames].to(rate.device) + background
        value += float(rate.sum(dtype=torch.float64) - (seen * rate.log()).sum(dtype=torch.float64))
        model.back_project(field * (2 - 2 * seen / rate)[:, None], frames, gradient)
    return value, gradient[:-1, :-1]


def scan_deviance(
    model: ScanModel,
    counts: Counts,
    obj: Complex[Tensor, "h w"],
    background: float = BACKGROUND_PHOTONS,
) -> float:
    """Return the mean Poisson deviance per detector pixel of an object under all frames, shifted."""
    total = 0.0
    for frames in model.batches():
        share = (frames.stop - frames.start) / model.frames
        expected = model.expected(obj, frames)
        total += share * float(poisson_deviance(expected, counts[frames].to(expected.device), background))
    return total


def r_factor(model: ScanModel, counts: Counts, obj: Complex[Tensor, "h w"]) -> float:
    """Return the Fourier R-factor: sum of abs(sqrt(n) - sqrt(I)) over the sum of sqrt(n).

    The measure of fit of measured frames, which have no ground truth. Noise alone gives
    about 0.4 over the mean amplitude, so that it cannot be compared between doses.

    Parameters
    ----------
    model : ScanModel
    counts : Counts
    obj : (y, x) complex
    """
    apart = seen = 0.0
    for frames in model.batches():
        measured = counts[frames].sqrt()
        expected = model.expected(obj, frames).sqrt()
        apart += float((measured - expected).abs().sum(dtype=torch.float64))
        seen += float(measured.sum(dtype=torch.float64))
    return apart / seen
