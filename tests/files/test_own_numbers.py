"""Numbers in a user's own NPZ that do not mean what others would take them for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import BaseSet
from fly64_dose_overlap.files.npz_writer import write_npz
from fly64_dose_overlap.files.own_npz import read_user_base

Arrays = dict[str, Any]


def canonical(folder: Path, arrays: Arrays, **options: Any) -> BaseSet:
    write_npz(folder / "mine.npz", arrays)
    return read_user_base(folder / "mine.npz", **options)


def test_numbers_that_frames_share_are_left_out(arrays: Arrays, tmp_path: Path) -> None:
    """A number of the scan instead of the frame would match every frame with the first."""
    frames = len(arrays["xcoords"])
    for numbers in (np.zeros(frames, np.int64), np.arange(frames) // 2):
        with pytest.warns(UserWarning, match="'scan_index' has the same number for several frames"):
            found = canonical(tmp_path, {**arrays, "scan_index": numbers})
        np.testing.assert_array_equal(found.scan_index, np.arange(frames))


def test_a_background_is_divided_as_the_frames_are(arrays: Arrays, tmp_path: Path) -> None:
    counts = np.rint(arrays.pop("diffraction") ** 2).astype(np.uint16)
    background = np.full(counts.shape[1:], 2, np.float32)
    found = canonical(
        tmp_path, {**arrays, "counts": 4 * counts, "background": background}, counts_per_photon=4.0
    )
    assert found.background is not None
    np.testing.assert_array_equal(found.background, np.float32(0.5))
    assert found.amplitude is not None
    np.testing.assert_array_equal(np.rint(found.amplitude[:] ** 2), counts)


def test_roots_are_squared_before_they_are_divided(arrays: Arrays, tmp_path: Path) -> None:
    counts = np.rint(arrays["diffraction"] ** 2)
    found = canonical(
        tmp_path, {**arrays, "diffraction": np.sqrt(5 * counts, dtype=np.float32)}, counts_per_photon=5.0
    )
    assert found.amplitude is not None
    np.testing.assert_array_equal(np.rint(found.amplitude[:] ** 2), counts)


def test_broken_numbers_that_may_be_units_or_their_roots_are_refused(arrays: Arrays, tmp_path: Path) -> None:
    units = np.float32(4.4) * np.rint(arrays.pop("diffraction") ** 2) + np.float32(0.3)
    with pytest.raises(StudyError, match=r"'diffraction' must hold counted photons or .* name it counts"):
        canonical(tmp_path, {**arrays, "diffraction": units}, counts_per_photon=4.4)
    assert canonical(tmp_path, {**arrays, "counts": units}, counts_per_photon=4.4).amplitude is not None


def test_a_number_of_the_record_may_be_unknown(arrays: Arrays, tmp_path: Path) -> None:
    record = {"physics_parameters": {"energy_ev": None, "object_pixel_m": 2e-8}}
    found = canonical(tmp_path, {**arrays, "_metadata": np.array(json.dumps(record))})
    assert found.record["physics_parameters"]["energy_ev"] is None


def test_a_frame_stack_that_lies_about_its_size_takes_no_memory(arrays: Arrays, tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    content = path.read_bytes()
    shape, lie = b"'shape': (6, 8, 8), }  ", b"'shape': (6, 99999, 8), }"
    assert content.count(shape) == 1
    path.write_bytes(content.replace(shape, lie[: len(shape)]))
    with pytest.raises(StudyError, match="'diffraction' is damaged or truncated"):
        read_user_base(path)
