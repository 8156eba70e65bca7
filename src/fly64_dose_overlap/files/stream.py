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
    """An array that is written block by block and never held whole."""

    shape: tuple[int, ...]
    """Of the whole."""
    dtype: DTypeLike
    """Of every block."""
    chunks: Iterable[AnyArray]
    """Consecutive blocks of the first axis; their rows must add up to ``shape[0]``."""


def as_stream(array: AnyArray | DiskArray) -> ArrayStream:
    """Return an array, in memory or on disk, as a stream of blocks."""
    if isinstance(array, DiskArray):
        return ArrayStream(array.shape, array.dtype, array.blocks())
    if array.ndim == 0:
        return ArrayStream((), array.dtype, [array])
    rows = rows_per_block(array.shape, array.dtype)
    return ArrayStream(array.shape, array.dtype, (array[i : i + rows] for i in range(0, len(array), rows)))


def checked_blocks(stream: ArrayStream, where: str) -> Iterator[AnyArray]:
    """Pass the blocks of a stream on; refuse those that do not match its shape and type."""
    dtype = np.dtype(stream.dtype)
    if not stream.shape:
        yield from stream.chunks
        return
    rows, (length, *axes) = 0, stream.shape
    for block in stream.chunks:
        if block.dtype != dtype or block.shape[1:] != tuple(axes):
            expected = f"{dtype} rows of shape {tuple(axes)}"
            raise StudyError(where, f"a block is {block.dtype} {block.shape}, expected {expected}")
        rows += len(block)
        if rows > length:
            break
        yield block
    if rows != length:
        found = f"more than {length}" if rows > length else str(rows)
        raise StudyError(where, f"{found} rows were streamed, expected {length}")
