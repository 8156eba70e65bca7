"""A user's own file made a canonical base set, every change on record."""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from fly64_dose_overlap import provenance
from fly64_dose_overlap.arrays import AnyArray, DiskArray
from fly64_dose_overlap.config import NOTHING_TO_MEND, MendParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files import rules
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.dataset import BaseSet, base_from_arrays, read_record
from fly64_dose_overlap.files.foreign import ForeignScan
from fly64_dose_overlap.files.hdf import HdfFile
from fly64_dose_overlap.files.mapping import Fields
from fly64_dose_overlap.files.mending import FRAME_TURNS, ORDER_TURNS, rows_of, turn_positions, turn_probe
from fly64_dose_overlap.files.npz import NpzReader
from fly64_dose_overlap.files.own_frames import FRAME_KEYS, TOOL, Import, load, load_frames
from fly64_dose_overlap.physics.modes import strongest_mode
from fly64_dose_overlap.scan import HC_EV_M

HDF_MAGIC = b"\x89HDF"
PHYSICS = {
    "energy_ev": (30.0, 1e6),
    "object_pixel_m": (1e-12, 1e-5),
    "detector_pixel_m": (1e-7, 1e-2),
    "detector_distance_m": (1e-3, 1e3),
}
"""Of lengths and energies that are used, where they lie: those in other units do not."""
PIXEL_TOLERANCE = 0.1

Modes = Literal["strongest", "all"]
"""Which probe modes of a file are kept."""


def read_user_base(
    path: Path | str,
    *,
    modes: Modes = "strongest",
    fields: Fields | None = None,
    counts_per_photon: float | None = None,
    frames: bool = True,
    mend: MendParams = NOTHING_TO_MEND,
) -> BaseSet:
    """Read a user's file as a base set, converting what can be converted without guessing.

    Besides NPZ files, HDF5 of the formats in `files.formats` is read. Understood are: frames named
    ``diff3d`` or ``counts``; integer intensities, whose root is taken; the frame axis in another
    place; trailing axes of length one; several probe modes; double precision; a ``mask`` of pixels
    that count; unknown keys, which are left out. Frames are optional: without them the probe gives
    N. Each change is one step of the record, and a record that the file already carries is
    continued. Of several probe modes the strongest is kept, or all. ``fields`` names the datasets
    of a file of any other form. Counts that are units of a detector are divided by
    ``counts_per_photon``, and rounded. Without ``frames`` those of the file are not looked at.
    What ``mend`` names is put right.

    Raises
    ------
    MissingFileError
        If there is no such file.
    StudyError
        If the file is damaged, lacks the object, the probe or the positions, or is
        ambiguous, or the result breaks the contract.
    """
    if modes not in get_args(Modes):
        raise StudyError("modes", f"must be strongest or all, got {modes!r}")
    path = Path(path)
    where = str(path)
    with _opened(path, fields) as reader:
        _require_scan(reader, where)
        work = _start(reader, path)
        work.counts_per_photon, work.mend = counts_per_photon, mend
        for key in (rules.XCOORDS, rules.YCOORDS):
            work.arrays[key] = positions = load(work, key, axes=1)
            if positions.ndim > 1:
                problem = f"'{key}' must hold one position per frame, got shape {positions.shape}"
                raise StudyError(where, problem, "ravel it in the order of the frames")
        work.arrays[rules.OBJECT] = _to_single(work, rules.OBJECT, load(work, rules.OBJECT, axes=2))
        probe = _to_single(work, rules.PROBE, _load_probe(work, modes))
        work.arrays[rules.PROBE] = turn_probe(probe, mend.turn)
        _check_physics(work)
        _number(work)
        source = next((key for key in FRAME_KEYS if frames and key in reader), None)
        if others := [key for key in FRAME_KEYS if key in reader and key != source and source]:
            warnings.warn(f"{where}: '{source}' is studied, and {others[0]!r} left out", stacklevel=3)
        if source is not None:
            work.arrays |= {key: load(work, key, axes=2) for key in rules.OF_FRAMES if key in reader}
        amplitudes = None if source is None else load_frames(work, source)
        ignored = sorted(set(reader) - set(work.arrays) - {source, rules.METADATA, rules.SCAN_INDEX})
        if ignored:
            work.note("ignore_keys", keys=ignored)
        if mend != NOTHING_TO_MEND:
            amplitudes = _mended(work, amplitudes)
        return base_from_arrays(work.arrays, work.record, where=where, frames=amplitudes)


def _number(work: Import) -> None:
    """Take up the numbers of the frames, if no two have the same."""
    if rules.SCAN_INDEX not in work.reader:
        return
    numbers = load(work, rules.SCAN_INDEX, axes=1)
    if len(np.unique(numbers)) == numbers.size:
        work.arrays[rules.SCAN_INDEX] = numbers
        return
    warnings.warn(
        f"{work.where}: '{rules.SCAN_INDEX}' has the same number for several frames, and is left out: "
        "frames are numbered in their order",
        stacklevel=4,
    )


def _mended(work: Import, frames: DiskArray | None) -> DiskArray | None:
    """Pair frames and positions as `base.mend` says, turn the latter, and return the frames that are left."""
    mend = work.mend
    if frames is None and (mend.bad_pixels or {*FRAME_TURNS, *ORDER_TURNS} & {*mend.turn}):
        problem = "base.mend is of frames, and none are studied"
        raise StudyError(work.where, problem, "state base.frames: measured, or take them out")
    places, kept = rows_of(work.arrays, mend, work.where)
    turn_positions(work.arrays, places, mend.turn)
    numbers: Any = work.arrays.get(rules.SCAN_INDEX, np.arange(kept.max() + 1))
    work.arrays[rules.SCAN_INDEX] = numbers[kept]
    mask: Any = work.arrays.get(rules.MASK)
    if mask is not None and mask.ndim == 3:
        work.arrays[rules.MASK] = mask[kept]
    work.note("mend", **mend.model_dump())
    return None if frames is None else frames.select_rows(kept)


def has_frames(path: Path | str, fields: Fields | None = None) -> bool:
    """Return whether a user's file holds frames; raises as `read_user_base` of what is no file of a scan."""
    with _opened(Path(path), fields) as reader:
        return any(key in reader for key in FRAME_KEYS)


def _opened(path: Path, fields: Fields | None) -> NpzReader | ForeignScan:
    start = b""
    with suppress(OSError), path.open("rb") as file:
        start = file.read(len(HDF_MAGIC))
    file = HdfFile(path) if start == HDF_MAGIC else NpzReader(path)
    return ForeignScan(file, fields) if fields or isinstance(file, HdfFile) else file


def _require_scan(reader: NpzReader | ForeignScan, where: str) -> None:
    image = "add it as a complex array (y, x)"
    vector = "add one number per frame, in object pixels"
    for key, reason, advice in (
        (rules.OBJECT, "it is simulated from, and its size is the object's grid", image),
        (rules.PROBE, "a scan has a known probe (or ones, with refine.probe: anew)", image),
        (rules.XCOORDS, "a scan has known positions", vector),
        (rules.YCOORDS, "a scan has known positions", vector),
    ):
        if key not in reader:
            held = ", ".join(reader) or "nothing"
            if isinstance(reader, ForeignScan) and key == rules.PROBE:
                advice = "add it as a dataset and name it: base.fields: {probe: NAME}"
            raise StudyError(where, f"has no {key}: {reason}", f"{advice}; the file holds {held}")


def _start(reader: NpzReader | ForeignScan, path: Path) -> Import:
    pickled = rules.METADATA in reader and reader.is_pickled(rules.METADATA)
    if isinstance(reader, ForeignScan):
        record = provenance.new_record(
            "base", physics=reader.physics, source_file=path.name, format=reader.format
        )
    else:
        record = {} if pickled else read_record(reader)
    work = Import(
        reader,
        where=str(path),
        record=record or provenance.new_record("base", source_file=path.name),
        frames_first=isinstance(reader, ForeignScan) or TOOL in provenance.steps(record),
    )
    work.note("read", source_file=path.name, source_sha256=sha256_of(path))
    if pickled:
        work.note("ignore_metadata", key=rules.METADATA, reason="pickled objects are never loaded")
    return work


def _check_physics(work: Import) -> None:
    """Refuse lengths and energies of a record that are no numbers or in another unit than their names say."""
    physics = work.record.get("physics_parameters", {})
    for key, (low, high) in PHYSICS.items():
        value = physics.get(key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and low <= value <= high):
            unit = "electronvolts" if key.endswith("_ev") else "metres"
            problem = f"{key} must be a number from {low:g} to {high:g} {unit}, got {value!r}"
            foreign = isinstance(work.reader, ForeignScan)
            hint = "state it in base.fields" if foreign else "mend physics_parameters in _metadata"
            raise StudyError(work.where, problem, hint)
    physics = {key: value for key, value in physics.items() if value is not None}
    if not {"energy_ev", "object_pixel_m"} <= physics.keys():
        return
    wavelength, pixel = HC_EV_M / physics["energy_ev"], physics["object_pixel_m"]
    if pixel < wavelength / 2:
        problem = f"object_pixel_m {pixel:g} is less than half the wavelength, {wavelength:.3g} m"
        raise StudyError(work.where, problem, "is energy_ev in electronvolts?")
    if {"detector_distance_m", "detector_pixel_m"} <= physics.keys():
        width = work.arrays[rules.PROBE].shape[-1] * physics["detector_pixel_m"]
        expected = wavelength * physics["detector_distance_m"] / width
        if abs(pixel / expected - 1) > PIXEL_TOLERANCE:
            warnings.warn(
                f"{work.where}: object_pixel_m is {pixel:.4g}, but energy, distance and size of the detector "
                f"make it {expected:.4g}: are all four of this file, and in metres?",
                stacklevel=5,
            )


def _to_single(work: Import, key: str, array: AnyArray) -> AnyArray:
    if array.dtype.kind != "c" or array.dtype == np.complex64:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        single = array.astype(np.complex64)
    work.note("convert_dtype", key=key, from_dtype=str(array.dtype), to_dtype="complex64")
    return single


def _load_probe(work: Import, modes: Modes) -> AnyArray:
    """Load the probe with all of its modes, or with the strongest alone."""
    key = rules.PROBE
    probe = load(work, key, axes=2)
    if probe.dtype.kind != "c" or probe.ndim == 2:
        return probe
    if probe.ndim != 3 or probe.shape[1] != probe.shape[2] or not probe.size:
        problem = f"'{key}' has shape {probe.shape}"
        raise StudyError(work.where, problem, "expected (y, x) or (mode, y, x) with square modes")
    rules.check_image(work.where, key, probe, "(mode, y, x)")
    if modes == "all":
        return probe
    strongest, fraction = strongest_mode(probe)
    work.note("keep_strongest_mode", key=key, modes=len(probe), kept_power_fraction=round(fraction, 6))
    return strongest.astype(probe.dtype)
