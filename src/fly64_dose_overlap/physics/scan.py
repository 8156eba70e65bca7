"""The forward model of a whole scan over one object, and its adjoint."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.physics.propagation import from_detector, intensity, to_detector

FRAMES_PER_BATCH = 64
"""Frames worked on at once: larger batches fall out of the processor's cache."""
FRAMES_PER_GPU_BATCH = 1024
"""Frames worked on at once by a GPU: smaller batches leave it idle."""


class ScanModel:
    """Far fields of the frames of a scan, linear in one complex object.

    Patches are bilinear in fractional positions, as in the simulation. Frames are always
    addressed as a slice of the scan, so that no array of all patches ever exists.

    Parameters
    ----------
    probe : (mode, y, x) complex, sqrt(photons)
        Mutually incoherent modes, N x N; the squared modulus summed over all axes is the
        photons that fall on the object in one frame.
    positions_px : (frame, 2) float64, object pixels
        The object pixel (y, x) under patch pixel [N/2, N/2].
    object_shape : (int, int)
        Rows and columns; every window must lie inside, which the data contract warrants.
    """

    def __init__(
        self,
        probe: Complex[Tensor, "mode y x"],
        positions_px: NDArray[np.float64],
        object_shape: tuple[int, int],
    ) -> None:
        self.probe = probe
        self.side = probe.shape[-1]
        self.shape = object_shape
        self.frames = len(positions_px)
        first = positions_px - self.side // 2
        corner = np.floor(first).astype(np.int64)
        if np.any(corner < 0) or np.any(np.ceil(first) + self.side > np.array(object_shape)):
            raise ValueError(f"a {self.side} px window lies outside the object {object_shape}")
        self._corner = torch.from_numpy(corner).to(probe.device)
        fraction = torch.from_numpy(first - corner).to(probe.device, probe.real.dtype)
        self._fraction_y, self._fraction_x = fraction[:, 0, None, None], fraction[:, 1, None, None]

    def batches(self, size: int | None = None) -> Iterator[slice]:
        """Yield consecutive slices of at most ``size`` frames that cover the scan.

        By default they have as many frames as suit the device.
        """
        if size is None:
            size = FRAMES_PER_BATCH if self.probe.device.type == "cpu" else FRAMES_PER_GPU_BATCH
        for first in range(0, self.frames, size):
            yield slice(first, min(first + size, self.frames))

    def patches(self, obj: Complex[Tensor, "h w"], frames: slice) -> Complex[Tensor, "frame y x"]:
        """Return the object under the probe in some frames."""
        side = self.side
        # A window at a whole position has N rows of weight and one of none, which may lie outside.
        padded = F.pad(torch.view_as_real(obj), (0, 0, 0, 1, 0, 1))
        windows = torch.view_as_complex(padded).unfold(0, side + 1, 1).unfold(1, side + 1, 1)
        y, x = self._corner[frames].T
        corner = windows[y, x]
        rows = torch.lerp(corner[:, :-1], corner[:, 1:], self._fraction_y[frames].to(corner.dtype))
        return torch.lerp(rows[:, :, :-1], rows[:, :, 1:], self._fraction_x[frames].to(corner.dtype))

    def place(
        self, patches: Complex[Tensor, "frame y x"] | Float[Tensor, "frame y x"], frames: slice, onto: Tensor
    ) -> None:
        """Add patches onto a padded object: the adjoint of `patches`.

        Parameters
        ----------
        patches : (frame, y, x) complex or float
        frames : slice
        onto : (h + 1, w + 1), of the patches' type
            From `blank`; changed in place.
        """
        planes = torch.view_as_real(patches) if patches.is_complex() else patches[..., None]
        rows = _spread(planes, self._fraction_x[frames, ..., None], dim=2)
        spread = _spread(rows, self._fraction_y[frames, ..., None], dim=1)
        windows = torch.view_as_complex(spread) if patches.is_complex() else spread[..., 0]
        reach = self.side + 1
        if onto.device.type != "cpu":
            along = torch.arange(reach, device=onto.device)
            y, x = self._corner[frames].T
            places = (y[:, None, None] + along[:, None]) * onto.shape[1] + x[:, None, None] + along
            onto.view(-1).index_add_(0, places.ravel(), windows.ravel())
            return
        # One after another: sums in a fixed order give the same bytes every time.
        for (top, left), window in zip(self._corner[frames].tolist(), windows, strict=True):
            onto[top : top + reach, left : left + reach] += window

    def blank(self, dtype: torch.dtype) -> Tensor:
        """Return an empty padded object for `place`; [:-1, :-1] of it is the object's grid."""
        return torch.zeros(self.shape[0] + 1, self.shape[1] + 1, dtype=dtype, device=self.probe.device)

    def far_field(self, obj: Complex[Tensor, "h w"], frames: slice) -> Complex[Tensor, "frame mode y x"]:
        """Return the far fields of some frames, sqrt(photons), zero frequency in the corner."""
        return to_detector(self.patches(obj, frames)[:, None] * self.probe)

    def expected(self, obj: Complex[Tensor, "h w"], frames: slice) -> Float[Tensor, "frame y x"]:
        """Return the expected photons of some frames, zero frequency in the corner."""
        return intensity(self.far_field(obj, frames)).sum(dim=1)

    def back_project(
        self, far_field: Complex[Tensor, "frame mode y x"], frames: slice, onto: Complex[Tensor, "h w"]
    ) -> None:
        """Add the adjoint of `far_field` onto a padded object from `blank`."""
        self.place((from_detector(far_field) * self.probe.conj()).sum(dim=1), frames, onto)

    def illumination(self) -> Float[Tensor, "h w"]:
        """Return the photons that fall on each object pixel over the scan, with bilinear spread."""
        power = self.probe.abs().square().sum(dim=0)
        onto = self.blank(power.dtype)
        for frames in self.batches():
            count = frames.stop - frames.start
            self.place(power.expand(count, -1, -1), frames, onto)
        return onto[:-1, :-1].contiguous()


def _spread(values: Tensor, fraction: Tensor, *, dim: int) -> Tensor:
    """Share values between their own and the next place along ``dim``: the adjoint of lerp."""
    length = values.shape[dim]
    shape = list(values.shape)
    shape[dim] = length + 1
    spread = values.new_zeros(shape)
    moved = values * fraction
    spread.narrow(dim, 1, length).copy_(moved)
    spread.narrow(dim, 0, length).add_(values).sub_(moved)
    return spread
