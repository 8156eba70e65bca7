"""A scan in a file of another program, under the names and with the lengths of our own files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fly64_dose_overlap.arrays import AnyArray
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files import rules
from fly64_dose_overlap.files.formats import COUNTS, FORMATS, Found
from fly64_dose_overlap.files.hdf import HdfFile
from fly64_dose_overlap.files.mapping import SCAN, Fields, completed, mapped
from fly64_dose_overlap.files.npz import NpzReader
from fly64_dose_overlap.scan import HC_EV_M

MARGIN_PX = 2
"""Around the windows of a scan whose object's grid is not given."""
MOST_PIXELS = 2**28
"""Of an object's grid that is laid about the positions of a file."""


class ForeignScan:
    """A scan in a file of another program, with the interface of `NpzReader` and the names of our own files.

    It closes the file.

    Raises
    ------
    StudyError
        If it is of no format that is known and not mapped, or does not say what its lengths are.
    """

    def __init__(self, file: HdfFile | NpzReader, fields: Fields | None = None) -> None:
        self._file = file
        try:
            found = _understood(file, fields or {})
            self.format = found.name
            self._frames = found.frames
            self._transposed = found.transposed
            self._arrays, self.physics = in_pixels(found, self._file)
        except BaseException:
            self._file.__exit__()
            raise

    def __enter__(self) -> ForeignScan:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__()

    def __iter__(self) -> Iterator[str]:
        yield from self._arrays
        if self._frames is not None:
            yield COUNTS

    def __contains__(self, key: str) -> bool:
        return key in self._arrays or (key == COUNTS and self._frames is not None)

    def is_pickled(self, key: str) -> bool:
        """Return that nothing is."""
        return False

    def header(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return shape and precision of an array; frames are (frame, y, x)."""
        if key != COUNTS or self._frames is None:
            return self._arrays[key].shape, self._arrays[key].dtype
        shape, dtype = self._file.header(self._frames)
        sides = shape[:-3:-1] if self._transposed else shape[-2:]
        return (int(np.prod(shape[:-2])), *sides), dtype

    def load(self, key: str) -> AnyArray:
        """Return an array."""
        return np.concatenate(list(self.stream(key))) if key == COUNTS else self._arrays[key]

    def stream(self, key: str, rows: int = 64) -> Iterator[AnyArray]:
        """Yield blocks of frames."""
        assert key == COUNTS
        assert self._frames is not None
        shape, _ = self._file.header(self._frames)
        for block in self._file.stream(self._frames, max(1, rows // int(np.prod(shape[1:-2])))):
            frames = block.reshape(-1, *shape[-2:])
            yield frames.swapaxes(1, 2) if self._transposed else frames


def _understood(file: HdfFile | NpzReader, fields: Fields) -> Found:
    """Return what a mapping names; one without frames and positions completes a file of a known format."""
    if not isinstance(file, HdfFile) or not fields.keys().isdisjoint(SCAN):
        return mapped(fields, file)
    found = next((each for make in FORMATS if (each := make(file))), None)
    if found is None:
        known = ", ".join(("CXI", "ptypy's ptyd and ptyr", "ptychodus", "PtychoShelves", "EMD"))
        hint = f"name its datasets in base.fields; it holds {', '.join(file.names()[:20])}"
        raise StudyError(file.where, f"is HDF5 of no format that is known ({known})", hint)
    return completed(found, fields, file)


def in_pixels(found: Found, file: HdfFile | NpzReader) -> tuple[dict[str, AnyArray], dict[str, float]]:
    """Return the arrays of a scan under our names, positions in object pixels, and its optics."""
    arrays = dict(found.arrays)
    if found.frames:
        of_frames = file.header(found.frames)[0]
        if len(of_frames) < 3 or 0 in of_frames:
            problem = f"{found.frames} has shape {of_frames}"
            raise StudyError(file.where, problem, "it holds frames (frame, y, x)")
        side = of_frames[-1]
    elif rules.PROBE in arrays and arrays[rules.PROBE].ndim > 1:
        side = arrays[rules.PROBE].shape[-1]
    else:
        raise StudyError(
            file.where, f"{found.name} has neither frames nor a probe (y, x)", "is it the right file?"
        )
    pixel = found.object_pixel_m
    if pixel is None and found.energy_ev and found.distance_m and found.detector_pixel_m:
        pixel = HC_EV_M / found.energy_ev * found.distance_m / (side * found.detector_pixel_m)
    positions = found.positions_px
    if positions is None and found.positions_m is not None:
        if pixel is None:
            names = ("energy_ev", "distance_m", "detector_pixel_m")
            missing = [name for name in names if not getattr(found, name)]
            problem = f"positions are lengths, but the file does not say {', '.join(missing)}"
            hint = "state them, or object_pixel_m, in base.fields (fields= in Python)"
            raise StudyError(file.where, problem, hint)
        positions = found.positions_m / pixel
    if positions is None:
        hint = "name frames, y, x and their unit in base.fields (fields= in Python)"
        raise StudyError(file.where, f"{found.name} that does not say the positions", hint)
    if not np.isfinite(positions).all():
        frame = int(np.argwhere(~np.isfinite(positions))[0, 0])
        y, x = positions[frame]
        problem = f"position of frame {frame} is ({y:.6g}, {x:.6g}) object pixels"
        raise StudyError(file.where, problem, "positions and the lengths that scale them must be finite")
    obj = arrays.get(rules.OBJECT)
    if obj is None:
        positions = positions - np.floor(positions.min(axis=0)) + side // 2 + MARGIN_PX
        shape = np.ceil(positions.max(axis=0)) + side - side // 2 + MARGIN_PX
        if shape.prod() > MOST_PIXELS:
            problem = f"the positions span {shape[0]:.4g} x {shape[1]:.4g} object pixels of {pixel} m"
            raise StudyError(file.where, problem, "are lengths, energy and pixels in the units stated?")
        arrays[rules.OBJECT] = np.ones(tuple(shape.astype(int)), np.complex64)
    elif found.object_centre_m is not None and pixel:
        # A position is the middle of a window, from the middle of the object.
        middle = (np.array(obj.shape[-2:]) - side) / 2 + side // 2
        positions = positions - found.object_centre_m / pixel + middle
    arrays[rules.YCOORDS], arrays[rules.XCOORDS] = (np.ascontiguousarray(axis) for axis in positions.T)
    known = {
        "energy_ev": found.energy_ev,
        "object_pixel_m": pixel,
        "detector_pixel_m": found.detector_pixel_m,
        "detector_distance_m": found.distance_m,
    }
    return arrays, {name: float(value) for name, value in known.items() if value}
