"""Scans in files of other programs: each written by its rules, read, and held against its own frames."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import fly64_dose_overlap as fdo
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files import rules
from fly64_dose_overlap.files.foreign import ForeignScan
from fly64_dose_overlap.files.formats import COUNTS
from fly64_dose_overlap.files.hdf import HdfFile
from fly64_dose_overlap.files.own_npz import read_user_base
from fly64_dose_overlap.files.product import Optics, write_product
from fly64_dose_overlap.files.reconstruction import Reconstruction
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.scan import Scan
from foreign_files import (
    DISTANCE_M,
    ENERGY_EV,
    PIXEL_M,
    SIDE,
    WRITERS,
    case,
    written,
)


def residual(found: dict[str, Any], scan: Scan, truth: NDArray[np.complex64]) -> float:
    """Return the R-factor of the truth, moved to where the file's grid has it, lit by the file's probe."""
    positions = np.stack([found[rules.YCOORDS], found[rules.XCOORDS]], axis=1)
    moved = np.rint((positions - scan.positions_px).mean(axis=0)).astype(int)
    height, width = found[rules.OBJECT].shape
    obj = np.ones((height, width), np.complex64)
    low = np.maximum(moved, 0)
    high = np.minimum(np.array(obj.shape), moved + truth.shape)
    rows, columns = (slice(a, b) for a, b in zip(low, high, strict=True))
    there = tuple(slice(a, b) for a, b in zip(low - moved, high - moved, strict=True))
    obj[rows, columns] = truth[there]
    probe = torch.from_numpy(found.get(rules.PROBE, scan.probe))
    model = ScanModel(probe, positions, (height, width))
    expected = model.expected(torch.from_numpy(obj), slice(0, len(positions))).numpy()
    seen = found[COUNTS].astype(np.float64)
    return float(np.abs(np.sqrt(seen) - np.sqrt(expected)).sum() / np.sqrt(seen).sum())


@pytest.mark.parametrize("name", WRITERS)
def test_a_scan_is_read_as_it_was_recorded(name: str, tmp_path: Path) -> None:
    scan, truth = case(name)
    with ForeignScan(HdfFile(written(tmp_path / "scan.h5", name))) as reader:
        assert reader.format in name
        found = {key: reader.load(key) for key in reader}
        assert reader.header(COUNTS)[0] == scan.counts.shape
        blocks = list(reader.stream(COUNTS, 14))
        physics = reader.physics
    np.testing.assert_array_equal(found[COUNTS], scan.counts[:])
    np.testing.assert_array_equal(np.concatenate(blocks), scan.counts[:])
    assert physics["object_pixel_m"] == pytest.approx(PIXEL_M, rel=1e-6)
    positions = np.stack([found[rules.YCOORDS], found[rules.XCOORDS]], axis=1)
    apart = positions - scan.positions_px
    np.testing.assert_allclose(apart, np.broadcast_to(apart[0], apart.shape), atol=1e-6)
    np.testing.assert_allclose(found.get(rules.PROBE, scan.probe), scan.probe)
    y, x = scan.positions_px.T
    own = {rules.YCOORDS: y, rules.XCOORDS: x, rules.OBJECT: truth, COUNTS: scan.counts[:]}
    assert residual(found, scan, truth) == pytest.approx(residual(own, scan, truth), rel=1e-3)
    for wrong in (np.roll(found[COUNTS], 1, axis=0), found[COUNTS].swapaxes(1, 2)):
        assert residual({**found, COUNTS: wrong}, scan, truth) > 1.1 * residual(found, scan, truth)
    if name.startswith("CXI") or name == "ptyd":
        assert np.argwhere(~found["mask"]).tolist() == [[3, 4]]


def test_a_reconstruction_of_ptypy_is_the_base_of_a_simulation(tmp_path: Path) -> None:
    scan, truth = case()
    found = read_user_base(written(tmp_path / "run.ptyr", "ptyr"), modes="all")
    assert found.amplitude is None
    np.testing.assert_allclose(found.positions_px, scan.positions_px, atol=1e-9)
    np.testing.assert_array_equal(found.obj, truth)
    np.testing.assert_array_equal(found.probe[0], scan.probe[0])
    assert len(found.probe) == 2
    assert found.record["physics_parameters"]["object_pixel_m"] == pytest.approx(PIXEL_M)


def test_a_reconstruction_of_ptypy_with_two_objects_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "run.ptyr", "ptyr")
    with h5py.File(path, "r+") as file:
        file.copy("content/obj/Sscan_00G00", "content/obj/Sscan_01G00")
    with pytest.raises(StudyError, match=r"ptypy with Sscan_00G00, Sscan_01G00; it must have one object"):
        read_user_base(path)


def test_what_a_file_does_not_say_is_not_guessed(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.cxi", "CXI")
    with h5py.File(path, "r+") as file:
        del file["entry_1/instrument_1/source_1/energy"]
    with pytest.raises(
        StudyError,
        match=r"lengths, but the file does not say energy_ev; state them, or object_pixel_m, in base.fields",
    ):
        ForeignScan(HdfFile(path))


def test_what_a_file_does_not_say_is_stated_beside_it(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.cxi", "CXI")
    with h5py.File(path, "r+") as file:
        del file["entry_1/instrument_1/source_1/energy"]
    with ForeignScan(HdfFile(path), {"energy_ev": ENERGY_EV}) as reader:
        assert reader.format == "CXI"
        assert reader.physics["object_pixel_m"] == pytest.approx(PIXEL_M, rel=1e-6)
        assert rules.PROBE in reader
    with pytest.raises(StudyError, match=r"has no dataset 'nothing'; it holds"):
        ForeignScan(HdfFile(path), {"energy_ev": "nothing"})


def test_a_probe_is_added_to_a_format_that_has_none(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.ptyd", "ptyd")
    with pytest.raises(StudyError, match=r"no probeGuess.*; add it as a dataset and name it: base\.fields"):
        read_user_base(path)
    with h5py.File(path, "r+") as file:
        file["mine"] = case()[0].probe
    found = read_user_base(path, modes="all", fields={"probe": "mine"})
    np.testing.assert_array_equal(found.probe, case()[0].probe)
    assert found.mask is not None
    assert np.argwhere(~found.mask[:]).tolist() == [[3, 4]]


def test_a_unit_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.cxi", "CXI")
    with h5py.File(path, "r+") as file:
        file["entry_1/instrument_1/detector_1/distance"].attrs["units"] = "eV"
    with pytest.raises(StudyError, match=r"detector_1/distance is in 'ev'; understood are a, angstrom, m, "):
        ForeignScan(HdfFile(path))


def test_a_probe_that_changes_from_frame_to_frame_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.cxi", "CXI")
    with h5py.File(path, "r+") as file:
        probe = case()[0].probe
        del file["entry_1/instrument_1/source_1/probe"]
        file["entry_1/instrument_1/source_1/illumination"] = probe[None]
    assert read_user_base(path, modes="all").probe.shape == probe.shape
    with h5py.File(path, "r+") as file:
        del file["entry_1/instrument_1/source_1/illumination"]
        file["entry_1/instrument_1/source_1/illumination"] = np.stack([probe, probe])
    with pytest.raises(StudyError, match=r"illumination has shape \(2, 1, 32, 32\): a probe that changes"):
        read_user_base(path)


def test_a_unit_that_is_not_known_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.cxi", "CXI")
    with h5py.File(path, "r+") as file:
        file["entry_1/instrument_1/source_1/energy"].attrs["units"] = "furlong"
    with pytest.raises(StudyError, match=r"energy is in 'furlong'; understood are .*kev.*"):
        ForeignScan(HdfFile(path))


def test_positions_far_apart_take_no_memory(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.cxi", "CXI")
    with h5py.File(path, "r+") as file:
        translation: Any = file["entry_1/instrument_1/detector_1/translation"]
        translation[0] = [1.0, 1.0, 0.0]
    with pytest.raises(StudyError, match=r"the positions span .* object pixels of .* m; are lengths"):
        ForeignScan(HdfFile(path))


def test_files_that_are_no_scan_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        ForeignScan(HdfFile(tmp_path / "nothing.h5"))
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(StudyError, match="is no HDF5 file, or is truncated"):
        ForeignScan(HdfFile(tmp_path / "text.h5"))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["mine/stack"] = np.zeros((2, 3))
    with pytest.raises(StudyError, match=r"is HDF5 of no format .*; name .* it holds mine/stack"):
        ForeignScan(HdfFile(tmp_path / "other.h5"))
    content = written(tmp_path / "scan.h5", "ptyd").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(StudyError, match="is no HDF5 file, or is truncated"):
        ForeignScan(HdfFile(tmp_path / "cut.h5"))


def test_hostile_bytes_never_end_in_a_traceback(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    content = written(tmp_path / "scan.h5", "ptyd").read_bytes()
    accepted = 0
    for _ in range(60):
        changed = bytearray(content)
        for place in rng.integers(0, 4000, 8):
            changed[place] = rng.integers(256)
        (tmp_path / "hostile.h5").write_bytes(changed)
        with suppress(StudyError), ForeignScan(HdfFile(tmp_path / "hostile.h5")) as reader:
            accepted += all(np.asarray(reader.load(key)).size for key in reader)
    assert accepted < 60


def test_the_front_door_reads_a_scan_of_another_program(tmp_path: Path) -> None:
    scan, _ = case()
    path = written(tmp_path / "scan.cxi", "CXI")
    with h5py.File(path, "r+") as file:
        frames: Any = file["entry_1/instrument_1/detector_1/data"]
        frames[:, 3, 4] = np.iinfo(np.uint32).max  # as detectors mark a dead pixel
    found = fdo.read_scan(path)
    assert found.mask is not None
    assert np.argwhere(~found.mask[:]).tolist() == [[3, 4]]
    np.testing.assert_array_equal(np.where(found.mask[:], scan.counts[:], 0), found.counts[:])
    np.testing.assert_array_equal(found.probe, scan.probe)
    assert found.optics is not None
    assert found.optics.object_pixel_m == pytest.approx(PIXEL_M, rel=1e-6)
    result = fdo.reconstruct(found, "map", epochs=5)
    assert np.isfinite(result.obj).all()


def test_a_scan_without_a_probe_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.ptyd", "ptyd")
    with pytest.raises(StudyError, match="has no probeGuess: a scan has a known probe"):
        fdo.read_scan(path)


def test_a_product_of_ptychodus_comes_back(tmp_path: Path) -> None:
    scan, truth = case()
    path = tmp_path / "product.h5"
    made = Reconstruction("map", "MAP", "iterative", truth, scan.probe, scan.positions_px, np.ones(2), {}, {})
    optics = {"pixel_m": PIXEL_M, "photon_energy_ev": ENERGY_EV, "detector_distance_m": DISTANCE_M}
    write_product(path, made, Optics(**optics))
    with h5py.File(path, "r+") as file:
        file["patterns"] = scan.counts[:].astype(np.uint16)
    found = fdo.read_scan(path)
    np.testing.assert_allclose(found.positions_px, scan.positions_px, atol=1e-5)
    np.testing.assert_allclose(found.probe, scan.probe, rtol=1e-3, atol=1e-2)
    assert found.object_shape == truth.shape


def test_a_mask_that_is_no_mask_is_refused(tmp_path: Path) -> None:
    scan, truth = case()
    y, x = scan.positions_px.T
    arrays: dict[str, Any] = {"objectGuess": truth, "probeGuess": scan.probe, "ycoords": y, "xcoords": x}
    for mask in (np.ones((SIDE, SIDE)), np.ones(SIDE, bool)):
        np.savez(tmp_path / "mine.npz", counts=scan.counts[:], mask=mask, **arrays)
        with pytest.raises(StudyError, match=r"'mask' must be boolean, \(y, x\) or \(frame, y, x\), got"):
            fdo.read_scan(tmp_path / "mine.npz")
    np.savez(tmp_path / "mine.npz", counts=scan.counts[:], mask=np.ones((9, SIDE), bool), **arrays)
    with pytest.raises(
        StudyError, match=r"'mask' must be boolean.*got bool \(9, 32\); .*frames are \(49, 32, 32\)"
    ):
        fdo.read_scan(tmp_path / "mine.npz")


def test_a_gap_that_is_masked_does_not_speak_against_the_object(tmp_path: Path) -> None:
    scan, truth = case()
    y, x = scan.positions_px.T
    mask = np.ones((SIDE, SIDE), bool)
    mask[:, 14:18] = False
    np.savez(
        tmp_path / "mine.npz", counts=np.where(mask, scan.counts[:], 7e4), mask=mask,
        objectGuess=truth, probeGuess=scan.probe, ycoords=y, xcoords=x,
    )  # fmt: skip
    found = fdo.read_scan(tmp_path / "mine.npz")
    assert found.photons_per_frame < 0.95 * scan.photons_per_frame


def rewritten(path: Path, changes: dict[str, Any]) -> Path:
    with h5py.File(path, "r+") as file:
        for name, value in changes.items():
            if "@" in name:
                owner, _, key = name.partition("@")
                file[owner or "/"].attrs[key] = value
                continue
            if name in file:
                del file[name]
            if value is not None:
                file[name] = value
    return path


DETECTOR = "entry_1/instrument_1/detector_1"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "CXI",
            {f"{DETECTOR}/y_pixel_size": 172e-6},
            r"pixels are 0\.000172 m high and 7\.5e-05 m wide; bin",
        ),
        (
            "ptyr",
            {"content/obj/Sscan_00G00/_psize": np.array([2e-8, 3e-8])},
            r"_psize: pixels are 2e-08 m high",
        ),
        (
            "ptyr",
            {"content/positions/Sscan_00G00": np.full((4, 2), np.nan)},
            r"position of frame 0 is \(nan, nan\)",
        ),
        ("PtychoShelves", {"outputs/probe_positions": np.zeros((2, 0))}, "positions are"),
        ("CXI", {f"{DETECTOR}/distance": -1.0}, "object_pixel_m must be .*; state it in base.fields"),
    ],
)
def test_lengths_that_cannot_be_are_refused(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=message):
        read_user_base(rewritten(written(tmp_path / "scan.h5", name), changes), modes="all")


def test_a_unit_of_each_axis_is_one_where_all_are_alike(tmp_path: Path) -> None:
    path = rewritten(
        written(tmp_path / "scan.cxi", "CXI"), {f"{DETECTOR}/translation@units": np.array([b"m", b"m", b"m"])}
    )
    assert read_user_base(path, modes="all").amplitude is not None


def test_text_beside_a_data_cube_is_not_looked_at(tmp_path: Path) -> None:
    path = rewritten(written(tmp_path / "scan.emd", "EMD"), {"a_meta/data": "text"})
    with ForeignScan(HdfFile(path)) as reader:
        assert reader.format == "EMD"


PRODUCT = {
    "object": np.ones((1, 60, 60), np.complex64),
    "probe": np.ones((1, 1, 8, 8), np.complex64),
    "probe_position_y_m": np.arange(4) * 1e-8,
    "probe_position_x_m": np.arange(4) * 1e-8,
    "object@pixel_width_m": 1e-8,
    "object@pixel_height_m": 1e-8,
    "@photon_energy_eV": 8800.0,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"object@pixel_width_m": "wide"},
            "attribute pixel_width_m of object is 'wide'; it must be one number",
        ),
        ({"object@center_x_m": np.array([1.0, 2.0])}, "attribute center_x_m of object is"),
        ({"@photon_energy_eV": "8.8 keV"}, "attribute photon_energy_eV of / is '8.8 keV'"),
        ({"object@pixel_height_m": 2e-8}, "object: pixels are 2e-08 m high and 1e-08 m wide"),
        ({"probe": np.ones((2, 1, 8, 8), np.complex64)}, "a probe that changes from frame to frame"),
    ],
)
def test_a_product_of_ptychodus_that_is_odd_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "product.h5", "w"):
        pass
    path = rewritten(tmp_path / "product.h5", PRODUCT)
    assert read_user_base(path, modes="all").obj.shape == (60, 60)
    with pytest.raises(StudyError, match=message):
        read_user_base(rewritten(path, change), modes="all")
