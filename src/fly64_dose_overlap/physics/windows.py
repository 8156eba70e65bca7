"""Windows of images, and what adds patches up where they lie: each the other's adjoint."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor


def windows(images: Tensor, places: Int[Tensor, "3 patch"], side: int) -> Tensor:
    """Return square windows of images, with a gradient that is faster than that of indexing.

    Parameters
    ----------
    images : (image, h, w) complex or float
    places : (3, patch) int64
        Image, row and column under each window's pixel [0, 0].
    side : int, pixels

    Returns
    -------
    (patch, side, side)
    """
    found: Any = _Windows.apply(images, places, side)
    return found


def add_patches(onto: Tensor, patches: Tensor, places: Int[Tensor, "3 patch"]) -> None:
    """Add (patch, side, side) onto (image, h, w), in place: the adjoint of `windows`."""
    side, (rows, columns) = patches.shape[-1], onto.shape[1:]
    if onto.device.type == "cpu":
        # One after another: sums in a fixed order give the same bytes every time.
        total = onto.numpy()
        for (image, top, left), patch in zip(places.T.tolist(), patches.numpy(), strict=True):
            total[image, top : top + side, left : left + side] += patch
        return
    along = torch.arange(side, device=onto.device)
    image, top, left = places[:, :, None, None]
    pixels = ((image * rows + top + along[:, None]) * columns + left + along).ravel()
    onto.view(-1).index_add_(0, pixels, patches.ravel())


class _Windows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, places: Tensor, side: int) -> Tensor:
        ctx.shape, ctx.places = images.shape, places
        image, top, left = places
        return images.unfold(1, side, 1).unfold(2, side, 1)[image, top, left]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        onto = gradients[0].new_zeros(ctx.shape)
        add_patches(onto, gradients[0], ctx.places)
        return onto, None, None
