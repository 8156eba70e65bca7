"""NPZ files without pickle, safe to read.

A reader trusts nothing in the file: names, sizes and headers are checked before memory
is allocated, and checksums before the data count as read.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import DTypeLike

from fly64_dose_overlap.arrays import AnyArray, DiskArray, rows_per_block, spool
from fly64_dose_overlap.errors import MissingFileError, StudyError

MAX_TOTAL_BYTES = 64 * 2**30
"""Largest declared size of all members together, uncompressed."""
MAX_MEMBERS = 1000
MAX_AXES = 32
MAX_HEADER_BYTES = 16 * 1024
MAX_DEFLATE_RATIO = 1032
"""Deflate cannot do better; a member that claims more lies about its size."""
PIECE_BYTES = 2**20
"""The decompressor is fed pieces of this size, however the caller chunks."""

PLAIN_NAME = re.compile(r"(?!\.)[\w .+()-]+")
KINDS = "biufcUS"
# Everything that zipfile and zlib raise on damaged or hostile input.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    RuntimeError,
    KeyError,
)

_Header = tuple[tuple[int, ...], bool, np.dtype[Any]]
"""Shape, whether the first axis varies fastest, and type of an array."""
_OTHERS = {
    b"\x89HDF": "it is HDF5, as CXI, NeXus and MATLAB 7.3 are: write its arrays with numpy.savez",
    b"\x93NUMPY": "it is a single array: write all of them to one file with numpy.savez",
    b"MATLAB": "it is MATLAB's: read it with scipy.io.loadmat and write its arrays with numpy.savez",
    b"version https://git-lfs": "it only names the data: git lfs pull",
}
"""What else is given for an NPZ file, by its first bytes, and what to do then."""


def _hint_for(path: Path) -> str:
    start = b""
    with suppress(OSError), path.open("rb") as file:
        start = file.read(max(map(len, _OTHERS)))
    return next((hint for magic, hint in _OTHERS.items() if start.startswith(magic)), "")


class NpzReader:
    """Read an NPZ file member by member; pickled objects are never loaded.

    Use it as a context manager. Arrays come out in C order and in the machine's own byte
    order, whatever the file holds.

    Raises
    ------
    MissingFileError
        If there is no such file.
    StudyError
        If it is not an NPZ file, is damaged, has members that are not plain ``name.npy``,
        or declares more than `MAX_TOTAL_BYTES`.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.where = str(path)
        if not os.path.exists(path):  # unlike Path's, never an exception of its own
            raise MissingFileError(self.where, "no such file")
        if not self.path.is_file():
            raise StudyError(self.where, "is not a regular file")
        try:
            self._archive = zipfile.ZipFile(self.path)
        except PermissionError:
            raise StudyError(self.where, "cannot be read (permission denied)") from None
        except _DAMAGE as error:
            problem = f"is not an NPZ file, or is truncated ({error})"
            raise StudyError(self.where, problem, _hint_for(self.path)) from None
        try:
            self._members = self._list_members()
        except StudyError:
            self._archive.close()
            raise

    def __enter__(self) -> NpzReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __contains__(self, key: str) -> bool:
        return key in self._members

    def header(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return shape and type of an array, as the file has them, without reading its data.

        A member that is absent, pickled, damaged or of another size than it declares is refused.
        """
        with self._open(key) as member:
            shape, _, dtype = self._header(key, member)
        return shape, dtype

    def is_pickled(self, key: str) -> bool:
        """Tell whether a member holds pickled objects, which can never be loaded."""
        with self._open(key) as member:
            return self._read_header(key, member)[2].hasobject

    def load(self, key: str) -> AnyArray:
        """Return a whole array; raises as `header`."""
        with self._open(key) as member:
            shape, fortran, dtype = self._header(key, member)
            array = self._fill(key, member, shape[::-1] if fortran else shape, dtype)
            self._finish(key, member)
        return np.ascontiguousarray(array.T) if fortran else array

    def stream(self, key: str, rows: int | None = None) -> Iterator[AnyArray]:
        """Yield consecutive blocks of at most ``rows`` rows of the first axis, or of some MiB.

        One block is held at a time. The rows of a Fortran-ordered array lie scattered
        through the file, so it passes through a temporary file first. The checksum is
        known only after the last block.
        """
        if rows is not None and rows < 1:
            raise StudyError(self.where, f"rows per block must be at least 1, got {rows}")
        with self._open(key) as member:
            shape, fortran, dtype = self._header(key, member)
            if not shape:
                raise StudyError(self.where, f"'{key}' is a scalar and has no rows to stream")
            rows = rows or rows_per_block(shape, dtype)
            if not fortran:
                yield from self._blocks(key, member, shape, dtype, rows)
                return
            shape = shape[::-1]
            blocks = self._blocks(key, member, shape, dtype, rows_per_block(shape, dtype))
            turned = spool(shape, dtype.newbyteorder("="), blocks)
        for block in turned.blocks(axis=len(shape) - 1, rows=rows):
            yield np.ascontiguousarray(block.transpose(0, *range(len(shape) - 1, 0, -1)))

    def rows_on_disk(
        self,
        key: str,
        dtype: DTypeLike | None = None,
        through: Callable[[Iterator[AnyArray]], Iterator[AnyArray]] = iter,
    ) -> DiskArray:
        """Return an array as a temporary file, once its data are known to be sound.

        It has the ``dtype``, or the file's own. ``through`` passes the blocks on, perhaps changed,
        and refuses what it finds wrong with them; of data that are both damaged and refused, the
        damage is reported.
        """
        shape, found = self.header(key)
        blocks = self.stream(key)
        wanted = found.newbyteorder("=") if dtype is None else dtype
        try:
            return spool(shape, wanted, through(blocks))
        except StudyError:
            for _ in blocks:
                pass
            raise

    def _blocks(
        self, key: str, member: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], rows: int
    ) -> Iterator[AnyArray]:
        for start in range(0, shape[0], rows):
            yield self._fill(key, member, (min(rows, shape[0] - start), *shape[1:]), dtype)
        self._finish(key, member)

    def _list_members(self) -> dict[str, zipfile.ZipInfo]:
        infos = self._archive.infolist()
        if len(infos) > MAX_MEMBERS:
            raise StudyError(self.where, f"has {len(infos)} members, at most {MAX_MEMBERS} are read")
        members: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            key = info.orig_filename.removesuffix(".npy")
            if not info.orig_filename.endswith(".npy") or not PLAIN_NAME.fullmatch(key):
                raise StudyError(self.where, f"member {info.orig_filename!r} is not a plain array name.npy")
            if key in members:
                raise StudyError(self.where, f"has more than one member '{key}'")
            if info.flag_bits & 1:
                raise StudyError(self.where, f"'{key}' is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise StudyError(self.where, f"'{key}' is compressed by another method than NumPy's")
            members[key] = info
        total = sum(info.file_size for info in infos)
        if total > MAX_TOTAL_BYTES:
            limit = MAX_TOTAL_BYTES // 2**30
            raise StudyError(self.where, f"declares {total} bytes of arrays, more than {limit} GiB")
        return members

    def _open(self, key: str) -> IO[bytes]:
        if key not in self._members:
            raise StudyError(self.where, f"has no '{key}'; it holds {', '.join(self._members) or 'nothing'}")
        try:
            return self._archive.open(self._members[key])
        except _DAMAGE as error:
            raise self._damaged(key, error) from None

    def _damaged(self, key: str, error: object) -> StudyError:
        return StudyError(self.where, f"'{key}' is damaged or truncated ({error})", "copy the file again")

    def _read(self, key: str, member: IO[bytes], count: int) -> bytes:
        try:
            data = member.read(count)
        except _DAMAGE as error:
            raise self._damaged(key, error) from None
        if len(data) != count:
            raise self._damaged(key, "it ends early")
        return data

    def _read_header(self, key: str, member: IO[bytes]) -> _Header:
        """Return what the member declares, whether it can be read or not."""
        start = self._read(key, member, 8)
        version = start[6], start[7]
        if start[:6] != npy_format.MAGIC_PREFIX or version not in ((1, 0), (2, 0)):
            raise StudyError(self.where, f"'{key}' is not an array in NumPy's format 1.0 or 2.0")
        length = self._read(key, member, 2 if version == (1, 0) else 4)
        count = int.from_bytes(length, "little")
        if count > MAX_HEADER_BYTES:
            raise StudyError(self.where, f"'{key}' declares a header of {count} bytes")
        text = io.BytesIO(length + self._read(key, member, count))
        parse = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                shape, fortran, dtype = parse(text)
        except Exception:
            raise StudyError(self.where, f"'{key}' has a header that is not NumPy's") from None
        return shape, fortran and len(shape) > 1, dtype

    def _header(self, key: str, member: IO[bytes]) -> _Header:
        """Return the header if the data can be read, and allocated, as it says."""
        shape, fortran, dtype = self._read_header(key, member)
        if dtype.hasobject:
            problem = f"'{key}' holds pickled objects, which are never loaded"
            raise StudyError(self.where, problem, "save it as a plain array or as JSON text")
        if dtype.kind not in KINDS or dtype.itemsize == 0:
            raise StudyError(self.where, f"'{key}' is {dtype}, expected numbers or text")
        negative = any(length < 0 for length in shape)
        extent = dtype.itemsize * math.prod(max(1, length) for length in shape)
        if negative or len(shape) > MAX_AXES or extent > MAX_TOTAL_BYTES:
            raise StudyError(self.where, f"'{key}' declares an impossible shape with {len(shape)} axes")
        info = self._members[key]
        declared, needed = info.file_size, member.tell() + math.prod(shape) * dtype.itemsize
        if needed != declared:
            raise self._damaged(key, f"it has {declared} bytes, but {dtype} {shape} needs {needed}")
        if declared > MAX_DEFLATE_RATIO * info.compress_size + PIECE_BYTES:
            raise self._damaged(key, f"{info.compress_size} bytes cannot unpack to {declared}")
        return shape, fortran, dtype

    def _fill(self, key: str, member: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> AnyArray:
        """Read the next ``shape`` items, a piece at a time, into a native array."""
        try:
            array = np.empty(shape, dtype)
        except MemoryError:
            needed = math.prod(shape) * dtype.itemsize / 2**30
            raise StudyError(self.where, f"'{key}' needs {needed:.1f} GiB of memory") from None
        target = array.reshape(-1).view(np.uint8)
        for start in range(0, target.size, PIECE_BYTES):
            count = min(PIECE_BYTES, target.size - start)
            target[start : start + count] = np.frombuffer(self._read(key, member, count), np.uint8)
        if not dtype.isnative:
            array = array.byteswap(inplace=True).view(dtype.newbyteorder("="))
        if dtype.kind == "U" and array.reshape(-1).view(np.uint32).max(initial=0) > sys.maxunicode:
            raise self._damaged(key, "it is not text")
        return array

    def _finish(self, key: str, member: IO[bytes]) -> None:
        """Reach the member's end, where its checksum is compared."""
        try:
            excess = member.read(1)
        except _DAMAGE as error:
            raise self._damaged(key, error) from None
        if excess:
            raise self._damaged(key, "it goes on after its end")
