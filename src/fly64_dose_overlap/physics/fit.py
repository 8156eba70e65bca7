"""How well a reconstruction explains counted photons, where nobody knows the object.

Every figure stands beside its floor: what the same figure is of counts that are drawn from the
expected photons themselves, so that noise alone explains it. A model that is right reaches its
floor on photons that it has not seen; on those that it was fitted to it comes to lie a little below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.arrays import Brief, FrameArray
from fly64_dose_overlap.physics.likelihood import BACKGROUND_PHOTONS, poisson_deviance
from fly64_dose_overlap.physics.model import ScanModel

LEAST_TOLD, MOST_LEFT = 0.1, 0.3
"""By what part the deviance of the mean frame must exceed that of noise for frames to differ, and what part
of this an object that explains them may leave."""


@dataclass(frozen=True, eq=False, repr=False)
class Fit(Brief):
    """Misfit of expected and counted photons over the pixels that count.

    Attributes
    ----------
    photons : float
        Counted, in all frames.
    deviance, deviance_floor : float
        Mean Poisson deviance per pixel, both sides shifted by `BACKGROUND_PHOTONS`.
    r_factor, r_floor : float
        Sum of abs(sqrt(n) - sqrt(I)) over the sum of sqrt(n).
    chi_square : float
        Sum of (n - I)^2 / (I + b) over its expectation, the sum of I / (I + b); its floor is 1.
    divergence : float
        Kullback-Leibler divergence per photon of what is expected from what is true, up to
        chance: half of what the deviance exceeds its floor by, over the photons per pixel.
    by_frame : (frame,) float64
        Chi-square of each frame: a drift, or a beam that flickered, shows here.
    by_pixel : (y, x) float64
        Squared sum of n - I over all frames, over the sum of I, which is 1 on average: a mode that
        is missing, or a pixel that is dead, shows here.

    Those of chi-square are 0 where no photon is expected at all.
    """

    photons: float
    deviance: float
    deviance_floor: float
    r_factor: float
    r_floor: float
    chi_square: float
    divergence: float
    by_frame: Float[NDArray[np.float64], " frame"]
    by_pixel: Float[NDArray[np.float64], "y x"]


class _Sums:
    """What one pass adds up, of counts and of others drawn from the expected photons."""

    def __init__(self) -> None:
        self.deviance = self.apart = self.roots = 0.0

    def add(self, counts: Tensor, expected: Tensor) -> None:
        rate, seen = expected + BACKGROUND_PHOTONS, counts + BACKGROUND_PHOTONS
        self.deviance += 2 * float((rate - seen + seen * (seen / rate).log()).sum())
        self.apart += float((counts.sqrt() - expected.sqrt()).abs().sum())
        self.roots += float(counts.sqrt().sum())

    @property
    def r_factor(self) -> float:
        # A single photon makes 1.
        return self.apart / max(self.roots, 1.0)


def fit(model: ScanModel, counts: FrameArray, obj: Complex[Tensor, "h w"], rng: np.random.Generator) -> Fit:
    """Compare the expected photons of an object with counted ones.

    Parameters
    ----------
    model : ScanModel
        Its probe at the power of these counts, and its detector.
    counts : (frame, y, x) float, photons
    obj : (y, x) complex
    rng : Generator
        Draws the counts that the floors are those of.
    """
    found, floor = _Sums(), _Sums()
    photons, by_frame = 0.0, np.zeros((2, model.frames))
    residual, light = (np.zeros((model.side, model.side)) for _ in range(2))
    for frames in model.batches():
        pixels, expected = model.pixels(frames), model.expected(obj, frames).double()
        dark = torch.zeros_like(expected)
        seen = torch.from_numpy(np.asarray(counts[frames], np.float64))
        drawn = torch.from_numpy(rng.poisson(expected.numpy()).astype(np.float64))
        # Of a blind pixel no photon is counted, and none is expected.
        expected, seen, drawn = (pixels.filled(each, dark) for each in (expected, seen, drawn))
        found.add(seen, expected)
        floor.add(drawn, expected)
        photons += float(seen.sum())
        weight = 1 / (expected + BACKGROUND_PHOTONS)
        by_frame[0, frames] = ((seen - expected).square() * weight).sum(dim=(1, 2)).numpy()
        by_frame[1, frames] = (expected * weight).sum(dim=(1, 2)).numpy()
        residual += (seen - expected).sum(dim=0).numpy()
        light += expected.sum(dim=0).numpy()
    counting = model.detector.counting(model.frames, model.side)
    deviances = found.deviance / counting, floor.deviance / counting
    return Fit(
        photons,
        *deviances,
        found.r_factor,
        floor.r_factor,
        float(_ratio(by_frame[0].sum(), by_frame[1].sum())),
        (deviances[0] - deviances[1]) / 2 * counting / photons,
        _ratio(*by_frame),
        _ratio(residual**2, light),
    )


def mean_frame_deviance(
    model: ScanModel, counts: FrameArray, mean: Float[NDArray[np.float64], "y x"] | None = None
) -> float:
    """Return the deviance, as `Fit` has it, of a model that expects the same of every frame.

    Parameters
    ----------
    model : ScanModel
        Of it the detector is used.
    counts : (frame, y, x) float, photons
    mean : (y, x) float64, photons, optional
        What is expected; by default the mean of the frames.
    """
    if mean is None:
        total = np.zeros((model.side, model.side))
        for frames in model.batches():
            total += np.asarray(counts[frames]).sum(axis=0, dtype=np.float64)
        mean = total / model.frames
    expected, deviance = torch.from_numpy(mean), 0.0
    for frames in model.batches():
        seen = torch.from_numpy(np.asarray(counts[frames], np.float64))
        alike = expected.expand_as(seen)
        seen = model.pixels(frames).filled(seen, alike)
        deviance += float(poisson_deviance(alike, seen)) * seen.numel()
    return deviance / model.detector.counting(model.frames, model.side)


def tells_nothing(found: Fit, mean: float, most_left: float = MOST_LEFT) -> bool:
    """Return whether frames are explained little better than by their ``mean``'s deviance, if these differ.

    Frames of so few photons that their mean explains them nearly as well as the truth tell nothing of it.
    """
    told = mean - found.deviance_floor
    differ = told > LEAST_TOLD * found.deviance_floor
    return differ and found.deviance - found.deviance_floor > most_left * told


def _ratio(misfit: Any, expected: Any) -> NDArray[np.float64]:
    return np.divide(misfit, expected, out=np.zeros(np.shape(misfit)), where=expected > 0)
