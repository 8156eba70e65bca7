"""Training examples by Poisson thinning.

Counts are split binomially into two independent Poisson sets. The estimate that the
network sees is made from the first; the loss scores the network's object on the second.
A likelihood on the very counts that the network sees would reward it for copying their
noise; on independent counts the same loss makes it a denoiser (the principle of
Noise2Noise, Lehtinen et al., arXiv:1803.04189, exact for Poisson counts).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fly64_dose_overlap.arrays import FrameArray
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.learning.corrector import CANVAS_MULTIPLE_PX, correct, input_planes
from fly64_dose_overlap.learning.estimate import GroupedScan, Start
from fly64_dose_overlap.physics.groups import GroupModel
from fly64_dose_overlap.physics.illumination import whole_and_rest
from fly64_dose_overlap.physics.thinning import divide

MOST_SEEN = 0.6
"""Largest part of the photons that the network sees; it is scored on the others."""
TARGET_PER_SEEN = 1.5
"""Most photons that the network is scored on, for each that it sees.

Scored on many more it would put in detail that it cannot know: the deviance from counts without
noise is least at the mean intensity, not at that of the mean object.
"""
SYMMETRIES = 8
"""Flips and the transposition of a square, under which physics is the same."""

Target = Literal["thinned", "same"]


@dataclass(frozen=True, eq=False)
class Realisation:
    """A scan whose photons were divided anew."""

    planes: Tensor
    """What the network sees of the object, from the photons that it may see: (6, y, x) float32."""
    target: FrameArray
    """What is to be predicted, of all frames: (frame, y, x) float32, photons."""
    target_fraction: float
    """Expected part of the photons of the scan that ``target`` holds."""


@dataclass(frozen=True, eq=False)
class Crop:
    """A square of a realisation, and frames that lie inside."""

    planes: Tensor
    """(6, side, side) float32."""
    model: GroupModel
    """Forward model of the frames, with the crop as their canvas."""
    target: Tensor
    """(1, frame, y, x) float32, photons."""
    symmetry: int
    """Which flips the network's input gets; undone on its output."""

    def predict(self, network: nn.Module, coarse_photons: float | None) -> Tensor:
        """Return the expected photons of the frames, (1, frame, y, x); see `correct`."""
        turned = turn(self.planes, self.symmetry)
        corrected = turn_back(correct(network, turned[None], coarse_photons), self.symmetry)
        return self.model.expected(torch.complex(*corrected.unbind(dim=1)))


def seen_fraction(least: float, place: float) -> float:
    """Return a part of the photons for the network to see.

    From ``least`` to `MOST_SEEN` on a logarithmic scale, more often near both ends: a network
    learns from what lies on either side, and there it lies on one side only. Of ``place`` the
    fractional part counts: evenly spread ones give, on that scale, the arcsine distribution, and
    its change of variable twice in a range of several realisations.
    """
    place %= 1.0
    for _ in range(1 if first_realisations(least) == 1 else 2):
        place = (1 - math.cos(math.pi * place)) / 2
    return MOST_SEEN * (least / MOST_SEEN) ** place


def first_realisations(least: float) -> int:
    """Return how many realisations cover the range of `seen_fraction`: one per factor of three."""
    return max(1, round(math.log(MOST_SEEN / least, 3)))


def realise(
    grouped: GroupedScan, target: Target, start: Start, fraction: float, rng: np.random.Generator, label: str
) -> Realisation:
    """Divide the photons of a scan and make the estimate of the first part, a ``fraction`` of them.

    With the target "same" the network sees all counts and is scored on the same ones.
    """
    seen = scored = grouped.scan.counts
    target_fraction = 1.0
    if target == "same":
        fraction = 1.0
    else:
        seen, scored = divide(seen, fraction, rng)
        target_fraction = min(1 - fraction, TARGET_PER_SEEN * fraction)
        if target_fraction < 1 - fraction:
            scored, _ = divide(scored, target_fraction / (1 - fraction), rng)
    estimate = start(grouped, seen, fraction=fraction, label=label)
    return Realisation(input_planes(estimate).to(grouped.device), scored, target_fraction)


class CropSampler:
    """Cuts crops around some frames of a scan, (frame,) int, of which one scores ``max_frames`` at most.

    Crops are ``side_px`` wide, or what a smaller object gives; one that holds no whole patch is refused.
    """

    def __init__(
        self, grouped: GroupedScan, frames: NDArray[np.int64], side_px: int, max_frames: int
    ) -> None:
        self._grouped = grouped
        self._frames = frames
        self._max_frames = max_frames
        self._support = grouped.geometry.support_side
        self._corners = whole_and_rest(grouped.scan.positions_px, self._support)[0][frames]
        shape = grouped.scan.object_shape
        self._side = min(side_px, *shape) // CANVAS_MULTIPLE_PX * CANVAS_MULTIPLE_PX
        self._limit = np.array(shape) - self._side
        self._slack = self._side - self._support
        if self._slack < 1:
            problem = f"crops of {self._side} px do not hold the {self._support} px of the probe"
            grid = f"the object is {shape[0]} x {shape[1]} px"
            raise StudyError("crop_px", problem, f"{grid}, crops are multiples of {CANVAS_MULTIPLE_PX} px")

    def draw(self, realisation: Realisation, rng: np.random.Generator) -> Crop:
        """Return a random crop around a random frame."""
        first = self._corners[int(rng.integers(len(self._frames)))]
        origin = np.floor(first - rng.uniform(0, self._slack - 1, 2)).astype(int).clip(0, self._limit)
        symmetry = int(rng.integers(SYMMETRIES))
        offsets = self._corners - origin
        inside = np.flatnonzero(((offsets >= 0) & (offsets <= self._slack)).all(axis=1))
        if len(inside) > self._max_frames:
            inside = np.sort(rng.choice(inside, self._max_frames, replace=False))
        frames = self._frames[inside]
        probes = self._grouped.model.probes(frames)[None] * realisation.target_fraction**0.5
        corners = (self._corners[inside] - origin)[None]
        model = GroupModel(probes, corners, self._support, self._side)
        (y, x), side = origin, self._side
        target = torch.from_numpy(realisation.target[frames]).to(probes.device)
        return Crop(realisation.planes[:, y : y + side, x : x + side], model, target[None], symmetry)


def turn(images: Tensor, symmetry: int) -> Tensor:
    """Transpose (bit 4), then flip x (bit 1) and y (bit 2) of the last two axes."""
    if symmetry & 4:
        images = images.transpose(-1, -2)
    return images.flip(_flipped(symmetry))


def turn_back(images: Tensor, symmetry: int) -> Tensor:
    """Invert `turn`."""
    images = images.flip(_flipped(symmetry))
    return images.transpose(-1, -2) if symmetry & 4 else images


def _flipped(symmetry: int) -> list[int]:
    return [axis for axis, bit in ((-1, 1), (-2, 2)) if symmetry & bit]
