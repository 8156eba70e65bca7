"""The forward model of groups of frames that share one small canvas of the object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.physics.patches import PatchSampler
from fly64_dose_overlap.physics.propagation import from_detector, intensity, to_detector

CANVAS_MULTIPLE_PX = 8


@dataclass(frozen=True, eq=False)
class GroupGeometry:
    """Where each group's canvas and patches lie.

    Canvases sit on the integer grid of the object, so that stitching them needs no
    interpolation. Patches are as large as the probe's support, not as the frame.
    """

    origins_px: NDArray[np.int64]
    """(group, 2), object pixel (y, x) of each canvas's pixel [0, 0]."""
    corners_px: NDArray[np.float32]
    """(group, frame, 2), canvas coordinate (y, x) of each patch's pixel [0, 0]."""
    canvas_side: int
    support_side: int


def group_geometry(
    positions_px: NDArray[np.float64],
    groups: NDArray[np.integer],
    support_side: int,
    canvas_side: int | None = None,
) -> GroupGeometry:
    """Lay out the canvases of all groups of a scan.

    Parameters
    ----------
    positions_px : (frame, 2) float64, object pixels
        The object pixel (y, x) under patch pixel [N/2, N/2].
    groups : (group, C) int
        Frame indices.
    support_side : int, pixels
        Side of the probe's support, see `support_side_px`.
    canvas_side : int, pixels, optional
        Side of every canvas; by default the smallest multiple of 8 that holds all groups.
    """
    corners = positions_px[groups] - support_side // 2
    origins = np.floor(corners.min(axis=1)).astype(np.int64)
    relative = corners - origins[:, None]
    needed = int(np.ceil(relative.max())) + support_side
    if canvas_side is None:
        canvas_side = -(-needed // CANVAS_MULTIPLE_PX) * CANVAS_MULTIPLE_PX
    return GroupGeometry(origins, relative.astype(np.float32), canvas_side, support_side)


def support_side_px(probe: Complex[Tensor, "y x"], power_fraction: float) -> int:
    """Return the side of the smallest centred square that holds this part of the probe's power.

    The side is a multiple of 4 and at most the frame's.
    """
    power = probe.abs().square()
    side = probe.shape[-1]
    for candidate in range(4, side, 4):
        margin = (side - candidate) // 2
        inside = power[margin : margin + candidate, margin : margin + candidate].sum()
        if inside >= power_fraction * power.sum():
            return candidate
    return side


class GroupModel:
    """Expected intensity of the frames of a batch of groups.

    The object is taken as one (empty) outside the probe's support, where hardly a
    photon passes.

    Parameters
    ----------
    probe : (y, x) complex, sqrt(photons)
        Side N.
    corners_px : (group, frame, 2) float
        From `GroupGeometry`.
    support_side, canvas_side : int, pixels
    """

    def __init__(
        self,
        probe: Complex[Tensor, "y x"],
        corners_px: Float[Tensor, "group frame 2"],
        support_side: int,
        canvas_side: int,
    ) -> None:
        self._margin = (probe.shape[-1] - support_side) // 2
        inside = slice(self._margin, self._margin + support_side)
        self.support = probe[inside, inside].contiguous()
        self._rest = probe.clone()
        self._rest[inside, inside] = 0
        self._has_rest = self._margin > 0
        self.sampler = PatchSampler(corners_px, support_side, canvas_side)
        groups, frames = corners_px.shape[:2]
        power = self.support.abs().square().expand(groups, frames, -1, -1)
        self.illumination: Float[Tensor, "group h w"] = self.sampler.place_real(power)
        """Photons per object pixel."""

    def far_field(self, canvases: Float[Tensor, "group 2 h w"]) -> Complex[Tensor, "group frame y x"]:
        """Return the far field of every frame, zero frequency in the corner."""
        exit_wave = self.sampler.extract(canvases) * self.support
        if self._has_rest:
            exit_wave = F.pad(exit_wave, (self._margin,) * 4) + self._rest
        return to_detector(exit_wave)

    def expected(self, canvases: Float[Tensor, "group 2 h w"]) -> Float[Tensor, "group frame y x"]:
        """Return the expected photons of every frame, zero frequency in the corner."""
        return intensity(self.far_field(canvases))

    def back_project(self, far_field: Complex[Tensor, "group frame y x"]) -> Float[Tensor, "group 2 h w"]:
        """Apply the adjoint of the linear part of `far_field`."""
        exit_wave = from_detector(far_field)
        side = self.support.shape[-1]
        inside = exit_wave[..., self._margin : self._margin + side, self._margin : self._margin + side]
        return self.sampler.place(inside * self.support.conj())
