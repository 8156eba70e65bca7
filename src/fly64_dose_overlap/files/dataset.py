"""The dataset contract: what the study's arrays are and what makes them valid."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap import provenance
from fly64_dose_overlap.arrays import AnyArray, DiskArray, FrameArray
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files import rules
from fly64_dose_overlap.files.npz import NpzReader
from fly64_dose_overlap.files.npz_writer import write_npz
from fly64_dose_overlap.files.stream import ArrayStream, as_stream
from fly64_dose_overlap.provenance import Record
from fly64_dose_overlap.scan import HC_EV_M, Optics, Scan

ComplexImage = NDArray[np.complex64]


@dataclass(frozen=True, eq=False)
class BaseSet:
    """What a scan is simulated from.

    Attributes
    ----------
    obj : (y, x) complex64
        Transmission of the object.
    probe : (mode, y, x) complex64
        N x N; the sum of its squared modulus is whatever the source used.
    positions_px : (frame, 2) float64, object pixels
        (y, x) of the object pixel that lies under patch pixel [N/2, N/2].
    scan_index : (frame,) int64
        Number of each frame in the scan it came from.
    record : dict
        Provenance.
    amplitude : (frame, y, x) float32, sqrt(photons), optional
        Measured frames, if the source has any, in memory or on disk.
    mask : (y, x) or (frame, y, x) bool, optional
        Detector pixels that count; those that do not have amplitude 0.
    background : (y, x) float32, optional, photons
        Expected photons of each detector pixel that do not come through the object.
    """

    obj: ComplexImage
    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]
    scan_index: NDArray[np.int64]
    record: Record
    amplitude: FrameArray | None = None
    mask: NDArray[np.bool_] | DiskArray | None = None
    background: NDArray[np.float32] | None = None


def read_scan(path: Path | str, *, gridsize: int | None = None, neighbor_count: int | None = None) -> Scan:
    """Read and validate a dataset as a method may see it; its counts stay on disk.

    Of the object in the file only the size of its grid is taken.

    Parameters
    ----------
    gridsize : int, optional
        Group side that the file must fit; without it, the file's own groups decide.
    neighbor_count : int, optional
        K; needed when ``gridsize`` > 1.

    Raises
    ------
    MissingFileError
        If there is no such file.
    StudyError
        If the file is damaged or breaks a rule of the contract.
    """
    where = str(path)
    if gridsize is not None:
        rules.check_grouping(where, gridsize, neighbor_count)
    with NpzReader(path) as reader:
        arrays, record = _load(reader)
        frames_per_group = None if gridsize is None else gridsize**2
        counts = _read_frames(reader, arrays, frames_per_group, squared=True)
    groups = arrays.get(rules.GROUPS)
    found = _scan_arrays(arrays)
    rows, columns = found.pop("obj").shape
    return Scan(
        counts=counts,
        object_shape=(rows, columns),
        groups=None if groups is None else groups.astype(np.int32, copy=False),
        optics=optics_of(record),
        record=record,
        **found,
    )


def read_truth(path: Path | str) -> ComplexImage:
    """Return the object that a dataset was simulated from, (y, x) complex64.

    For scores, the physical limit and the supervised network, and nothing else.
    """
    with NpzReader(path) as reader:
        rules.require(reader, (rules.OBJECT,), str(path))
        obj = reader.load(rules.OBJECT)
    return rules.check_image(str(path), rules.OBJECT, obj)


def read_base(path: Path | str) -> BaseSet:
    """Read and validate a canonical base set, as `read_scan`; frames are optional and stay on disk."""
    with NpzReader(path) as reader:
        arrays, record = _load(reader)
        arrays.pop(rules.GROUPS, None)
        if rules.DIFFRACTION not in reader:
            return base_from_arrays(arrays, record, where=str(path))
        amplitude = _read_frames(reader, arrays, 1, squared=False)
    return BaseSet(amplitude=amplitude, record=record, **_scan_arrays(arrays))


def has_frames(path: Path | str) -> bool:
    """Return whether a base set holds frames, which are then studied as they were measured."""
    with NpzReader(path) as reader:
        return rules.DIFFRACTION in reader


def base_from_arrays(
    arrays: Mapping[str, AnyArray], record: Record, *, where: str, frames: FrameArray | None = None
) -> BaseSet:
    """Validate arrays by their NPZ keys, and frames, and make a base set of them."""
    if frames is None:
        arrays = {key: array for key, array in arrays.items() if key not in rules.OF_FRAMES}
        rules.check_base(arrays, where)
    else:
        rules.check_layout(arrays, where, frames.shape, frames.dtype, 1)
        for _ in rules.checked_frames(where, as_stream(frames).chunks):
            pass
    return BaseSet(amplitude=frames, record=record, **_scan_arrays(arrays))


def _load(reader: NpzReader) -> tuple[dict[str, AnyArray], Record]:
    """Load the arrays that the contract knows, but for the frames, and the record; other keys stay unread."""
    known = rules.KNOWN_KEYS - {rules.DIFFRACTION}
    arrays: dict[str, Any] = {key: reader.load(key) for key in reader if key in known - {rules.MASK}}
    if rules.MASK in reader:
        of_frames = len(reader.header(rules.MASK)[0]) > 2
        arrays[rules.MASK] = reader.rows_on_disk(rules.MASK) if of_frames else reader.load(rules.MASK)
    return arrays, read_record(reader)


def _read_frames(
    reader: NpzReader, arrays: Mapping[str, AnyArray], frames_per_group: int | None, *, squared: bool
) -> DiskArray:
    """Check everything that a file holds, and put its amplitudes or their squares, photons, on disk."""
    where = str(reader.path)
    rules.require(reader, (rules.DIFFRACTION, *rules.BASE_KEYS), where)
    rules.check_layout(arrays, where, *reader.header(rules.DIFFRACTION), frames_per_group)

    def through(blocks: Iterator[AnyArray]) -> Iterator[AnyArray]:
        for block in rules.checked_frames(where, blocks):
            yield np.rint(np.square(block, dtype=np.float32)) if squared else block

    return reader.rows_on_disk(rules.DIFFRACTION, np.float32, through)


def _scan_arrays(arrays: Mapping[str, AnyArray]) -> dict[str, Any]:
    positions = np.stack([arrays[rules.YCOORDS], arrays[rules.XCOORDS]], axis=1).astype(np.float64)
    index, dark = arrays.get(rules.SCAN_INDEX), arrays.get(rules.BACKGROUND)
    probe = arrays[rules.PROBE].astype(np.complex64, copy=False)
    return {
        "obj": arrays[rules.OBJECT].astype(np.complex64, copy=False),
        "probe": probe[None] if probe.ndim == 2 else probe,
        "positions_px": positions,
        "scan_index": np.arange(len(positions)) if index is None else index.astype(np.int64, copy=False),
        "mask": arrays.get(rules.MASK),
        "background": None if dark is None else dark.astype(np.float32, copy=False),
    }


def read_record(reader: NpzReader) -> Record:
    """Return the provenance of an open file, empty if it carries none.

    Raises
    ------
    StudyError
        If the entry is pickled, or is not JSON text of one object.
    """
    if rules.METADATA not in reader:
        return {}
    where = str(reader.path)
    text = reader.load(rules.METADATA)
    if text.size != 1 or text.dtype.kind not in "US":
        raise StudyError(where, f"'{rules.METADATA}' must be one JSON text, got {text.dtype} {text.shape}")
    try:
        record: Any = json.loads(text.item())
        # Python reads NaN and 1e999, which no other JSON reader takes and we could not write.
        provenance.dumps(record)
    except (ValueError, RecursionError) as error:
        raise StudyError(where, f"'{rules.METADATA}' is not valid JSON ({error})") from None
    steps = record.get("data_transformations", []) if isinstance(record, dict) else None
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise StudyError(where, f"'{rules.METADATA}' is JSON but not a provenance record")
    physics: Any = record.get("physics_parameters", {})
    if not isinstance(physics, dict):
        raise StudyError(where, f"physics_parameters must be an object, got {type(physics).__name__}")
    return record


def write_scan(path: Path | str, scan: Scan, obj: ComplexImage) -> None:
    """Validate a scan with its object and write them as a dataset; equal input gives equal bytes.

    The contract is checked as the frames pass; nothing stays on disk if it is broken.

    Parameters
    ----------
    obj : (y, x) complex64
        The object that the scan is of.

    Raises
    ------
    StudyError
        If a rule of the contract is broken.
    """
    counts = as_stream(scan.counts)
    roots = (np.sqrt(block, dtype=np.float32) for block in counts.chunks)
    held = (scan.probe, scan.positions_px, scan.scan_index, scan.record)
    base = BaseSet(obj, *held, mask=scan.mask, background=scan.background)
    _write(path, base, ArrayStream(counts.shape, np.float32, roots), scan.groups)


def write_base(path: Path | str, base: BaseSet) -> None:
    """Validate a base set and write it; equal sets give equal bytes.

    Raises
    ------
    StudyError
        If a rule of the contract is broken; nothing is written then.
    """
    frames = None if base.amplitude is None else as_stream(base.amplitude)
    _write(path, base, frames, None)


def _write(path: Path | str, scan: BaseSet, frames: ArrayStream | None, groups: AnyArray | None) -> None:
    where = str(path)
    arrays: dict[str, AnyArray] = {
        rules.OBJECT: scan.obj.astype(np.complex64, copy=False),
        # One mode has no axis of modes, as other readers of such files expect.
        rules.PROBE: (scan.probe[0] if len(scan.probe) == 1 else scan.probe).astype(np.complex64, copy=False),
        rules.XCOORDS: scan.positions_px[:, 1].astype(np.float64),
        rules.YCOORDS: scan.positions_px[:, 0].astype(np.float64),
        rules.SCAN_INDEX: scan.scan_index.astype(np.int64, copy=False),
    }
    if groups is not None:
        arrays[rules.GROUPS] = groups.astype(np.int32, copy=False)
    if frames is not None and scan.background is not None:
        arrays[rules.BACKGROUND] = scan.background
    members: dict[str, AnyArray | ArrayStream] = dict(arrays)
    if frames is not None and scan.mask is not None:
        rules.check_mask(where, scan.mask.shape, scan.mask.dtype, frames.shape)
        members[rules.MASK] = as_stream(scan.mask)
    if frames is None:
        arrays = {key: array for key, array in arrays.items() if key not in rules.OF_FRAMES}
        rules.check_base(arrays, where)
    else:
        rules.check_layout(arrays, where, frames.shape, np.dtype(frames.dtype), None)
        blocks = rules.checked_frames(where, frames.chunks)
        checked = (block.astype(np.float32, copy=False) for block in blocks)
        members = {rules.DIFFRACTION: ArrayStream(frames.shape, np.float32, checked), **members}
    write_npz(path, {**members, rules.METADATA: np.array(provenance.dumps(scan.record))})


def optics_of(record: Record) -> Optics | None:
    """Return wavelength and lengths, if the provenance has them."""
    physics: Mapping[str, Any] = record.get("physics_parameters", {})

    def length(key: str) -> float | None:
        value = physics.get(key)
        return float(value) if isinstance(value, int | float) and value > 0 else None

    energy_ev, pixel_m = length("energy_ev"), length("object_pixel_m")
    if energy_ev is None or pixel_m is None:
        return None
    return Optics(HC_EV_M / energy_ev, pixel_m, length("detector_pixel_m"), length("detector_distance_m"))
