"""The forward model of groups of frames that share one small canvas of the object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.physics.detector import Pixels
from fly64_dose_overlap.physics.illumination import whole_and_rest
from fly64_dose_overlap.physics.propagation import from_detector, intensity, to_detector
from fly64_dose_overlap.physics.windows import add_patches, windows

CANVAS_MULTIPLE_PX = 8


@dataclass(frozen=True, eq=False)
class GroupGeometry:
    """Where each group's canvas and patches lie.

    Canvases sit on the integer grid of the object, so that stitching them needs no
    interpolation. Patches are as large as the probe's support, not as the frame.
    """

    origins_px: NDArray[np.int64]
    """(group, 2), object pixel (y, x) of each canvas's pixel [0, 0]."""
    corners_px: NDArray[np.int64]
    """(group, frame, 2), canvas pixel (y, x) under each patch's pixel [0, 0]."""
    canvas_side: int
    support_side: int


def group_geometry(
    positions_px: NDArray[np.float64],
    groups: NDArray[np.integer],
    support_side: int,
) -> GroupGeometry:
    """Lay out the canvases of all groups of a scan, each of the same side, a multiple of 8.

    Parameters
    ----------
    positions_px : (frame, 2) float64, object pixels
        The object pixel (y, x) under patch pixel [N/2, N/2].
    groups : (group, C) int
        Frame indices.
    support_side : int, pixels
        Side of the probe's support, see `support_side_px`.
    """
    corners = whole_and_rest(positions_px, support_side)[0][groups]
    origins = corners.min(axis=1)
    relative = corners - origins[:, None]
    needed = int(relative.max()) + support_side
    canvas_side = -(-needed // CANVAS_MULTIPLE_PX) * CANVAS_MULTIPLE_PX
    return GroupGeometry(origins, relative, canvas_side, support_side)


def support_side_px(probe: Complex[NDArray[np.complex64], "mode y x"], power_fraction: float) -> int:
    """Return the side of the smallest centred square that holds this part of the probe's power.

    The side is a multiple of 4 and at most the frame's.
    """
    power = (np.abs(probe) ** 2).sum(axis=0, dtype=np.float64)
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
    photon passes.

    Parameters
    ----------
    probes : (group, frame, mode, y, x) complex, sqrt(photons)
        Shifted probe of each frame, from `ScanModel.probes`.
    corners_px : (group, frame, 2) int
        From `GroupGeometry`; every patch lies on its canvas.
    support_side, canvas_side : int, pixels
    pixels : Pixels, optional
        Of the frames, (group, frame, y, x).
    """

    def __init__(
        self,
        probes: Complex[Tensor, "group frame mode y x"],
        corners_px: Int[NDArray[np.int64], "group frame 2"],
        support_side: int,
        canvas_side: int,
        pixels: Pixels | None = None,
    ) -> None:
        self.pixels = Pixels() if pixels is None else pixels
        groups = len(corners_px)
        margin = (probes.shape[-1] - support_side) // 2
        self._inside = slice(margin, margin + support_side)
        self._probes = probes
        self.support = probes[..., self._inside, self._inside]
        self._canvases = (groups, canvas_side, canvas_side)
        self._side = support_side
        device = probes.device
        number = torch.arange(groups, device=device)[:, None].expand(corners_px.shape[:2]).reshape(1, -1)
        self._places = torch.cat([number, torch.from_numpy(corners_px.reshape(-1, 2)).to(device).T])
        self.illumination: Float[Tensor, "group h w"] = self._placed(intensity(self.support).sum(dim=2))
        """Photons per object pixel."""

    def patches(self, canvases: Complex[Tensor, "group h w"]) -> Complex[Tensor, "group frame y x"]:
        """Return what lies under the probe's support in every frame."""
        return windows(canvases, self._places, self._side).unflatten(0, self._probes.shape[:2])

    def far_field(self, canvases: Complex[Tensor, "group h w"]) -> Complex[Tensor, "group frame mode y x"]:
        """Return the far field of every frame, zero frequency at [N/2, N/2]."""
        # Outside the support they stay those of an empty object.
        exit_waves = self._probes.clone()
        exit_waves[..., self._inside, self._inside] = self.patches(canvases)[:, :, None] * self.support
        return to_detector(exit_waves)

    def expected(self, canvases: Complex[Tensor, "group h w"]) -> Float[Tensor, "group frame y x"]:
        """Return the expected photons of every frame, background included, zero frequency at [N/2, N/2]."""
        return self.pixels.expected(intensity(self.far_field(canvases)).sum(dim=2))

    def back_project(
        self, far_field: Complex[Tensor, "group frame mode y x"]
    ) -> Complex[Tensor, "group h w"]:
        """Apply the adjoint of the linear part of `far_field`."""
        inside = from_detector(far_field)[..., self._inside, self._inside] * self.support.conj()
        return self._placed(inside.sum(dim=2))

    def _placed(self, patches: Tensor) -> Tensor:
        """Return (group, frame, y, x) patches added onto empty canvases."""
        onto = torch.zeros(self._canvases, dtype=patches.dtype, device=patches.device)
        add_patches(onto, patches.flatten(0, 1), self._places)
        return onto
