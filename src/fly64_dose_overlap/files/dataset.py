"""The dataset contract: what the study's arrays are and what makes them valid."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap import provenance
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files import rules
from fly64_dose_overlap.files.disk_array import AnyArray, DiskArray, FrameArray, select_rows
from fly64_dose_overlap.files.npz import NpzReader
from fly64_dose_overlap.files.npz_writer import write_npz
from fly64_dose_overlap.files.rules import validate_base, validate_dataset
from fly64_dose_overlap.files.stream import ArrayStream, as_stream
from fly64_dose_overlap.provenance import Record

__all__ = [
    "BaseSet",
    "Dataset",
    "base_from_arrays",
    "read_base",
    "read_dataset",
    "read_record",
    "select_frames",
    "validate_base",
    "validate_dataset",
    "write_base",
    "write_dataset",
    "write_dataset_stream",
]


@dataclass(frozen=True, eq=False)
class BaseSet:
    """What a scan is simulated from.

    Attributes
    ----------
    obj : (y, x) complex64
        Transmission of the object.
    probe : (y, x) complex64
        N x N; the sum of its squared modulus is whatever the source used.
    positions_px : (frame, 2) float64, object pixels
        (y, x) of the object pixel that lies under patch pixel [N/2, N/2].
    scan_index : (frame,) int64
        Number of each frame in the scan it came from.
    record : dict
        Provenance.
    amplitude : (frame, y, x) float32, sqrt(photons), optional
        Measured frames, if the source has any, in memory or on disk.
    """

    obj: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]
    scan_index: NDArray[np.int64]
    record: Record
    amplitude: FrameArray | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Frames ready for training or reconstruction.

    Attributes
    ----------
    amplitude : (frame, y, x) float32, sqrt(photons)
        Zero frequency at [N/2, N/2]. In memory, or on disk as `read_dataset` leaves them.
    obj : (y, x) complex64
        Transmission of the object, the ground truth of a simulated set.
    probe : (y, x) complex64
        N x N; the sum of its squared modulus is in photons.
    positions_px : (frame, 2) float64, object pixels
        (y, x) of the object pixel that lies under patch pixel [N/2, N/2].
    scan_index : (frame,) int64
        Number of each frame in the scan it came from.
    record : dict
        Provenance.
    groups : (group, C) int32, optional
        Frame indices of each group, C = gridsize squared.
    """

    amplitude: FrameArray
    obj: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]
    scan_index: NDArray[np.int64]
    record: Record
    groups: NDArray[np.int32] | None = None


def read_dataset(
    path: Path | str, *, gridsize: int | None = None, neighbor_count: int | None = None
) -> Dataset:
    """Read and validate a dataset; its frames stay on disk.

    Parameters
    ----------
    path : Path or str
        NPZ file.
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
        amplitude = _read_frames(reader, arrays, None if gridsize is None else gridsize**2)
    groups = arrays.get(rules.GROUPS)
    return Dataset(
        amplitude=amplitude,
        groups=None if groups is None else groups.astype(np.int32, copy=False),
        record=record,
        **_scan_arrays(arrays),
    )


def read_base(path: Path | str) -> BaseSet:
    """Read and validate a canonical base set; frames are optional and stay on disk.

    Raises
    ------
    MissingFileError
        If there is no such file.
    StudyError
        If the file is damaged or breaks a rule of the contract.
    """
    with NpzReader(path) as reader:
        arrays, record = _load(reader)
        arrays.pop(rules.GROUPS, None)
        if rules.DIFFRACTION not in reader:
            return base_from_arrays(arrays, record, where=str(path))
        amplitude = _read_frames(reader, arrays, 1)
    return BaseSet(amplitude=amplitude, record=record, **_scan_arrays(arrays))


def base_from_arrays(
    arrays: Mapping[str, AnyArray], record: Record, *, where: str, frames: FrameArray | None = None
) -> BaseSet:
    """Validate arrays by their NPZ keys, and frames, and make a base set of them."""
    if frames is None:
        validate_base(arrays, where=where)
    else:
        rules.check_layout(arrays, where, frames.shape, frames.dtype, 1)
        rules.check_frames(where, frames)
    return BaseSet(amplitude=frames, record=record, **_scan_arrays(arrays))


def _load(reader: NpzReader) -> tuple[dict[str, AnyArray], Record]:
    """Load the arrays that the contract knows, but for the frames, and the record; other keys stay unread."""
    known = rules.KNOWN_KEYS - {rules.DIFFRACTION}
    arrays = {key: reader.load(key) for key in reader if key in known}
    return arrays, read_record(reader)


def _read_frames(
    reader: NpzReader, arrays: Mapping[str, AnyArray], frames_per_group: int | None
) -> DiskArray:
    """Check everything that a file holds, and leave its frames on disk."""
    where = str(reader.path)
    rules.require(reader, (rules.DIFFRACTION, *rules.BASE_KEYS), where)
    rules.check_layout(arrays, where, *reader.header(rules.DIFFRACTION), frames_per_group)
    return reader.rows_on_disk(
        rules.DIFFRACTION, np.float32, check=lambda blocks: rules.checked_frames(where, blocks)
    )


def _scan_arrays(arrays: Mapping[str, AnyArray]) -> dict[str, Any]:
    positions = np.stack([arrays[rules.YCOORDS], arrays[rules.XCOORDS]], axis=1).astype(np.float64)
    index = arrays.get(rules.SCAN_INDEX)
    return {
        "obj": arrays[rules.OBJECT].astype(np.complex64, copy=False),
        "probe": arrays[rules.PROBE].astype(np.complex64, copy=False),
        "positions_px": positions,
        "scan_index": np.arange(len(positions)) if index is None else index.astype(np.int64, copy=False),
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
        content = text.item()
        record = json.loads(content)
        # Python reads NaN and 1e999, which no other JSON reader takes and we could not write.
        provenance.dumps(record)
    except (ValueError, RecursionError) as error:
        raise StudyError(where, f"'{rules.METADATA}' is not valid JSON ({error})") from None
    if not _is_record(record):
        raise StudyError(where, f"'{rules.METADATA}' is JSON but not a provenance record")
    return record


def _is_record(content: Any) -> TypeGuard[Record]:
    if not isinstance(content, dict):
        return False
    steps = cast(Record, content).get("data_transformations", [])
    return isinstance(steps, list) and all(isinstance(step, dict) for step in cast(list[Any], steps))


def write_dataset(path: Path | str, dataset: Dataset) -> None:
    """Validate a dataset and write it; equal datasets give equal bytes.

    Raises
    ------
    StudyError
        If a rule of the contract is broken; nothing is written then.
    """
    _write(path, dataset, as_stream(dataset.amplitude), dataset.groups)


def write_dataset_stream(
    path: Path | str, scan: BaseSet, frames: ArrayStream, *, groups: NDArray[np.int32] | None = None
) -> None:
    """Write a dataset whose frames come block by block and are never held whole.

    The contract is checked as the frames pass; nothing stays on disk if it is broken.

    Parameters
    ----------
    path : Path or str
        NPZ file to create or replace.
    scan : BaseSet
        Object, probe (sum of its squared modulus in photons), positions, scan index and
        record of the dataset; its own ``amplitude`` is ignored.
    frames : ArrayStream of (frame, y, x) float32, sqrt(photons)
        Zero frequency at [N/2, N/2].
    groups : (group, C) int32, optional
        Frame indices of each group.

    Raises
    ------
    StudyError
        If a rule of the contract is broken.
    """
    _write(path, scan, frames, groups)


def write_base(path: Path | str, base: BaseSet) -> None:
    """Validate a base set and write it; equal sets give equal bytes.

    Raises
    ------
    StudyError
        If a rule of the contract is broken; nothing is written then.
    """
    frames = None if base.amplitude is None else as_stream(base.amplitude)
    _write(path, base, frames, None)


def _write(
    path: Path | str, scan: BaseSet | Dataset, frames: ArrayStream | None, groups: AnyArray | None
) -> None:
    where = str(path)
    arrays: dict[str, AnyArray] = {
        rules.OBJECT: scan.obj.astype(np.complex64, copy=False),
        rules.PROBE: scan.probe.astype(np.complex64, copy=False),
        rules.XCOORDS: scan.positions_px[:, 1].astype(np.float64),
        rules.YCOORDS: scan.positions_px[:, 0].astype(np.float64),
        rules.SCAN_INDEX: scan.scan_index.astype(np.int64, copy=False),
    }
    if groups is not None:
        arrays[rules.GROUPS] = groups.astype(np.int32, copy=False)
    members: dict[str, AnyArray | ArrayStream] = dict(arrays)
    if frames is None:
        validate_base(arrays, where=where)
    else:
        dtype = np.dtype(frames.dtype)
        rules.check_layout(arrays, where, frames.shape, dtype, None)
        blocks = rules.checked_frames(where, frames.chunks)
        checked = (block.astype(np.float32, copy=False) for block in blocks)
        members = {rules.DIFFRACTION: ArrayStream(frames.shape, np.float32, checked), **members}
    write_npz(path, {**members, rules.METADATA: np.array(provenance.dumps(scan.record))})


def select_frames(dataset: Dataset, selection: NDArray[np.bool_] | NDArray[np.integer[Any]]) -> Dataset:
    """Return the dataset of some of its frames; object and probe stay whole, what is on disk stays there.

    Groups that lie wholly inside the selection are kept and renumbered; the others go.

    Parameters
    ----------
    dataset : Dataset
        Where frames are taken from.
    selection : (frame,) bool, or (selected,) int
        A mask, or frame indices without repeats in the order wanted.

    Raises
    ------
    StudyError
        If the mask has another length, an index repeats or is out of range, or no frame
        is selected.
    """
    count = len(dataset.amplitude)
    chosen = _frame_numbers(np.asarray(selection), count)
    groups = dataset.groups
    if groups is not None:
        new_number = np.full(count, -1, dtype=np.int32)
        new_number[chosen] = np.arange(chosen.size, dtype=np.int32)
        renumbered = new_number[groups]
        groups = renumbered[(renumbered >= 0).all(axis=1)]
    return replace(
        dataset,
        amplitude=select_rows(dataset.amplitude, chosen),
        positions_px=dataset.positions_px[chosen],
        scan_index=dataset.scan_index[chosen],
        groups=groups,
    )


def _frame_numbers(chosen: AnyArray, count: int) -> NDArray[np.int64]:
    where = "select_frames"
    if chosen.dtype == np.bool_:
        if chosen.shape != (count,):
            raise StudyError(where, f"mask has shape {chosen.shape} but there are {count} frames")
        chosen = np.flatnonzero(chosen)
    if chosen.size == 0:
        raise StudyError(where, f"no frame of {count} is selected")
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
        raise StudyError(where, f"frames are chosen by a mask or integers, got {chosen.dtype} {chosen.shape}")
    if chosen.min() < 0 or chosen.max() >= count:
        asked = f"{chosen.min()} to {chosen.max()}"
        raise StudyError(where, f"frames {asked} are selected, but there are 0 to {count - 1}")
    if np.unique(chosen).size != chosen.size:
        raise StudyError(where, "a frame is selected more than once")
    return chosen.astype(np.int64)
