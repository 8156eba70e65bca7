"""Arrays that stay in a file and are read by rows.

The file is read by plain reads, not mapped: mapped pages count as the process's own
memory, and a scan read once from end to end would seem to need all of it.
"""

from __future__ import annotations

import errno
import math
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fly64_dose_overlap.errors import StudyError

AnyArray: TypeAlias = NDArray[Any]

BLOCK_BYTES = 4 * 2**20
"""Size of a block of rows; a row that is larger is a block by itself."""
ADVICE = "make room, or set TMPDIR to another folder"
KEEP_FEWER = "keep fewer scans at a time: each has files open; or raise that limit (ulimit -n)"
READ_BYTES = 2**24
"""Most that is asked of the system at once; it gives no more than 2 GiB."""
READ_THROUGH_BYTES = 4096
"""Across lines no longer than this, reading all is faster than reading a part of each."""


class Brief:
    """A dataclass, made with ``repr=False``, that is shown on one screen: arrays by shape and type."""

    also_shown: ClassVar[tuple[str, ...]] = ()
    """Properties that stand behind the fields."""

    def __repr__(self) -> str:
        names = [*self.__dataclass_fields__, *self.also_shown]  # pyright: ignore[reportAttributeAccessIssue]
        found = {name: value for name in names if (value := getattr(self, name)) is not None}
        return f"{type(self).__name__}({', '.join(f'{k}={_brief(v)}' for k, v in found.items())})"


def _brief(value: Any, *, inner: bool = False) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, np.ndarray | DiskArray):
        return f"{value.shape} {value.dtype}"
    if isinstance(value, Mapping):
        items = cast(Mapping[str, Any], value).items()
        return "{...}" if inner else f"{{{', '.join(f'{k}: {_brief(v, inner=True)}' for k, v in items)}}}"
    if isinstance(value, list):
        return f"list of {len(cast(list[Any], value))}"
    return f"{type(value).__name__}(...)" if isinstance(value, Brief) else repr(value)


def rows_per_block(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    """Return how many rows of the first axis make a block of some MiB, at least one."""
    row_bytes = math.prod(shape[1:]) * np.dtype(dtype).itemsize
    return max(1, BLOCK_BYTES // max(1, row_bytes))


def scratch_folder() -> str:
    """Return the folder of temporary arrays.

    It is ``TMPDIR`` where that is set, else ``/var/tmp``: many systems keep ``/tmp`` in
    memory, which is what these files are to save, and the folder of the data may be
    read-only or far away.
    """
    chosen = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    usable = os.access("/var/tmp", os.W_OK | os.X_OK)
    return "/var/tmp" if usable and not chosen else tempfile.gettempdir()


class OpenFile:
    """A file descriptor that is closed when nothing refers to it any more; messages say ``where``."""

    def __init__(self, descriptor: int, where: str) -> None:
        self.descriptor = descriptor
        self.where = where
        weakref.finalize(self, os.close, descriptor)

    def read_into(self, target: AnyArray, offset: int) -> None:
        """Fill a contiguous array with the bytes from ``offset`` on; a file that ends before is refused."""
        view = target.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(view):
            try:
                data = os.pread(self.descriptor, min(READ_BYTES, len(view) - done), offset + done)
            except OSError as error:
                raise StudyError(self.where, f"cannot be read ({error.strerror})") from None
            if not data:
                problem = f"ends at byte {offset + done}: it was cut while it was in use"
                raise StudyError(self.where, problem, "restore it and repeat the command")
            view[done : done + len(data)] = data
            done += len(data)


class DiskArray:
    """An array in a file, of which only rows that are asked for come into memory.

    Rows are read anew each time, safely from several threads at once: whoever reads them may
    overwrite them. A file that is shorter than it was, or cannot be read, is a `StudyError`.

    The file holds ``shape`` in C order, one axis at least, in the machine's own byte order;
    of it the array has the ``rows`` with these numbers, (row,), or all.
    """

    def __init__(
        self,
        file: OpenFile,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self._file = file
        self._stored = shape
        self._rows = rows
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.shape: tuple[int, ...] = shape if rows is None else (len(rows), *shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the rows: the number of an open file means another file later, or elsewhere."""
        return spool, (self.shape, self.dtype, [self[:]])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> AnyArray:
        """Return the whole in memory."""
        if copy is False:
            raise ValueError("an array on disk cannot come into memory without a copy")
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def __getitem__(self, key: int | slice | NDArray[np.integer[Any]] | Sequence[int]) -> AnyArray:
        """Return rows of the first axis in memory: one, those of a slice, or of (row,) int in any order.

        Repeats and negative numbers are as in NumPy, and so is the IndexError of a row that is not there.
        """
        if isinstance(key, slice):
            key = np.arange(*key.indices(len(self)))
        numbers = np.asarray(key)
        if numbers.dtype.kind not in "iu" or numbers.ndim > 1:
            raise IndexError(f"rows are chosen by integers, got {numbers.dtype} of shape {numbers.shape}")
        return self._gather(self._counted(numbers.reshape(-1)))[0 if numbers.ndim == 0 else slice(None)]

    def select_rows(self, rows: NDArray[np.integer[Any]]) -> DiskArray:
        """Return the array of some rows, (row,) int in the order wanted, which stay on disk."""
        chosen = self._counted(np.asarray(rows))
        stored = chosen if self._rows is None else self._rows[chosen]
        return DiskArray(self._file, self._stored, self.dtype, stored)

    def blocks(self, axis: int = 0, rows: int | None = None) -> Iterator[AnyArray]:
        """Yield consecutive blocks along an axis, which becomes the first one.

        Any axis but the first is for arrays of which no rows were selected. A block has ``rows`` along it,
        or some MiB.
        """
        if axis != 0 and self._rows is not None:
            raise ValueError(f"blocks along axis {axis} of selected rows cannot be read")
        shape = (self.shape[axis], *self.shape[:axis], *self.shape[axis + 1 :])
        count = rows_per_block(shape, self.dtype) if rows is None else rows
        for start in range(0, shape[0], count):
            stop = min(start + count, shape[0])
            yield self[start:stop] if axis == 0 else self._across(axis, start, stop)

    def _counted(self, numbers: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return row numbers from 0 up, or refuse them."""
        count = len(self)
        if numbers.size and (numbers.min() < -count or numbers.max() >= count):
            raise IndexError(f"rows {numbers.min()} to {numbers.max()} of {count} were asked for")
        numbers = numbers.astype(np.int64)
        return np.where(numbers < 0, numbers + count, numbers)

    def _gather(self, numbers: NDArray[np.int64]) -> AnyArray:
        """Return rows from 0 up; those that follow each other in the file are read together."""
        if self._rows is not None:
            numbers = self._rows[numbers]
        out = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        starts = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
        for run, first in zip(np.split(out, starts[1:]), numbers[starts].tolist(), strict=False):
            self._file.read_into(run, first * out.strides[0])
        return out

    def _across(self, axis: int, start: int, stop: int) -> AnyArray:
        """Return a part of another axis than the first one, which becomes the first one."""
        before, length, after = self._stored[:axis], self._stored[axis], self._stored[axis + 1 :]
        out = np.empty((math.prod(before), stop - start, *after), self.dtype)
        inner = math.prod(after) * self.dtype.itemsize
        line = max(1, length * inner)
        together = BLOCK_BYTES // line if line <= READ_THROUGH_BYTES else 1
        for first in range(0, len(out), together):
            target, begin = out[first : first + together], first * line
            if together == 1:
                self._file.read_into(target, begin + start * inner)
            else:
                lines = np.empty((len(target), length, *after), self.dtype)
                self._file.read_into(lines, begin)
                target[...] = lines[:, start:stop]
        return np.ascontiguousarray(np.moveaxis(out.reshape(*before, stop - start, *after), axis, 0))


FrameArray: TypeAlias = NDArray[np.float32] | DiskArray
"""Frames in memory or on disk: both have a shape, a type, a length and rows."""


def select_rows(frames: AnyArray | DiskArray, rows: NDArray[np.integer[Any]]) -> Any:
    """Return some rows of an array; what is on disk stays there."""
    return frames.select_rows(rows) if isinstance(frames, DiskArray) else frames[rows]


def described(value: Any) -> str:
    """Return the type of a value for a message, of an array its precision and shape too."""
    name = type(value).__name__
    return f"{name} of {value.dtype} {tuple(value.shape)}" if hasattr(value, "dtype") else name


class Spool:
    """A temporary file that an array of at least one axis is written to.

    It has no name and vanishes with its last user. A disk that is full is refused by a `StudyError`.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._filled = 0
        where = f"{scratch_folder()} (temporary file)"
        try:
            with tempfile.TemporaryFile(dir=scratch_folder(), buffering=0) as unnamed:
                self._file = OpenFile(os.dup(unnamed.fileno()), where)
        except OSError as error:
            problem = f"cannot be made ({error.strerror})"
            too_many = error.errno in (errno.EMFILE, errno.ENFILE)
            raise StudyError(where, problem, KEEP_FEWER if too_many else ADVICE) from None

    def __len__(self) -> int:
        return self._filled

    def append(self, rows: AnyArray) -> None:
        """Write the next rows, converted to the array's type."""
        if rows.shape[1:] != self._shape[1:] or self._filled + len(rows) > self._shape[0]:
            raise ValueError(f"rows of shape {rows.shape} follow {self._filled} rows of {self._shape}")
        data = np.ascontiguousarray(rows, dtype=self._dtype).reshape(-1).view(np.uint8).data
        try:
            while data:
                data = data[os.write(self._file.descriptor, data) :]
        except OSError as error:
            needed = math.prod(self._shape) * self._dtype.itemsize / 2**20
            problem = f"cannot be written ({error.strerror}), it needs {needed:.0f} MiB"
            raise StudyError(self._file.where, problem, ADVICE) from None
        self._filled += len(rows)

    def finish(self) -> DiskArray:
        """Return the array, once all its rows are written."""
        if self._filled != self._shape[0]:
            raise ValueError(f"{self._filled} of {self._shape[0]} rows were written")
        return DiskArray(self._file, self._shape, self._dtype)


def spool(shape: tuple[int, ...], dtype: DTypeLike, blocks: Iterable[AnyArray]) -> DiskArray:
    """Write consecutive blocks of rows to a `Spool` and return the array that they make."""
    written = Spool(shape, dtype)
    for block in blocks:
        written.append(block)
    return written.finish()
