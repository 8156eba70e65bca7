"""Arrays that stay in a file."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fly64_dose_overlap import arrays as disk_array
from fly64_dose_overlap.arrays import (
    DiskArray,
    OpenFile,
    Spool,
    rows_per_block,
    scratch_folder,
    select_rows,
    spool,
)
from fly64_dose_overlap.errors import StudyError

WHOLE = np.random.default_rng(0).normal(size=(13, 3, 4)).astype(np.float32)


def stored(array: NDArray[Any] = WHOLE, step: int = 5) -> DiskArray:
    return spool(array.shape, array.dtype, (array[i : i + step] for i in range(0, len(array), step)))


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def assert_equal(found: NDArray[Any], wanted: NDArray[Any]) -> None:
    assert found.dtype == wanted.dtype
    assert found.flags.c_contiguous
    assert found.flags.writeable
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dtype", ["f4", "c8", "i8", "b1", "U3"])
def test_the_whole_comes_back(dtype: str) -> None:
    array = WHOLE.astype(dtype)
    found = stored(array)
    assert (found.shape, found.dtype, found.ndim, len(found)) == (array.shape, array.dtype, 3, 13)
    assert_equal(found[:], array)
    assert_equal(np.asarray(found), array)


@given(st.slices(13))
def test_slices_are_those_of_numpy(key: slice) -> None:
    assert_equal(stored()[key], WHOLE[key])


@given(st.lists(st.integers(-13, 12), max_size=20), st.lists(st.integers(-9, 8), max_size=20))
def test_rows_are_those_of_numpy_in_any_order_and_selected_twice(first: list[int], second: list[int]) -> None:
    disk = stored()
    numbers = np.array(first, np.int64)
    assert_equal(disk[numbers], WHOLE[numbers])
    assert_equal(disk.select_rows(numbers)[:], WHOLE[numbers])
    nine = np.arange(12, 3, -1)
    again = np.array(second, np.int64)
    assert_equal(disk.select_rows(nine).select_rows(again)[:], WHOLE[nine][again])
    assert_equal(disk.select_rows(nine)[again], WHOLE[nine][again])


def test_one_row_has_no_first_axis() -> None:
    assert_equal(stored()[2], WHOLE[2])
    assert_equal(stored()[-1], WHOLE[-1])


@pytest.mark.parametrize("key", [13, -14, np.array([0, 13]), np.array([0.0]), np.ones(13, bool), [[1]]])
def test_what_is_no_row_is_refused(key: Any) -> None:
    with pytest.raises(IndexError, match="rows"):
        stored()[key]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("read_through", [0, 20, 4096])
def test_blocks_along_any_axis_make_the_whole(
    axis: int, rows: int, read_through: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_array, "READ_THROUGH_BYTES", read_through)
    blocks = list(stored().blocks(axis, rows))
    assert all(len(block) == rows for block in blocks[:-1])
    assert_equal(np.concatenate(blocks), np.ascontiguousarray(np.moveaxis(WHOLE, axis, 0)))


def test_blocks_of_selected_rows() -> None:
    rows = np.array([4, 3, 11, 0])
    selected = stored().select_rows(rows)
    assert_equal(np.concatenate(list(selected.blocks(rows=3))), WHOLE[rows])
    with pytest.raises(ValueError, match="blocks along axis 1 of selected rows"):
        next(selected.blocks(axis=1))


@pytest.mark.parametrize("shape", [(0,), (0, 3, 4), (5, 0)])
def test_arrays_without_a_value(shape: tuple[int, ...]) -> None:
    empty = np.empty(shape, np.float32)
    found = stored(empty)
    assert_equal(found[:], empty)
    assert sum(map(len, found.blocks())) == shape[0]
    assert_equal(found[np.empty(0, np.int64)], empty[:0])


def test_frames_in_memory_and_on_disk_are_selected_alike() -> None:
    rows = np.array([7, 2])
    selected = select_rows(stored(), rows)
    assert isinstance(selected, DiskArray)
    assert_equal(selected[:], np.asarray(select_rows(WHOLE, rows)))


def test_a_block_is_some_mebibytes_and_at_least_a_row() -> None:
    assert rows_per_block((1000, 64, 64), np.float32) == 256
    assert rows_per_block((1000, 4096, 4096), np.float32) == 1
    assert rows_per_block((1000, 0), np.float32) > 0


def test_a_file_that_was_cut_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(WHOLE.tobytes())
    disk = DiskArray(OpenFile(os.open(path, os.O_RDONLY), "rows.npz"), WHOLE.shape, np.float32)
    os.truncate(path, WHOLE.nbytes - 1)
    assert_equal(disk[:12], WHOLE[:12])
    with pytest.raises(StudyError, match=r"^rows\.npz: ends at byte 623: it was cut while it was in use"):
        disk[12]


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    folder = DiskArray(OpenFile(os.open(tmp_path, os.O_RDONLY), "folder"), (1,), np.float32)
    with pytest.raises(StudyError, match=r"^folder: cannot be read \(Is a directory\)$"):
        folder[:]


def test_long_reads_are_made_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_array, "READ_BYTES", 7)
    assert_equal(stored()[1:], WHOLE[1:])


def test_the_file_vanishes_with_its_last_user() -> None:
    before = descriptors()
    selected = stored().select_rows(np.array([1]))
    assert descriptors() == before + 1
    assert_equal(selected[:], WHOLE[1:2])
    del selected
    assert descriptors() == before


def test_copies_and_pickles_have_their_rows_when_the_file_is_gone() -> None:
    selected = stored().select_rows(np.array([4, 0]))
    copies = [deepcopy(selected), pickle.loads(pickle.dumps(selected))]
    del selected
    # What is opened next takes the number of the file that was closed.
    with tempfile.TemporaryFile() as other:
        os.truncate(other.fileno(), WHOLE.nbytes)
        for found in copies:
            assert isinstance(found, DiskArray)
            assert_equal(found[:], WHOLE[[4, 0]])


def test_the_file_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    disk = stored()
    assert_equal(disk[:], WHOLE)
    assert not list(tmp_path.iterdir())


def test_temporary_arrays_go_to_the_folder_that_was_asked_for_and_not_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert scratch_folder() == str(tmp_path)
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    assert scratch_folder() == "/var/tmp"


def test_a_folder_that_does_not_take_the_file_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/")
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    with pytest.raises(StudyError, match=r"^/no/such/folder \(temporary file\): cannot be made"):
        stored()


def test_more_files_than_may_be_open_are_one_line_with_what_helps() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 3, limits[1]))
    try:
        with pytest.raises(StudyError, match=r"Too many open files\); keep fewer scans at a time"):
            _kept = [stored() for _ in range(9)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_full_disk_is_one_line_and_the_file_is_gone() -> None:
    before = descriptors()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        with pytest.raises(StudyError, match=r"cannot be written \(File too large\), it needs 0 MiB"):
            stored()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert descriptors() == before


def test_rows_of_another_shape_or_number_are_refused() -> None:
    started = Spool(WHOLE.shape, np.float32)
    started.append(WHOLE[:10])
    assert len(started) == 10
    for bad in (WHOLE[:4], WHOLE[:1, :2]):
        with pytest.raises(ValueError, match="follow 10 rows"):
            started.append(bad)
    with pytest.raises(ValueError, match="10 of 13 rows were written"):
        started.finish()


def test_rows_are_converted_as_they_are_written() -> None:
    assert_equal(spool(WHOLE.shape, np.float32, [WHOLE.astype(">f8")])[:], WHOLE)


def test_memory_is_that_of_a_block() -> None:
    def blocks() -> Iterator[NDArray[np.float32]]:
        for number in range(40):
            yield np.full((1, 512, 512), number, np.float32)

    tracemalloc.start()
    try:
        disk = spool((40, 512, 512), np.float32, blocks()).select_rows(np.arange(0, 40, 2))
        total = sum(float(block.sum()) for block in disk.blocks())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == sum(range(0, 40, 2)) * 512 * 512
    assert peak < 12e6  # the whole is 42 MB


def test_threads_read_at_once() -> None:
    rows = np.arange(2000, dtype=np.int64)[:, None].repeat(64, axis=1)
    disk = spool(rows.shape, rows.dtype, [rows])
    wrong: list[int] = []

    def read(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(0, 2000, 500):
            if not np.array_equal(disk[int(number)], rows[number]):
                wrong.append(int(number))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
