"""Photon counts of a scan, of which only the frames at work need be in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.physics.propagation import uncentre

FRAMES_PER_BLOCK = 256


@runtime_checkable
class Counts(Protocol):
    """Photons of the frames of a scan, (frame, y, x) float32, zero frequency in the corner.

    A tensor is one. Frames come on the processor, whatever device works on them.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, rows and columns."""
        ...

    def __len__(self) -> int:
        """Return the number of frames."""
        ...

    def __getitem__(self, frames: slice | Tensor, /) -> Tensor:
        """Return some frames; indices may have several axes, which come first in the result."""
        ...


@runtime_checkable
class Rows(Protocol):
    """An array, in memory or on disk, that gives rows of its first axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        ...

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        """Return the rows of a slice or of indices along one axis."""
        ...


Store: TypeAlias = Callable[[tuple[int, ...], type[np.float32], Iterable[NDArray[Any]]], Rows]
"""Keeps consecutive blocks of rows of an array of some shape, wherever it likes."""


class StoredCounts:
    """Counts kept as they are wanted; see `Counts`.

    Parameters
    ----------
    rows : (frame, y, x) float32
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.shape = rows.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, frames: slice | Tensor, /) -> Tensor:
        """Return some frames; see `Counts`."""
        if isinstance(frames, slice):
            return self._photons(torch.from_numpy(self._rows[frames]))
        found = self._photons(torch.from_numpy(self._rows[frames.flatten().numpy()]))
        return found.reshape(*frames.shape, *self.shape[1:])

    def _photons(self, stored: Tensor) -> Tensor:
        return stored


class FrameCounts(StoredCounts):
    """Counts of frames as files hold them: square roots, zero frequency at [N/2, N/2].

    Parameters
    ----------
    rows : (frame, y, x) float32, sqrt(photons)
    """

    def _photons(self, stored: Tensor) -> Tensor:
        """Square to whole photons: files hold the square root of counts."""
        return uncentre(stored.square().round_())


class Remainder:
    """What is left of counts when a part of them is taken away; see `Counts`."""

    def __init__(self, whole: Counts, part: Counts) -> None:
        self._whole = whole
        self._part = part
        self.shape = whole.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, frames: slice | Tensor, /) -> Tensor:
        """Return some frames; see `Counts`."""
        return self._whole[frames] - self._part[frames]


def frame_blocks(counts: Counts) -> Iterator[Tensor]:
    """Yield consecutive blocks of the frames of a scan."""
    for first in range(0, len(counts), FRAMES_PER_BLOCK):
        yield counts[first : min(first + FRAMES_PER_BLOCK, len(counts))]
