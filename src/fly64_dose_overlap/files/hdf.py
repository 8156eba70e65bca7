"""HDF5 files read by rows. Nothing in them is trusted: kinds and sizes are checked before memory is taken."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  # pyright: ignore[reportUnusedImport] - registers filters of detectors
import numpy as np
from numpy.typing import DTypeLike, NDArray

from fly64_dose_overlap.arrays import AnyArray
from fly64_dose_overlap.errors import MissingFileError, StudyError

MAX_BYTES = 4 * 2**30
"""Of an array that comes into memory as a whole."""
MAX_AXES = 6
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)
"""What h5py raises on damaged or hostile files."""


class HdfFile:
    """An open HDF5 file; use it as a context manager.

    Raises
    ------
    MissingFileError
        If there is no such file.
    StudyError
        If it is not an HDF5 file, or is truncated.
    """

    def __init__(self, path: Path | str) -> None:
        self.where = str(path)
        if not os.path.exists(path):
            raise MissingFileError(self.where, "no such file")
        try:
            self._file = h5py.File(path, "r")
        except DAMAGE as error:
            problem = f"is no HDF5 file, or is truncated ({error})"
            raise StudyError(self.where, problem, "copy it again from where it was made") from None

    def __enter__(self) -> HdfFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return self._found(name) is not None

    def names(self) -> list[str]:
        """Return the names of all datasets, sorted."""
        found: list[str] = []

        def visit(name: str | bytes, item: object) -> None:
            if isinstance(item, h5py.Dataset) and isinstance(name, str):
                found.append(name)

        with self._guarded("its contents"):
            self._file.visititems(visit)
        return sorted(found)

    def groups(self, name: str = "/") -> list[str]:
        """Return the names of the groups in a group, sorted; none if there is no such group."""
        group = self._found(name)
        if not isinstance(group, h5py.Group):
            return []
        with self._guarded(name):
            keys = [str(key) for key in group]
        return sorted(key for key in keys if isinstance(self._found(f"{name}/{key}"), h5py.Group))

    def attribute(self, name: str, key: str) -> Any:
        """Return an attribute of a group or dataset, text and single numbers as Python's; None without."""
        item = self._found(name)
        if item is None or key not in item.attrs:
            return None
        with self._guarded(f"attribute {key} of {name}"):
            return _plain(item.attrs[key])

    def first(self, *names: str) -> str | None:
        """Return the first of some names that is a dataset."""
        return next((name for name in names if isinstance(self._found(name), h5py.Dataset)), None)

    def axes(self, name: str) -> int:
        """Return the number of axes of a dataset of numbers, 0 of anything else."""
        dataset = self._found(name)
        numbers = isinstance(dataset, h5py.Dataset) and dataset.dtype.kind in "iuf"
        return len(dataset.shape) if numbers and dataset.shape else 0

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return shape and precision of a dataset; pairs named real and imag, MATLAB's, are complex."""
        dataset = self._dataset(name)
        return dataset.shape, _complex_of(dataset.dtype) or dataset.dtype

    def load(self, name: str) -> AnyArray:
        """Return a dataset, in the machine's own byte order."""
        dataset = self._dataset(name)
        self._require_room(name, dataset.shape, dataset.dtype)
        with self._guarded(name):
            return _native(np.asarray(dataset[()]))

    def number(self, name: str | None) -> float | None:
        """Return the one number that a dataset holds; None for no name, or if it is not one finite number."""
        if name is None:
            return None
        shape, dtype = self.header(name)
        if math.prod(shape) != 1 or dtype.kind not in "iuf":
            return None
        value = float(self.load(name).reshape(()))
        return value if math.isfinite(value) else None

    def stream(self, name: str, rows: int) -> Iterator[AnyArray]:
        """Yield blocks of consecutive rows of the first axis."""
        dataset = self._dataset(name)
        self._require_room(name, (min(rows, dataset.shape[0]), *dataset.shape[1:]), dataset.dtype)
        for first in range(0, dataset.shape[0], rows):
            with self._guarded(name):
                block = np.asarray(dataset[first : first + rows])
            yield _native(block)

    def _found(self, name: str) -> Any:
        try:
            return self._file.get(name)
        except DAMAGE:  # a link to what is not there
            return None

    def _dataset(self, name: str) -> h5py.Dataset:
        dataset = self._found(name)
        if not isinstance(dataset, h5py.Dataset):
            held = ", ".join(self.names()[:20]) or "nothing"
            raise StudyError(self.where, f"has no dataset {name!r}", f"it holds {held}")
        kind = "c" if _complex_of(dataset.dtype) else dataset.dtype.kind
        if kind not in "biufc" or dataset.shape is None or len(dataset.shape) > MAX_AXES:
            raise StudyError(self.where, f"{name!r} holds no numbers: {dataset.dtype} {dataset.shape}")
        return dataset

    def _require_room(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > MAX_BYTES:
            problem = f"{name!r} {shape} takes {size / 2**30:.1f} GiB, at most {MAX_BYTES // 2**30} are read"
            raise StudyError(self.where, problem, "keep fewer frames, or cut them to the part with photons")

    def _guarded(self, what: str) -> _Guard:
        return _Guard(self.where, what)


class _Guard:
    """Turn what h5py raises on damaged data into a `StudyError`."""

    def __init__(self, where: str, what: str) -> None:
        self._where, self._what = where, what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, DAMAGE) and not isinstance(error, StudyError):
            problem = f"{self._what} cannot be read ({error})"
            hint = "copy the file again"
            raise StudyError(self._where, problem, hint) from None


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray) and value.size == 1:
        return _plain(value.reshape(())[()])
    return value.item() if isinstance(value, np.generic) else value


def _complex_of(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the complex type of pairs that are named as MATLAB names them."""
    if dtype.names != ("real", "imag"):
        return None
    part = dtype["real"]
    return np.dtype(np.complex64 if part == np.float32 else np.complex128)


def _native(array: NDArray[Any]) -> AnyArray:
    wanted = _complex_of(array.dtype)
    if wanted is not None:
        joined = np.empty(array.shape, wanted)
        joined.real, joined.imag = array["real"], array["imag"]
        return joined
    return array.astype(array.dtype.newbyteorder("="), copy=False)
