"""NPZ files written block by block, the same bytes for the same input."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import ArrayLike

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import atomic_path
from fly64_dose_overlap.files.npz import KINDS, PLAIN_NAME
from fly64_dose_overlap.files.stream import ArrayStream, as_stream, checked_blocks

PIECE_BYTES = 2**20
"""The compressor is fed pieces of this size, however the caller chunks: they decide the bytes."""


def write_npz(path: Path | str, members: Mapping[str, ArrayLike | ArrayStream]) -> None:
    """Write arrays, or streams of blocks, by key as a compressed NPZ, atomically and reproducibly.

    Equal members in equal order give equal bytes: the zip entries carry a fixed date, and
    arrays are stored in C order and little endian. ``numpy.load`` reads the file. Refused are keys
    that are no plain names, arrays that would need pickle, and streams whose blocks do not match
    their shape and type.
    """
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for key, value in members.items():
            _write_member(archive, key, value, where=str(path))


def _write_member(archive: zipfile.ZipFile, key: str, value: ArrayLike | ArrayStream, *, where: str) -> None:
    if not PLAIN_NAME.fullmatch(key):
        raise StudyError(where, f"{key!r} is not a plain name for an array")
    stream = value if isinstance(value, ArrayStream) else as_stream(np.asarray(value))
    dtype = np.dtype(stream.dtype)
    if dtype.kind not in KINDS or dtype.itemsize == 0:
        raise StudyError(where, f"'{key}' is {dtype}, which cannot be stored without pickle")
    stored = dtype.newbyteorder("<")
    header = {"descr": npy_format.dtype_to_descr(stored), "fortran_order": False, "shape": stream.shape}
    # zipfile asks for a sign where a member may outgrow 2 GiB. What it then writes into the header
    # differs between patch releases of Python, so that smaller ones go without.
    large = math.prod(stream.shape) * dtype.itemsize * 1.05 > zipfile.ZIP64_LIMIT
    # A name instead of a ZipInfo: zipfile then takes the fixed date 1980-01-01 and our level.
    with archive.open(f"{key}.npy", "w", force_zip64=large) as member:
        npy_format.write_array_header_1_0(member, header)
        pending = bytearray()
        for block in checked_blocks(stream, f"{where}: '{key}'"):
            pending += np.ascontiguousarray(block, dtype=stored).tobytes()
            whole = len(pending) - len(pending) % PIECE_BYTES
            for start in range(0, whole, PIECE_BYTES):
                member.write(pending[start : start + PIECE_BYTES])
            del pending[:whole]
        member.write(pending)
