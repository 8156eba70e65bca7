"""The stitching of `learning.stitch` on a GPU, where canvases stay in the device's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.learning.stitch import overlap_matrix, pairs_to_compare, synchronise

PIXELS_AT_ONCE = 2**25
"""Pixels of canvases that are worked on at once: some gigabyte with their copies."""


class DeviceStitcher:
    """Collect canvases on a device and merge them on the object's grid.

    Takes and gives what `Stitcher` does. Sums run in another order, on a GPU a different
    one each time, so that the last bits of the result differ.
    """

    def __init__(self, origins_px: NDArray[np.integer], canvas_side: int, layers: int = 1) -> None:
        self._origins = origins_px.astype(np.int64)
        self._side = canvas_side
        self._layers: list[list[Tensor]] = [[] for _ in range(layers)]
        self._weights: list[Tensor] = []

    def add(self, layers: Sequence[Any], illumination: Any) -> None:
        """Append canvases in the order of the origins; see `Stitcher.add`."""
        for stored, canvases in zip(self._layers, layers, strict=True):
            stored.append(torch.as_tensor(canvases).to(torch.complex64))
        self._weights.append(torch.as_tensor(illumination).to(torch.float32))

    def merge(self, shape: tuple[int, int]) -> NDArray[np.complex64]:
        """Return every layer on a grid of ``shape``, (layer, y, x); see `Stitcher.merge`."""
        added = sum(map(len, self._weights))
        if added != len(self._origins):
            raise RuntimeError(f"{added} of {len(self._origins)} canvases were added")
        weights = torch.cat(self._weights)
        layers = [torch.cat(canvases) for canvases in self._layers]
        weighted = layers[-1] * weights
        sums = (weighted * weights).sum(dim=(1, 2), dtype=torch.complex128).cpu().numpy()
        pairs = pairs_to_compare(self._origins, self._side)
        overlaps = overlap_matrix(pairs, self._inner_products(weighted, pairs), len(self._origins))
        turns = torch.from_numpy(np.conj(synchronise(overlaps, sums))).to(weights.device, torch.complex64)
        squared = weights.square()
        weight = self._placed(squared, shape)
        merged = [
            torch.where(weight > 0, self._placed(squared * turns[:, None, None] * layer, shape) / weight, 1)
            for layer in layers
        ]
        return torch.stack(merged).cpu().numpy()

    def _inner_products(self, canvases: Tensor, pairs: NDArray[np.int64]) -> NDArray[np.complex128]:
        """Return the inner product of each pair of canvases where they lie over each other."""
        side, device = self._side, canvases.device
        offsets = torch.from_numpy(self._origins[pairs[:, 1]] - self._origins[pairs[:, 0]]).to(device)
        first, second = torch.from_numpy(pairs).to(device).unbind(dim=1)
        along = torch.arange(side, device=device)
        products: list[Tensor] = []
        for part in torch.arange(len(pairs), device=device).split(max(1, PIXELS_AT_ONCE // side**2)):
            # Pixel p of the second canvas lies over pixel p + offset of the first.
            y, x = offsets[part].T[:, :, None] + along
            common = _outer(torch.logical_and, (y >= 0) & (y < side), (x >= 0) & (x < side))
            places = _outer(torch.add, y.clamp(0, side - 1) * side, x.clamp(0, side - 1))
            over = canvases.view(-1)[places + first[part, None, None] * side**2]
            product = canvases[second[part]].conj() * over * common
            products.append(product.sum(dim=(1, 2), dtype=torch.complex128))
        return torch.cat(products).cpu().numpy()

    def _placed(self, canvases: Tensor, shape: tuple[int, int]) -> Tensor:
        """Return canvases added onto an empty grid; what hangs over its edge is left out."""
        side, device = self._side, canvases.device
        rows, columns = shape
        origins = torch.from_numpy(self._origins).to(device)
        along = torch.arange(side, device=device)
        total = torch.zeros(rows * columns + 1, dtype=canvases.dtype, device=device)
        for part in torch.arange(len(canvases), device=device).split(max(1, PIXELS_AT_ONCE // side**2)):
            y, x = origins[part].T[:, :, None] + along
            inside = _outer(torch.logical_and, (y >= 0) & (y < rows), (x >= 0) & (x < columns))
            places = torch.where(inside, _outer(torch.add, y * columns, x), rows * columns)
            total.index_add_(0, places.ravel(), canvases[part].ravel())
        return total[:-1].view(shape)


def _outer(combine: Callable[[Tensor, Tensor], Tensor], rows: Tensor, columns: Tensor) -> Tensor:
    """Combine every row with every column, (canvas, y) and (canvas, x), to (canvas, y, x)."""
    return combine(rows[:, :, None], columns[:, None, :])
