"""Bilinear extraction of object patches, and its adjoint.

Complex images travel as real planes ``(..., 2, y, x)``, real part first, the layout
of the network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor


def to_planes(field: Complex[Tensor, "*batch y x"]) -> Float[Tensor, "*batch 2 y x"]:
    """Split a complex image into its real and imaginary planes."""
    return torch.stack((field.real, field.imag), dim=-3)


def to_complex(planes: Float[Tensor, "*batch 2 y x"]) -> Complex[Tensor, "*batch y x"]:
    """Join real and imaginary planes into a complex image."""
    return torch.complex(planes[..., 0, :, :].contiguous(), planes[..., 1, :, :].contiguous())


class PatchSampler:
    """Extract patches of canvases at sub-pixel corners, and put them back.

    Parameters
    ----------
    corners_px : (canvas, frame, 2) float, pixels
        Canvas coordinate (y, x) of each patch's pixel [0, 0].
    patch_side, canvas_side : int, pixels
        What a patch sees outside the canvas is zero.
    """

    def __init__(
        self, corners_px: Float[Tensor, "canvas frame 2"], patch_side: int, canvas_side: int
    ) -> None:
        self.canvases, self.frames = corners_px.shape[:2]
        self.patch_side = patch_side
        self.canvas_side = canvas_side
        pixels = torch.arange(patch_side, dtype=corners_px.dtype, device=corners_px.device)
        # grid_sample counts from -1 at the first pixel to 1 at the last, x before y.
        along = (corners_px[..., None] + pixels) * (2 / (canvas_side - 1)) - 1
        shape = (self.canvases, self.frames, patch_side, patch_side)
        x = along[:, :, 1, None, :].expand(shape)
        y = along[:, :, 0, :, None].expand(shape)
        self._grid = torch.stack((x, y), dim=-1).reshape(self.canvases, -1, patch_side, 2)

    def extract(self, canvases: Float[Tensor, "canvas 2 h w"]) -> Complex[Tensor, "canvas frame y x"]:
        """Return the patches of each canvas.

        Parameters
        ----------
        canvases : (canvas, 2, h, w) float
            Real and imaginary planes.

        Returns
        -------
        (canvas, frame, y, x) complex
        """
        sampled = F.grid_sample(canvases, self._grid, align_corners=True)
        shape = (self.canvases, self.frames, self.patch_side, self.patch_side)
        return torch.complex(sampled[:, 0].reshape(shape), sampled[:, 1].reshape(shape))

    def place(self, patches: Complex[Tensor, "canvas frame y x"]) -> Float[Tensor, "canvas 2 h w"]:
        """Add patches onto empty canvases: the adjoint of `extract`."""
        return self._adjoint(torch.stack((patches.real, patches.imag), dim=1))

    def place_real(self, patches: Float[Tensor, "canvas frame y x"]) -> Float[Tensor, "canvas h w"]:
        """Add real patches, such as illumination, onto empty canvases."""
        return self._adjoint(patches[:, None])[:, 0]

    def _adjoint(self, patches: Tensor) -> Tensor:
        planes = patches.shape[1]
        side, height = self.canvas_side, self.frames * self.patch_side
        patches = patches.reshape(self.canvases, planes, height, self.patch_side).contiguous()
        canvases = patches.new_zeros(self.canvases, planes, side, side)
        # Bilinear, zeros outside, corners aligned: the settings of `extract`.
        return torch.ops.aten.grid_sampler_2d_backward(
            patches, canvases, self._grid, 0, 0, True, [True, False]
        )[0]
