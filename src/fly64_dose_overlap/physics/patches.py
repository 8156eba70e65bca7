"""Bilinear patches of an image at fractional places."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def bilinear_patches(
    windows: Shaped[Tensor, "frame rows columns"], fractions_px: Float[Tensor, "frame 2"]
) -> Shaped[Tensor, "frame y x"]:
    """Move windows by parts of a pixel.

    Windows with a border of zeros, moved by one less each part, give the adjoint.

    Parameters
    ----------
    windows : (frame, N + 1, N + 1) complex or float
    fractions_px : (frame, 2) float
        Window coordinate (y, x) of each patch's pixel [0, 0], from 0 to 1.

    Returns
    -------
    (frame, N, N), of the windows' type
    """
    # Complex images as pairs: a weight is real and multiplies both.
    planes = torch.view_as_real(windows) if windows.is_complex() else windows[..., None]
    y, x = fractions_px[:, :, None, None, None].unbind(dim=1)
    rows = torch.lerp(planes[:, :-1], planes[:, 1:], y)
    moved = torch.lerp(rows[:, :, :-1], rows[:, :, 1:], x)
    return torch.view_as_complex(moved) if windows.is_complex() else moved[..., 0]
