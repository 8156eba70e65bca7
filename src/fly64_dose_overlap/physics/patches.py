"""Bilinear extraction of object patches, and its adjoint.

Bilinear interpolation is separable: a patch is ``R_y @ canvas @ R_x.T`` with two
non-zero weights in each row of R. As small dense matrix products this runs on every
device, differentiates by itself, and its adjoint is the transposed product.

Complex images travel as real planes ``(..., 2, y, x)``, real part first, the layout
of the network.
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def to_planes(field: Complex[Tensor, "*batch y x"]) -> Float[Tensor, "*batch 2 y x"]:
    """Split a complex image into its real and imaginary planes."""
    return torch.stack((field.real, field.imag), dim=-3)


def to_complex(planes: Float[Tensor, "*batch 2 y x"]) -> Complex[Tensor, "*batch y x"]:
    """Join real and imaginary planes into a complex image."""
    return torch.complex(planes[..., 0, :, :].contiguous(), planes[..., 1, :, :].contiguous())


def interpolation_matrix(
    start_px: Float[Tensor, "*batch"], rows: int, columns: int
) -> Float[Tensor, "*batch r c"]:
    """Return the linear interpolation from ``columns`` samples to ``rows`` samples.

    Parameters
    ----------
    start_px : (...) float, pixels
        Coordinate of the first output sample; the others follow at unit pitch.
    rows, columns : int
        Number of output and input samples.

    Returns
    -------
    (..., rows, columns) float
        Row i holds the weights of the two inputs around ``start_px + i``; inputs
        outside the range weigh nothing.
    """
    at = start_px[..., None] + torch.arange(rows, dtype=start_px.dtype, device=start_px.device)
    inputs = torch.arange(columns, dtype=start_px.dtype, device=start_px.device)
    return (1 - (at[..., None] - inputs).abs()).clamp_min(0)


class PatchSampler:
    """Extract patches of canvases at sub-pixel corners, and put them back.

    Parameters
    ----------
    corners_px : (canvas, frame, 2) float, pixels
        Canvas coordinate (y, x) of each patch's pixel [0, 0].
    patch_side, canvas_side : int, pixels
    """

    def __init__(
        self, corners_px: Float[Tensor, "canvas frame 2"], patch_side: int, canvas_side: int
    ) -> None:
        self.canvases, self.frames = corners_px.shape[:2]
        self.patch_side = patch_side
        self.canvas_side = canvas_side
        rows = interpolation_matrix(corners_px[..., 0], patch_side, canvas_side)
        self._rows = rows.reshape(self.canvases, self.frames * patch_side, canvas_side)
        columns = interpolation_matrix(corners_px[..., 1], patch_side, canvas_side)
        self._columns = columns.reshape(self.canvases * self.frames, patch_side, canvas_side)

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
        side, width = self.patch_side, self.canvas_side
        wide = canvases.transpose(1, 2).reshape(self.canvases, width, 2 * width)
        strips = torch.bmm(self._rows, wide).reshape(self.canvases * self.frames, side * 2, width)
        patches = torch.bmm(strips, self._columns.transpose(1, 2))
        patches = patches.reshape(self.canvases, self.frames, side, 2, side)
        return torch.complex(patches[..., 0, :].contiguous(), patches[..., 1, :].contiguous())

    def place(self, patches: Complex[Tensor, "canvas frame y x"]) -> Float[Tensor, "canvas 2 h w"]:
        """Add patches onto empty canvases: the adjoint of `extract`."""
        side, width = self.patch_side, self.canvas_side
        planes = torch.stack((patches.real, patches.imag), dim=3)
        flat = planes.reshape(self.canvases * self.frames, side * 2, side)
        strips = torch.bmm(flat, self._columns).reshape(self.canvases, self.frames * side, 2 * width)
        wide = torch.bmm(self._rows.transpose(1, 2), strips)
        return wide.reshape(self.canvases, width, 2, width).transpose(1, 2)

    def place_real(self, patches: Float[Tensor, "canvas frame y x"]) -> Float[Tensor, "canvas h w"]:
        """Add real patches, such as illumination, onto empty canvases."""
        flat = patches.reshape(self.canvases * self.frames, self.patch_side, self.patch_side)
        strips = torch.bmm(flat, self._columns)
        strips = strips.reshape(self.canvases, self.frames * self.patch_side, self.canvas_side)
        return torch.bmm(self._rows.transpose(1, 2), strips)
