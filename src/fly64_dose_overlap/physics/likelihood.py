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

from fly64_dose_overlap.arrays import FrameArray
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.physics.propagation import intensity
from fly64_dose_overlap.physics.sweep import sweep

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
    counts: FrameArray,
    obj: Complex[Tensor, "h w"],
    background: float = BACKGROUND_PHOTONS,
) -> tuple[float, Complex[Tensor, "h w"]]:
    """Return the negative log likelihood of an object under all frames, and its gradient.

    Parameters
    ----------
    counts : (frame, y, x) float, photons
        Zero frequency at [N/2, N/2].
    obj : (y, x) complex
    background : float, photons

    Returns
    -------
    value : float, nats
        Half the deviance: less the value of the saturated model, which only depends on the counts.
    gradient : (y, x) complex
        The value changes by the real part of sum conj(gradient) change.
    """
    if _fits_sweep(obj):
        value, found = sweep(model, counts, obj, background, gradient=True)
        assert found is not None
        return value, found
    value, gradient = 0.0, model.blank(obj.dtype)
    for frames in model.batches():
        field = model.far_field(obj, frames)
        pixels = model.pixels(frames)
        expected = pixels.expected(intensity(field).sum(dim=1))
        seen = pixels.filled(torch.from_numpy(counts[frames]).to(field.device), expected)
        value += float(poisson_deviance(expected, seen, background)) * seen.numel() / 2
        weight = 2 - 2 * (seen + background) / (expected + background)
        model.back_project(field * weight[:, None], frames, gradient)
    return value, gradient


def scan_deviance(
    model: ScanModel,
    counts: FrameArray,
    obj: Complex[Tensor, "h w"],
    background: float = BACKGROUND_PHOTONS,
) -> float:
    """Return the mean Poisson deviance per pixel that counts of an object under all frames, shifted."""
    pixels = model.detector.counting(model.frames, model.side)
    if _fits_sweep(obj):
        return 2 * sweep(model, counts, obj, background, gradient=False)[0] / pixels
    total = 0.0
    for frames in model.batches():
        expected = model.expected(obj, frames)
        seen = model.pixels(frames).filled(torch.from_numpy(counts[frames]).to(obj.device), expected)
        total += float(poisson_deviance(expected, seen, background)) * seen.numel()
    return total / pixels


def _fits_sweep(obj: Tensor) -> bool:
    return obj.device.type == "cpu" and obj.dtype == torch.complex64
