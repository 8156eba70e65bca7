"""A scan in a file of any form, whose datasets `base.fields` names and whose lengths it states."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files import rules
from fly64_dose_overlap.files.formats import LENGTHS, Found, pairs, stated_unit
from fly64_dose_overlap.files.hdf import HdfFile
from fly64_dose_overlap.files.npz import NpzReader

Fields = Mapping[str, str | float]
"""What `base.fields` says: names of datasets, and numbers."""
IMAGES = {"probe": rules.PROBE, "object": rules.OBJECT, "background": rules.BACKGROUND}
MASKS = ("mask", "bad")
"""True where a pixel counts, and anything but 0 where none does."""
SCAN = ("frames", "y", "x", "unit")
NUMBERS = ("energy_ev", "distance_m", "detector_pixel_m", "object_pixel_m")
"""What it may state, or name a dataset of one number of."""


def mapped(fields: Fields, file: HdfFile | NpzReader) -> Found:
    """Understand any file by a mapping that names its frames and positions, and what `completed` adds.

    ``unit`` is that of the positions, of `LENGTHS` or ``px``.

    Raises
    ------
    StudyError
        If a name is unknown, a dataset is missing, or positions have no unit.
    """
    where = f"{file.where}: base.fields"
    found = completed(Found("mapping", None), fields, file)
    found.frames = None if "frames" not in fields else str(fields["frames"])
    if not {"x", "y"} <= fields.keys():
        raise StudyError(where, "does not name both y and x", "a scan has positions")
    y, x, unit = str(fields["y"]), str(fields["x"]), fields.get("unit")
    if y == x:
        raise StudyError(where, f"y and x are both {y!r}", "each has a number of every frame")
    if unit != "px" and unit not in LENGTHS:
        raise StudyError(where, f"unit of y and x is {unit!r}", f"state one of {', '.join(('px', *LENGTHS))}")
    for name in (y, x):
        stated = stated_unit(file, name) if isinstance(file, HdfFile) else ""
        if stated in LENGTHS and (unit == "px" or LENGTHS[stated] != LENGTHS[str(unit)]):
            raise StudyError(
                where, f"unit is {unit!r}, but {name} says {stated!r}", "mend the one that is wrong"
            )
    positions = pairs(file, y, x)
    if unit == "px":
        found.positions_px = positions
    else:
        found.positions_m = positions * LENGTHS[str(unit)]
    return found


def completed(found: Found, fields: Fields, file: HdfFile | NpzReader) -> Found:
    """Return what was understood of a file with the images and numbers that a mapping names besides."""
    where = f"{file.where}: base.fields"
    known = (*SCAN, *IMAGES, *MASKS, *NUMBERS)
    if unknown := sorted(set(fields) - {*known}):
        raise StudyError(where, f"{', '.join(unknown)} is unknown", f"it may have {', '.join(known)}")
    for key in (*SCAN[:3], *IMAGES, *MASKS):
        if key in fields and str(fields[key]) not in file:
            held = ", ".join([*(file.names() if isinstance(file, HdfFile) else file)][:20])
            raise StudyError(where, f"{key}: there is no {fields[key]!r}", f"the file holds {held}")
    for key in NUMBERS:
        if key in fields:
            setattr(found, key, _stated(fields[key], file, f"{where}.{key}"))
    found.arrays |= {name: file.load(str(fields[key])) for key, name in IMAGES.items() if key in fields}
    if "mask" in fields:
        mask = file.load(str(fields["mask"]))
        if mask.dtype.kind in "iu" and np.isin(mask, (0, 1)).all():  # HDF5 has few booleans
            mask = mask == 1
        found.arrays[rules.MASK] = mask
    if "bad" in fields:
        counting = np.equal(file.load(str(fields["bad"])), 0)
        mask = found.arrays.get(rules.MASK, counting)
        if mask.shape[-2:] != counting.shape[-2:] or mask.dtype.kind != "b":
            problem = f"mask is {mask.dtype} {mask.shape}, and bad has shape {counting.shape}"
            raise StudyError(where, problem, "a mask is boolean, and both are of the frames' pixels")
        found.arrays[rules.MASK] = mask & counting
    return found


def _stated(value: str | float, file: HdfFile | NpzReader, where: str) -> float:
    """Return a positive number that is stated, or is the only one of a dataset."""
    if isinstance(value, str):
        array = file.load(value)
        if array.size != 1 or array.dtype.kind not in "iuf":
            problem = f"{value!r} holds {array.dtype} {array.shape}"
            raise StudyError(where, problem, "name a dataset of one number")
        value = float(array.reshape(()))
    if not (np.isfinite(value) and value > 0):
        raise StudyError(where, f"is {value:g}", "it must be positive")
    return float(value)
