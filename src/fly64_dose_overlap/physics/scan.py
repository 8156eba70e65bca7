"""The forward model of a whole scan over one object, and its adjoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.physics.patches import bilinear_patches
from fly64_dose_overlap.physics.propagation import from_detector, intensity, to_detector

FRAMES_PER_BATCH = 64
"""Frames worked on at once: larger batches fall out of the processor's cache."""
FRAMES_PER_GPU_BATCH = 1024
"""Frames worked on at once by a GPU: smaller batches leave it idle."""


def frames_per_batch(device: torch.device) -> int:
    """Return how many frames suit a device at once."""
    return FRAMES_PER_BATCH if device.type == "cpu" else FRAMES_PER_GPU_BATCH


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
        # A window at a whole position has N rows of weight and one of none, which may lie outside.
        self._overhangs = bool(np.any(corner + self.side >= np.array(object_shape)))
        self._corner = torch.from_numpy(corner).to(probe.device)
        self._fraction = torch.from_numpy(first - corner).to(probe.device, probe.real.dtype)

    def batches(self, size: int | None = None) -> Iterator[slice]:
        """Yield consecutive slices of at most ``size`` frames that cover the scan.

        By default they have as many frames as suit the device.
        """
        if size is None:
            size = frames_per_batch(self.probe.device)
        for first in range(0, self.frames, size):
            yield slice(first, min(first + size, self.frames))

    def patches(self, obj: Complex[Tensor, "h w"], frames: slice) -> Complex[Tensor, "frame y x"]:
        """Return the object under the probe in some frames; its gradient is `place`."""
        found: Any = _Patches.apply(obj, self, frames)
        return found

    def _patches(self, obj: Tensor, frames: slice) -> Tensor:
        if self._overhangs:
            obj = F.pad(obj, (0, 1, 0, 1))
        windows = obj.unfold(0, self.side + 1, 1).unfold(1, self.side + 1, 1)
        y, x = self._corner[frames].T
        return bilinear_patches(windows[y, x], self._fraction[frames])

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
        windows = bilinear_patches(F.pad(patches, (1, 1, 1, 1)), 1 - self._fraction[frames])
        reach = self.side + 1
        if onto.device.type != "cpu":
            along = torch.arange(reach, device=onto.device)
            y, x = self._corner[frames].T
            places = (y[:, None, None] + along[:, None]) * onto.shape[1] + x[:, None, None] + along
            onto.view(-1).index_add_(0, places.ravel(), windows.ravel())
            return
        # One after another: sums in a fixed order give the same bytes every time.
        total = onto.numpy()
        for (top, left), window in zip(self._corner[frames].tolist(), windows.numpy(), strict=True):
            total[top : top + reach, left : left + reach] += window

    def placed(self, patches: Tensor, frames: slice) -> Tensor:
        """Return patches added onto an empty object, (h, w)."""
        onto = self.blank(patches.dtype)
        self.place(patches, frames, onto)
        return onto[:-1, :-1]

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


class _Patches(torch.autograd.Function):
    """The patches of a scan, with a gradient that is faster than that of indexing."""

    @staticmethod
    def forward(ctx: Any, obj: Tensor, scan: ScanModel, frames: slice) -> Tensor:
        ctx.scan, ctx.frames = scan, frames
        return scan._patches(obj, frames)  # pyright: ignore[reportPrivateUsage]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.scan.placed(gradients[0], ctx.frames), None, None
