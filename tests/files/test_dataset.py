"""The dataset contract: reading and writing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fly64_dose_overlap import provenance
from fly64_dose_overlap.arrays import DiskArray
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.dataset import (
    BaseSet,
    read_base,
    read_scan,
    read_truth,
    write_base,
    write_scan,
)
from fly64_dose_overlap.files.npz_writer import write_npz
from fly64_dose_overlap.scan import HC_EV_M, Optics, Scan

FRAMES, OBJECT_SHAPE = 6, (20, 24)
"""Of the fixture ``arrays``."""
Arrays = dict[str, Any]


@pytest.fixture
def scan(arrays: Arrays) -> Scan:
    return Scan(
        counts=np.rint(arrays["diffraction"] ** 2),
        probe=arrays["probeGuess"][None],
        object_shape=OBJECT_SHAPE,
        positions_px=np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1),
        scan_index=np.arange(10, 10 + FRAMES),
        record=provenance.new_record("test", physics={"photons_per_frame": 256.0}),
        groups=np.array([[0, 1, 2, 3], [5, 4, 2, 1]], np.int32),
    )


def assert_same(first: Any, second: Any) -> None:
    for name, value in vars(first).items():
        other = getattr(second, name)
        if isinstance(value, (np.ndarray, DiskArray)):
            value, other = value[:], other[:]
            assert value.dtype == other.dtype, name
            assert np.array_equal(value, other), name
        else:
            assert value == other, name


@pytest.mark.parametrize("of_frames", [False, True])
def test_the_detector_comes_along(scan: Scan, arrays: Arrays, of_frames: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    mask = rng.random(scan.counts.shape[0 if of_frames else 1 :]) > 0.1
    scan = replace(scan, mask=mask, background=rng.random(mask.shape[-2:]).astype(np.float32))
    write_scan(tmp_path / "a.npz", scan, arrays["objectGuess"])
    again = read_scan(tmp_path / "a.npz")
    assert isinstance(again.mask, DiskArray) is of_frames
    assert_same(scan, again)
    base = BaseSet(
        arrays["objectGuess"],
        scan.probe,
        scan.positions_px,
        scan.scan_index,
        {},
        np.sqrt(scan.counts[:]),
        scan.mask,
        scan.background,
    )
    write_base(tmp_path / "base.npz", base)
    assert_same(base, read_base(tmp_path / "base.npz"))
    write_base(tmp_path / "bare.npz", replace(base, amplitude=None))
    assert read_base(tmp_path / "bare.npz").mask is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": np.ones((8, 8))}, r"'mask' must be boolean, .*got float64 \(8, 8\)"),
        ({"mask": np.ones((2, 8, 8), bool)}, r"'mask' must be .*got bool \(2, 8, 8\); .*\(6, 8, 8\)"),
        ({"background": np.ones((3, 8))}, r"'background' must hold photons of a frame \(8, 8\)"),
        ({"background": np.full((8, 8), -1.0)}, "'background' must be finite and not negative"),
    ],
)
def test_a_detector_that_does_not_fit_is_refused(
    arrays: Arrays, changes: Arrays, message: str, tmp_path: Path
) -> None:
    write_npz(tmp_path / "bad.npz", {**arrays, **changes})
    with pytest.raises(StudyError, match=message):
        read_scan(tmp_path / "bad.npz")


@pytest.mark.parametrize("modes", [1, 2])
def test_scan_round_trip_and_identical_rewrite(
    scan: Scan, arrays: Arrays, modes: int, tmp_path: Path
) -> None:
    scan = replace(scan, probe=np.repeat(scan.probe, modes, axis=0))
    obj, path = arrays["objectGuess"], tmp_path / "a.npz"
    write_scan(path, scan, obj)
    again = read_scan(path)
    assert isinstance(again.counts, DiskArray)
    assert_same(scan, again)
    assert_same(again, read_scan(path, gridsize=2, neighbor_count=7))
    assert np.array_equal(read_truth(path), obj)
    write_scan(tmp_path / "b.npz", again, read_truth(path))
    assert path.read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(path, allow_pickle=False) as file:
        assert np.array_equal(file["ycoords"], scan.positions_px[:, 0])
        assert np.array_equal(file["diffraction"], np.sqrt(scan.counts))
        assert file["probeGuess"].ndim == (2 if modes == 1 else 3)
        assert file["_metadata"].dtype.kind == "U"
        assert (file.files[0], file.files[-1]) == ("diffraction", "_metadata")
    with pytest.raises(StudyError, match=r"a.npz: neighbor_count=3 < C=4 \(OVERSAMPLING-001\)"):
        read_scan(path, gridsize=2, neighbor_count=3)
    with pytest.raises(StudyError, match="'groups' has 4 frames per group, expected C=1"):
        read_scan(path, gridsize=1)


def test_counts_are_whole_however_their_roots_were_rounded(tmp_path: Path) -> None:
    counts = np.arange(1, 7 * 64 + 1, dtype=np.float32).reshape(7, 8, 8) ** 2 + 12345
    scan = Scan(counts, np.ones((1, 8, 8), np.complex64), np.full((7, 2), 8.0), (16, 16))
    write_scan(tmp_path / "a.npz", scan, np.ones((16, 16), np.complex64))
    np.testing.assert_array_equal(read_scan(tmp_path / "a.npz").counts[:], counts)


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        (lambda counts: np.where(np.arange(6)[:, None, None] == 5, np.nan, counts), "NaN .*in frame 5"),
        (np.zeros_like, "all 6 frames"),
    ],
)
def test_frames_that_break_a_rule_leave_no_file(
    scan: Scan, arrays: Arrays, counts: Callable[[Any], Any], problem: str, tmp_path: Path
) -> None:
    broken = replace(scan, counts=counts(scan.counts).astype(np.float32))
    with pytest.raises(StudyError, match=rf"a\.npz: .*{problem}"):
        write_scan(tmp_path / "a.npz", broken, arrays["objectGuess"])
    assert list(tmp_path.iterdir()) == []


def test_an_invalid_scan_is_not_written(scan: Scan, arrays: Arrays, tmp_path: Path) -> None:
    scan.positions_px[0] = 100
    with pytest.raises(StudyError, match=r"a\.npz: 1 of 6 positions"):
        write_scan(tmp_path / "a.npz", scan, arrays["objectGuess"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("with_frames", [True, False])
def test_base_round_trip(scan: Scan, arrays: Arrays, tmp_path: Path, with_frames: bool) -> None:
    amplitude = arrays["diffraction"] if with_frames else None
    obj, probe = arrays["objectGuess"], scan.probe
    base = BaseSet(obj, probe, scan.positions_px, scan.scan_index, scan.record, amplitude)
    write_base(tmp_path / "a.npz", base)
    assert_same(base, read_base(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("physics", "optics"),
    [
        ({}, None),
        ({"energy_ev": 8800.0}, None),
        ({"energy_ev": 8800.0, "object_pixel_m": "wide"}, None),
        ({"energy_ev": -1.0, "object_pixel_m": 1e-8}, None),
        ({"energy_ev": 8800, "object_pixel_m": 1e-8}, Optics(HC_EV_M / 8800, 1e-8)),
        (
            {"energy_ev": 8800, "object_pixel_m": 1e-8, "detector_pixel_m": 75e-6, "detector_distance_m": 2},
            Optics(HC_EV_M / 8800, 1e-8, 75e-6, 2.0),
        ),
    ],
)
def test_optics_are_those_of_the_provenance(
    scan: Scan, arrays: Arrays, physics: dict[str, Any], optics: Optics | None, tmp_path: Path
) -> None:
    told = replace(scan, record=provenance.new_record("test", physics=physics))
    write_scan(tmp_path / "a.npz", told, arrays["objectGuess"])
    assert read_scan(tmp_path / "a.npz").optics == optics


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda arrays: arrays.pop("objectGuess"), "lacks 'objectGuess'; required keys: objectGuess"),
        (lambda arrays: arrays.update(objectGuess=np.ones(OBJECT_SHAPE)), "'objectGuess' must be complex"),
        (lambda arrays: arrays["objectGuess"].fill(np.nan), "'objectGuess' has NaN or infinite values"),
    ],
)
def test_a_truth_that_is_none_is_refused(
    arrays: Arrays, edit: Callable[[Arrays], Any], message: str, tmp_path: Path
) -> None:
    edit(arrays)
    write_npz(tmp_path / "a.npz", arrays)
    with pytest.raises(StudyError, match=rf"a\.npz: {message}"):
        read_truth(tmp_path / "a.npz")


def test_optional_entries_default(arrays: Arrays, tmp_path: Path) -> None:
    arrays["objectGuess"] = arrays["objectGuess"].astype(np.complex128)
    arrays["unknown"] = np.zeros(3)
    write_npz(tmp_path / "a.npz", arrays)
    scan = read_scan(tmp_path / "a.npz")
    assert (scan.record, scan.groups, scan.optics) == ({}, None, None)
    assert scan.scan_index.tolist() == list(range(FRAMES))
    assert read_truth(tmp_path / "a.npz").dtype == np.complex64


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (np.array("{broken"), "'_metadata' is not valid JSON"),
        (np.array('{"a": NaN}'), "'_metadata' is not valid JSON .*not JSON compliant"),
        (np.array('{"a": 1e999}'), "'_metadata' is not valid JSON"),
        (np.array("[" * 100_000), "'_metadata' is not valid JSON"),
        (np.array("[1]"), "is JSON but not a provenance record"),
        (np.array('{"data_transformations": ["x"]}'), "is JSON but not a provenance record"),
        (np.array('{"data_transformations": 3}'), "is JSON but not a provenance record"),
        (np.array('{"physics_parameters": 3}'), "physics_parameters must be an object, got int"),
        (np.zeros(3), "'_metadata' must be one JSON text, got float64"),
        (np.array(b"\xff\xfe"), "'_metadata' is not valid JSON"),
    ],
)
def test_broken_records_are_refused(arrays: Arrays, tmp_path: Path, metadata: Any, message: str) -> None:
    write_npz(tmp_path / "a.npz", {**arrays, "_metadata": metadata})
    with pytest.raises(StudyError, match=message) as caught:
        read_scan(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


def test_a_pickled_record_is_refused(arrays: Arrays, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", allow_pickle=True, **arrays, _metadata=np.array({"a": 1}, dtype=object))
    with pytest.raises(StudyError, match="'_metadata' holds pickled objects, which are never loaded"):
        read_scan(tmp_path / "a.npz")


def test_a_missing_dataset_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none\.npz: no such file"):
        read_scan(tmp_path / "none.npz")
