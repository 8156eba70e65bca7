"""The forward model of groups of frames that share one small canvas of the object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.physics.propagation import from_detector, intensity, to_detector
from fly64_dose_overlap.physics.scan import ScanModel

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
    needed = int(np.floor(relative.max())) + support_side + 1
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
    """Far field and expected photons of the frames of a batch of groups.

    The object is taken as one (empty) outside the probe's support, where hardly a
    photon passes. Canvases lie below one another, so that a batch is a scan of one tall
    object.

    Parameters
    ----------
    probe : (y, x) complex, sqrt(photons)
        Side N.
    corners_px : (group, frame, 2) float
        From `GroupGeometry`; every patch lies on its canvas.
    support_side, canvas_side : int, pixels
    """

    def __init__(
        self,
        probe: Complex[Tensor, "y x"],
        corners_px: NDArray[np.floating],
        support_side: int,
        canvas_side: int,
    ) -> None:
        groups, frames = corners_px.shape[:2]
        margin = (probe.shape[-1] - support_side) // 2
        self._inside = slice(margin, margin + support_side)
        self.support = probe[self._inside, self._inside].contiguous()
        self._probe = probe
        self._shape = (groups, frames)
        self._exit_waves = probe.repeat(groups, frames, 1, 1)
        self._canvases = (groups, canvas_side, canvas_side)
        positions = corners_px.astype(np.float64) + support_side // 2
        positions[..., 0] += canvas_side * np.arange(groups)[:, None]
        tall = (groups * canvas_side, canvas_side)
        self._scan = ScanModel(self.support[None], positions.reshape(-1, 2), tall)
        self._all = slice(0, self._scan.frames)
        self.illumination: Float[Tensor, "group h w"] = self._scan.illumination().reshape(self._canvases)
        """Photons per object pixel."""

    def patches(self, canvases: Complex[Tensor, "group h w"]) -> Complex[Tensor, "group frame y x"]:
        """Return what lies under the probe's support in every frame."""
        return self._scan.patches(canvases.flatten(0, 1), self._all).unflatten(0, self._shape)

    def far_field(self, canvases: Complex[Tensor, "group h w"]) -> Complex[Tensor, "group frame y x"]:
        """Return the far field of every frame, zero frequency in the corner."""
        # Outside the support they stay those of an empty object.
        exit_waves = self._exit_waves.clone() if torch.is_grad_enabled() else self._exit_waves
        exit_waves[..., self._inside, self._inside] = self.patches(canvases) * self.support
        return to_detector(exit_waves)

    def empty_far_field(self) -> Complex[Tensor, "y x"]:
        """Return the far field of an empty object, the same for every frame."""
        return to_detector(self._probe)

    def expected(self, canvases: Complex[Tensor, "group h w"]) -> Float[Tensor, "group frame y x"]:
        """Return the expected photons of every frame, zero frequency in the corner."""
        return intensity(self.far_field(canvases))

    def back_project(self, far_field: Complex[Tensor, "group frame y x"]) -> Complex[Tensor, "group h w"]:
        """Apply the adjoint of the linear part of `far_field`."""
        inside = from_detector(far_field)[..., self._inside, self._inside] * self.support.conj()
        return self._scan.placed(inside.flatten(0, 1), self._all).reshape(self._canvases)
