"""A user's own file made a canonical base set, every change on record."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap import provenance
from fly64_dose_overlap.arrays import AnyArray, DiskArray, spool
from fly64_dose_overlap.config import NOTHING_TO_MEND, MendParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files import rules
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.dataset import BaseSet, base_from_arrays, read_record
from fly64_dose_overlap.files.foreign import ForeignScan
from fly64_dose_overlap.files.formats import COUNTS
from fly64_dose_overlap.files.hdf import HdfFile
from fly64_dose_overlap.files.mapping import Fields
from fly64_dose_overlap.files.mending import counting_pixels, mended, turn_positions
from fly64_dose_overlap.files.npz import NpzReader
from fly64_dose_overlap.physics.modes import strongest_mode
from fly64_dose_overlap.scan import HC_EV_M

TOOL = "transpose_rename_convert"
FRAME_KEYS = (rules.DIFFRACTION, "diff3d", COUNTS)
"""Names of the frames, the first one present is taken; ``counts`` are photons by their name."""

ROOT_ERROR = 4e-7
"""Relative error of a count whose square root was kept in single precision, at most."""

UNCOUNTED = (
    "must hold counted photons or their square roots",
    f"scale what was normalised or averaged to photons, round it and name it {COUNTS}, or leave it out",
)
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


@dataclass
class _Import:
    """A file on its way to the canonical form."""

    reader: NpzReader | ForeignScan
    where: str
    record: provenance.Record
    frames_first: bool
    """The file says that this tool, ours or the ancestor's, has already put the frame axis first."""
    arrays: dict[str, AnyArray] = field(default_factory=lambda: {})
    counts_per_photon: float | None = None
    mend: MendParams = NOTHING_TO_MEND

    def note(self, operation: str, **parameters: Any) -> None:
        self.record = provenance.with_step(self.record, TOOL, operation, **parameters)


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
            work.arrays[key] = positions = _load(work, key, axes=1)
            if positions.ndim > 1:
                problem = f"'{key}' must hold one position per frame, got shape {positions.shape}"
                raise StudyError(where, problem, "ravel it in the order of the frames")
        obj = _to_single(work, rules.OBJECT, _load(work, rules.OBJECT, axes=2))
        turn_positions(work.arrays, obj, mend.turn)
        work.arrays[rules.PROBE] = _to_single(work, rules.PROBE, _load_probe(work, modes))
        _check_physics(work)
        if rules.SCAN_INDEX in reader:
            numbers = _load(work, rules.SCAN_INDEX, axes=1)
            if len(np.unique(numbers)) == numbers.size:
                work.arrays[rules.SCAN_INDEX] = numbers
            else:
                warnings.warn(
                    f"{where}: '{rules.SCAN_INDEX}' has the same number for several frames, and is left out: "
                    "frames are numbered in their order",
                    stacklevel=3,
                )
        source = next((key for key in FRAME_KEYS if frames and key in reader), None)
        if source is not None:
            work.arrays |= {key: _load(work, key, axes=2) for key in rules.OF_FRAMES if key in reader}
        amplitudes = None if source is None else _load_frames(work, source)
        ignored = sorted(set(reader) - set(work.arrays) - {source, rules.METADATA})
        if ignored:
            work.note("ignore_keys", keys=ignored)
        base = base_from_arrays(work.arrays, work.record, where=where, frames=amplitudes)
        return base if mend == NOTHING_TO_MEND else mended(base, mend, where)


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
        (rules.PROBE, "a scan has a known probe", image),
        (rules.XCOORDS, "a scan has known positions", vector),
        (rules.YCOORDS, "a scan has known positions", vector),
    ):
        if key not in reader:
            held = ", ".join(reader) or "nothing"
            if isinstance(reader, ForeignScan) and key == rules.PROBE:
                advice = "add it as a dataset and name it: base.fields: {probe: NAME}"
            raise StudyError(where, f"has no {key}: {reason}", f"{advice}; the file holds {held}")


def _start(reader: NpzReader | ForeignScan, path: Path) -> _Import:
    pickled = rules.METADATA in reader and reader.is_pickled(rules.METADATA)
    if isinstance(reader, ForeignScan):
        record = provenance.new_record(
            "base", physics=reader.physics, source_file=path.name, format=reader.format
        )
    else:
        record = {} if pickled else read_record(reader)
    work = _Import(
        reader,
        where=str(path),
        record=record or provenance.new_record("base", source_file=path.name),
        frames_first=TOOL in provenance.steps(record),
    )
    work.note("read", source_file=path.name, source_sha256=sha256_of(path))
    if pickled:
        work.note("ignore_metadata", key=rules.METADATA, reason="pickled objects are never loaded")
    return work


def _check_physics(work: _Import) -> None:
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


def _load(work: _Import, key: str, *, axes: int) -> AnyArray:
    """Load an array and drop trailing and leading axes of length one beyond ``axes``."""
    array = work.reader.load(key)
    found = array.shape
    while array.ndim > axes and array.shape[-1] == 1:
        array = array[..., 0]
    while array.ndim > axes and array.shape[0] == 1:
        array = array[0]
    if array.shape != found:
        work.note("squeeze", key=key, from_shape=list(found), to_shape=list(array.shape))
    return array


def _to_single(work: _Import, key: str, array: AnyArray) -> AnyArray:
    if array.dtype.kind != "c" or array.dtype == np.complex64:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        single = array.astype(np.complex64)
    work.note("convert_dtype", key=key, from_dtype=str(array.dtype), to_dtype="complex64")
    return single


def _load_probe(work: _Import, modes: Modes) -> AnyArray:
    """Load the probe with all of its modes, or with the strongest alone."""
    key = rules.PROBE
    probe = _load(work, key, axes=2)
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


def _load_frames(work: _Import, source: str) -> DiskArray:
    """Return the frames as float32 amplitudes with the frame axis first, on disk."""
    shape, dtype = work.reader.header(source)
    if source != rules.DIFFRACTION:
        work.note("rename", from_key=source, to_key=rules.DIFFRACTION)
    axis = _frame_axis(work, source, shape)
    if dtype.kind not in "iuf":
        problem = f"'{source}' must be real: float amplitudes or integer intensities, got {dtype}"
        raise StudyError(work.where, problem, f"{rules.DIFFRACTION} holds sqrt(photons)")
    scaled = work.counts_per_photon is not None
    intensity = dtype.kind in "iu" or source == COUNTS or _are_counts(work, source)
    if axis != 0:
        work.note("move_frame_axis", key=source, from_axis=axis, to_axis=0)
    count = shape[axis]
    side = tuple(length for index, length in enumerate(shape[:3]) if index != axis)
    if (mask := work.arrays.get(rules.MASK)) is not None:
        rules.check_mask(work.where, mask.shape, mask.dtype, (count, *side))
    if work.mend.bad_pixels:
        counting = counting_pixels(work.mend, side, work.where)
        work.arrays[rules.MASK] = counting if mask is None else mask & counting
    saturated: list[NDArray[np.int64]] = []
    frames = spool((count, *side), np.float32, _amplitudes(work, source, axis, intensity, saturated))
    if saturated:
        _mask_saturated(work, source, np.concatenate(saturated), frames.shape)
    if scaled:
        work.note("divide", key=source, counts_per_photon=work.counts_per_photon)
        if (background := work.arrays.get(rules.BACKGROUND)) is not None and background.dtype.kind in "iuf":
            work.arrays[rules.BACKGROUND] = background / work.counts_per_photon
            work.note("divide", key=rules.BACKGROUND, counts_per_photon=work.counts_per_photon)
    if intensity:
        work.note("square_root", key=source, from_dtype=str(dtype), to_dtype="float32")
    elif dtype != np.float32:
        work.note("convert_dtype", key=source, from_dtype=str(dtype), to_dtype="float32")
    return frames


def _are_counts(work: _Import, source: str) -> bool:
    """Return whether floats are whole numbers, which square roots of counts are not, and say so."""
    brightest = 0.0
    for block in work.reader.stream(source):
        if not np.array_equal(block, np.rint(block)):
            return False
        brightest = max(brightest, float(block.max(initial=0)))
    if brightest <= 1:  # the roots of 0 and 1 are 0 and 1
        return False
    warnings.warn(
        f"{work.where}: '{source}' holds whole numbers, which are taken for photons and not for their roots; "
        f"name them {COUNTS}",
        stacklevel=6,
    )
    return True


def _mask_saturated(
    work: _Import, source: str, places: NDArray[np.int64], frames_shape: tuple[int, ...]
) -> None:
    """Take out of the mask, and say so, what holds the largest value of its type: (place, 3), frame, y, x."""
    mask = np.ones(frames_shape, np.bool_)
    mask &= work.arrays.get(rules.MASK, np.True_)
    mask[tuple(places.T)] = False
    work.arrays[rules.MASK] = mask
    pixels, frames = (len(np.unique(places[:, columns], axis=0)) for columns in ([1, 2], [0]))
    work.note("mask_saturated", key=source, pixels=pixels, frames=frames)
    frame, y, x = places[0].tolist()
    warnings.warn(
        f"{work.where}: {pixels} pixels of '{source}' hold the largest value of its type in {frames} frames, "
        f"such as [{y}, {x}] in frame {frame}: saturated or dead, they are masked there",
        stacklevel=6,
    )


def _amplitudes(
    work: _Import, source: str, axis: int, intensity: bool, saturated: list[NDArray[np.int64]]
) -> Iterator[AnyArray]:
    """Yield blocks of amplitudes; refuse frames that are neither counted photons nor their roots.

    What is saturated, (place, 3) frame, y, x, is added to the list and becomes 0.
    Rounding would make other frames of densities, of frames that were normalised, of means
    of several exposures, and of amplitudes that pass for counts. What is not finite is left
    to the rules of the contract.
    """
    done, mask = 0, work.arrays.get(rules.MASK)
    for recorded in _frame_blocks(work, source, axis):
        block = recorded
        if mask is not None:
            counting = mask if mask.ndim == 2 else mask[done : done + len(block)]
            block = np.where(counting, block, block.dtype.type(0))
        if block.dtype.kind in "iu" and (full := block == np.iinfo(block.dtype).max).any():
            saturated.append(np.argwhere(full) + np.array([done, 0, 0]))
            block = np.where(full, block.dtype.type(0), block)
        with np.errstate(over="ignore", invalid="ignore"):
            amplitude = block.astype(np.float32)
            photons = block if intensity else np.square(amplitude)
            uncounted = ~(np.abs(photons - np.rint(photons)) <= (0 if intensity else ROOT_ERROR * photons))
            if work.counts_per_photon is not None:
                # Units of a detector may be broken numbers; of their roots nobody could tell then.
                uncounted &= not intensity
                photons = np.rint(photons / work.counts_per_photon)
            if intensity or work.counts_per_photon is not None:
                amplitude = np.sqrt(photons, dtype=np.float64)
        checks: list[tuple[NDArray[np.bool_], str, str]] = [(uncounted & np.isfinite(block), *UNCOUNTED)]
        if intensity:
            checks.insert(0, (photons < 0, "has negative counts", f"dead or hot? {rules.MASK_THEM} there"))
        for bad, problem, hint in checks:
            if bad.any():
                frame, y, x = (int(index) for index in np.argwhere(bad)[0])
                found = f"{photons[frame, y, x]:.6g} in frame {done + frame} at [{y}, {x}]"
                among = f"one of {bad.any(axis=0).sum()} pixels"
                raise StudyError(work.where, f"'{source}' {problem}: {found}, {among}", hint)
        done += len(block)
        yield amplitude


def _frame_blocks(work: _Import, source: str, axis: int) -> Iterator[AnyArray]:
    shape, dtype = work.reader.header(source)
    images = (block.reshape(len(block), *shape[1:3]) for block in work.reader.stream(source))
    if axis == 0:
        return images
    return spool(shape[:3], dtype.newbyteorder("="), images).blocks(axis)


def _frame_axis(work: _Import, source: str, shape: tuple[int, ...]) -> int:
    """Return the one axis that is as long as the list of positions."""
    trimmed = shape
    while len(trimmed) > 3 and trimmed[-1] == 1:
        trimmed = trimmed[:-1]
    if trimmed != shape:
        work.note("squeeze", key=source, from_shape=list(shape), to_shape=list(trimmed))
    positions = work.arrays[rules.XCOORDS].size
    if len(trimmed) != 3:
        raise StudyError(work.where, f"'{source}' must have axes (frame, y, x), got shape {shape}")
    matching = [axis for axis, length in enumerate(trimmed) if length == positions]
    if not matching:
        problem = f"'{source}' is {shape} but there are {positions} entries in '{rules.XCOORDS}'"
        raise StudyError(work.where, problem, "no axis can be the frames")
    if len(matching) > 1 and not (work.frames_first and matching[0] == 0):
        problem = (
            f"'{source}' is {shape} and its frame axis ambiguous: axes {matching} have length {positions}"
        )
        raise StudyError(work.where, problem, "leave one frame out")
    return matching[0]
