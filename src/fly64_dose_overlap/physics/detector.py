"""What of a detector counts, and what it counts beside the light that came through the object.

A background is never subtracted, since counts less a mean are no Poisson counts: it is added to
the expected photons. A pixel that is blind, dead or hot or behind a beam stop, takes part in no
sum: its count is replaced by what is expected, which says nothing of the object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.arrays import DiskArray


@dataclass(frozen=True, eq=False)
class Pixels:
    """The detector pixels of some frames.

    Attributes
    ----------
    blind : (..., y, x) bool or None
        Pixels that do not count, for each frame or for all alike; none if not given.
    background : (y, x) float or None, photons
    """

    blind: Bool[Tensor, "*frame y x"] | None = None
    background: Float[Tensor, "y x"] | None = None

    def expected(self, light: Float[Tensor, "*frame y x"]) -> Float[Tensor, "*frame y x"]:
        """Return the expected photons: those of the light, and the background."""
        return light if self.background is None else light + self.background

    def in_groups(self, shape: tuple[int, ...]) -> Pixels:
        """Return the pixels of frames that are put in groups, of shape (group, frame)."""
        if self.blind is None or self.blind.ndim == 2:
            return self
        return Pixels(self.blind.unflatten(0, shape), self.background)

    def filled(
        self, counts: Float[Tensor, "*frame y x"], expected: Float[Tensor, "*frame y x"]
    ) -> Float[Tensor, "*frame y x"]:
        """Return the counts, with those of blind pixels replaced by the expected photons."""
        return counts if self.blind is None else torch.where(self.blind, expected.detach(), counts)


@dataclass(frozen=True, eq=False)
class Detector:
    """The detector of a scan.

    Attributes
    ----------
    mask : (y, x) or (frame, y, x) bool, optional
        Pixels that count, in all frames or in each; all if not given.
    background : (y, x) float32, optional, photons
        Expected photons of each pixel that do not come through the object.
    """

    mask: Bool[NDArray[np.bool_], "y x"] | Bool[NDArray[np.bool_], "frame y x"] | DiskArray | None = None
    background: Float[NDArray[np.float32], "y x"] | None = None

    def pixels(
        self, frames: slice | Int[NDArray[np.int64], " frame"], like: Tensor, fraction: float = 1.0
    ) -> Pixels:
        """Return the pixels of some frames, on the device and in the precision of a tensor.

        Parameters
        ----------
        fraction : float
            Part of the photons that is looked at, the background's included.
        """
        blind = background = None
        if self.mask is not None:
            chosen = self.mask if len(self.mask.shape) == 2 else self.mask[frames]
            blind = torch.from_numpy(~np.asarray(chosen)).to(like.device)
        if self.background is not None:
            scaled = torch.from_numpy(self.background) * fraction
            background = scaled.to(like.device, torch.empty(0, dtype=like.dtype).real.dtype)
        return Pixels(blind, background)

    def counting(self, frames: int, side: int) -> int:
        """Return the number of counts that count, in all frames."""
        if self.mask is None:
            return frames * side**2
        if len(self.mask.shape) == 2:
            return frames * int(np.count_nonzero(self.mask))
        return sum(int(np.count_nonzero(self.mask[frame])) for frame in range(frames))
