"""Members of NPZ files whose rows stay on disk."""

from __future__ import annotations

import os
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from factories import small_scan, write_small_scan
from fly64_dose_overlap.arrays import DiskArray
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import read_base, read_scan, read_truth, write_scan
from fly64_dose_overlap.files.npz import NpzReader

WHOLE = np.random.default_rng(0).uniform(0, 9, size=(300, 16, 16)).astype(np.float32)
Save = Callable[..., None]


def on_disk(path: Path, key: str = "v", **options: Any) -> DiskArray:
    with NpzReader(path) as reader:
        return reader.rows_on_disk(key, **options)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i4", "|b1", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_are_those_of_the_loaded_array(save: Save, dtype: str, order: Any, tmp_path: Path) -> None:
    save(
        tmp_path / "a.npz",
        first=np.arange(5),
        v=np.asarray(WHOLE.astype(dtype), order=order),
        last=np.ones(3),
    )
    with NpzReader(tmp_path / "a.npz") as reader:
        wanted, disk = reader.load("v"), reader.rows_on_disk("v")
    assert disk.dtype == wanted.dtype
    assert disk.dtype.isnative
    np.testing.assert_array_equal(disk[:], wanted)
    np.testing.assert_array_equal(disk[np.array([7, 299, 0])], wanted[[7, 299, 0]])


def test_a_zip_behind_other_bytes_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", v=WHOLE)
    (tmp_path / "b.npz").write_bytes(b"#!prefix\n" + (tmp_path / "a.npz").read_bytes())
    np.testing.assert_array_equal(on_disk(tmp_path / "b.npz")[:], WHOLE)


def test_another_file_under_the_name_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, v=WHOLE)
    disk = on_disk(path)
    np.savez(tmp_path / "b.npz", v=-WHOLE)
    os.replace(tmp_path / "b.npz", path)
    np.testing.assert_array_equal(disk[:], WHOLE)


def test_a_file_cut_after_the_check_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, v=WHOLE)
    disk = on_disk(path)
    os.truncate(path, 5000)
    np.testing.assert_array_equal(disk[:], WHOLE)


def test_values_are_converted_to_the_type_wanted(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", v=WHOLE.astype(np.float64))
    disk = on_disk(tmp_path / "a.npz", dtype=np.float32)
    assert disk.dtype == np.float32
    np.testing.assert_array_equal(disk[:], WHOLE)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_rows_and_no_first_axis(save: Save, tmp_path: Path) -> None:
    save(tmp_path / "a.npz", none=np.empty((0, 4), np.float32), scalar=np.float32(1))
    assert on_disk(tmp_path / "a.npz", "none")[:].shape == (0, 4)
    with pytest.raises(StudyError, match="'scalar' is a scalar and has no rows"):
        on_disk(tmp_path / "a.npz", "scalar")
    with pytest.raises(StudyError, match="has no 'absent'"):
        on_disk(tmp_path / "a.npz", "absent")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_is_found_before_a_row_is_given(method: int, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save = np.savez if method == zipfile.ZIP_STORED else np.savez_compressed
    save(path, v=WHOLE)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(StudyError, match="'v' is damaged or truncated"):
        on_disk(path)


def test_of_damaged_and_refused_data_the_damage_is_reported(tmp_path: Path) -> None:
    def refuse(blocks: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        next(blocks)
        raise StudyError("v", "is refused")
        yield

    path = tmp_path / "a.npz"
    np.savez(path, v=WHOLE)
    with pytest.raises(StudyError, match=r"^v: is refused$"):
        on_disk(path, through=refuse)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(StudyError, match="'v' is damaged or truncated"):
        on_disk(path, through=refuse)


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_is_that_of_a_block(order: Any, tmp_path: Path) -> None:
    frames = np.asarray(np.ones((40, 512, 512), np.float32), order=order)
    np.savez_compressed(tmp_path / "a.npz", v=frames)
    tracemalloc.start()
    try:
        disk = on_disk(tmp_path / "a.npz")
        total = sum(float(block.sum()) for block in disk.blocks())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == frames.size
    assert peak < 22e6  # the whole is 42 MB


# Datasets


def rewrite(path: Path, save: Save, **changes: Any) -> None:
    with np.load(path) as file:
        arrays = {**file, **changes}
    save(path, **arrays)


def test_frames_of_a_dataset_stay_on_disk(tmp_path: Path) -> None:
    path, counts = tmp_path / "a.npz", small_scan()[0].counts[:]
    write_small_scan(path)
    for found, wanted in ((read_scan(path).counts, counts), (read_base(path).amplitude, np.sqrt(counts))):
        assert isinstance(found, DiskArray)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found[:], wanted)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda frames: np.where(np.arange(6)[:, None, None] == 4, np.nan, frames),
            "NaN .*frame 4",
        ),
        (lambda frames: -frames - 1, "negative amplitudes, first in frame 0"),
        (lambda frames: 0 * frames, "all 6 frames are zero"),
        (lambda frames: frames.astype(np.float64) + 1e300, "NaN .*frame 0"),
        (lambda frames: frames.astype(np.int32), "must be a real float amplitude, got int32"),
        (lambda frames: frames[:, :, 1:], "frames must be square"),
        (lambda frames: frames[:0], "holds zero frames"),
        (lambda frames: frames[0], r"must have axes \(frame, y, x\)"),
    ],
)
def test_the_contract_holds_for_frames_on_disk(
    save: Save, change: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.npz"
    write_small_scan(path)
    rewrite(path, save, diffraction=change(np.sqrt(small_scan()[0].counts[:])))
    for read in (read_scan, read_base):
        with pytest.raises(StudyError, match=message):
            read(path)


def test_selected_frames_of_a_scan_stay_on_disk(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.npz", np.array([5, 1, 2])
    write_small_scan(path)
    found = read_scan(path).frames(rows)
    assert isinstance(found.counts, DiskArray)
    write_scan(tmp_path / "b.npz", found, read_truth(path))
    scan, obj = small_scan()
    write_scan(tmp_path / "c.npz", scan.frames(rows), obj)
    assert (tmp_path / "b.npz").read_bytes() == (tmp_path / "c.npz").read_bytes()
