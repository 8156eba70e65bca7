"""Arrays that come block by block and are never held whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from fly64_dose_overlap.arrays import AnyArray, DiskArray, rows_per_block
from fly64_dose_overlap.errors import StudyError


@dataclass(frozen=True, eq=False)
class ArrayStream:
    """An array that is written block by block and never held whole.

    Attributes
    ----------
    shape : tuple of int
        Shape of the whole, at least one axis.
    dtype : dtype-like
        Type of every block.
    chunks : iterable of ndarray
        Consecutive blocks of the first axis; their rows must add up to ``shape[0]``.
    """

    shape: tuple[int, ...]
    dtype: DTypeLike
    chunks: Iterable[AnyArray]


def as_stream(array: AnyArray | DiskArray) -> ArrayStream:
    """Return an array, in memory or on disk, as a stream of blocks."""
    if isinstance(array, DiskArray):
        return ArrayStream(array.shape, array.dtype, array.blocks())
    if array.ndim == 0:
        return ArrayStream((), array.dtype, [array])
    rows = rows_per_block(array.shape, array.dtype)
    return ArrayStream(array.shape, array.dtype, (array[i : i + rows] for i in range(0, len(array), rows)))


def checked_blocks(stream: ArrayStream, where: str) -> Iterator[AnyArray]:
    """Pass the blocks of a stream on.

    Raises
    ------
    StudyError
        If they do not match its shape and type.
    """
    dtype = np.dtype(stream.dtype)
    rows = 0
    for block in stream.chunks:
        if block.dtype != dtype or (stream.shape and block.shape[1:] != stream.shape[1:]):
            expected = f"{dtype} rows of shape {stream.shape[1:]}"
            raise StudyError(where, f"a block is {block.dtype} {block.shape}, expected {expected}")
        rows += block.shape[0] if stream.shape else 0
        if stream.shape and rows > stream.shape[0]:
            break
        yield block
    if stream.shape and rows != stream.shape[0]:
        found = f"more than {stream.shape[0]}" if rows > stream.shape[0] else str(rows)
        raise StudyError(where, f"{found} rows were streamed, expected {stream.shape[0]}")
