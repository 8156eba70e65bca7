"""Files of any other form, whose datasets the user names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

import fly64_dose_overlap as fdo
import tiny_scan
from fly64_dose_overlap.errors import StudyError

PIXEL_M = 20e-9
FIELDS: dict[str, Any] = {
    "frames": "entry/data/eiger",
    "y": "motors/sy",
    "x": "motors/sx",
    "unit": "um",
    "probe": "illumination",
    "bad": "entry/data/pixel_mask",
    "object_pixel_m": PIXEL_M,
    "energy_ev": "entry/energy",
}


def write_file(path: Path) -> fdo.Scan:
    """Write a scan under names of its own, compressed as detectors do, and return it."""
    scan = tiny_scan.scan()
    um = scan.positions_px * PIXEL_M * 1e6
    bad = np.zeros(scan.counts.shape[1:], np.uint32)
    bad[4, 7] = 8
    with h5py.File(path, "w") as file:
        frames = scan.counts[:].astype(np.uint32)
        file.create_dataset("entry/data/eiger", data=frames, chunks=(1, 32, 32), **hdf5plugin.Bitshuffle())
        file["entry/data/pixel_mask"] = bad
        file["motors/sy"], file["motors/sx"] = um.T
        file["illumination"] = scan.probe
        file["entry/energy"] = 8800.0
    return scan


def test_a_mapped_file_is_read_as_it_was_recorded(tmp_path: Path) -> None:
    scan = write_file(tmp_path / "raw.h5")
    found = fdo.read_scan(tmp_path / "raw.h5", fields=FIELDS)
    assert found.mask is not None
    assert np.argwhere(~found.mask[:]).tolist() == [[4, 7]]
    np.testing.assert_array_equal(np.where(found.mask[:], scan.counts[:], 0), found.counts[:])
    apart = found.positions_px - scan.positions_px
    np.testing.assert_allclose(apart, np.broadcast_to(apart[0], apart.shape), atol=1e-6)
    assert found.optics is not None
    assert found.optics.object_pixel_m == pytest.approx(PIXEL_M)


def test_an_npz_with_other_names_is_mapped_too(tmp_path: Path) -> None:
    scan = tiny_scan.scan()
    y, x = scan.positions_px.T
    stack = scan.counts[:].astype(np.uint16)
    np.savez(tmp_path / "mine.npz", stack=stack, row=y, col=x, P=scan.probe, obj=tiny_scan.truth())
    fields = {"frames": "stack", "y": "row", "x": "col", "unit": "px", "probe": "P", "object": "obj"}
    found = fdo.read_scan(tmp_path / "mine.npz", fields=fields)
    np.testing.assert_array_equal(found.counts[:], scan.counts[:])
    np.testing.assert_array_equal(found.positions_px, scan.positions_px)
    assert found.object_shape == scan.object_shape


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame": "a"}, r"base.fields: frame is unknown; it may have frames, y, x, unit, probe"),
        ({"frames": "nothing"}, r"frames: there is no 'nothing'; the file holds entry/data/eiger"),
        ({"unit": None}, "unit of y and x is None; state one of px, m"),
        ({"unit": "furlong"}, "unit of y and x is 'furlong'; state one of"),
        ({"x": None}, "does not name both y and x; a scan has positions"),
        ({"x": "motors/sy"}, "y and x are both 'motors/sy'; each has a number of every frame"),
        ({"object_pixel_m": 0.0}, "base.fields.object_pixel_m: is 0; it must be positive"),
        ({"energy_ev": "motors/sy"}, r"energy_ev: 'motors/sy' holds float64 \(81,\); name a dataset of one"),
        (
            {"object_pixel_m": None},
            "positions are lengths, but the file does not say .*; state them, or object_pixel_m, in base",
        ),
        ({"probe": None}, "has no probeGuess"),
    ],
)
def test_a_mapping_that_cannot_be_followed_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_file(tmp_path / "raw.h5")
    fields = {key: value for key, value in {**FIELDS, **changes}.items() if value is not None}
    with pytest.raises(StudyError, match=message):
        fdo.read_scan(tmp_path / "raw.h5", fields=fields)


def test_a_mask_and_bad_pixels_are_both_left_out(tmp_path: Path) -> None:
    write_file(tmp_path / "raw.h5")
    mask = np.ones((32, 32), np.uint8)
    mask[1, 2] = 0
    with h5py.File(tmp_path / "raw.h5", "r+") as file:
        file["mask"] = mask
    found = fdo.read_scan(tmp_path / "raw.h5", fields={**FIELDS, "mask": "mask"})
    assert found.mask is not None
    assert np.argwhere(~found.mask[:]).tolist() == [[1, 2], [4, 7]]
    with h5py.File(tmp_path / "raw.h5", "r+") as file:
        file["of_frames"] = np.broadcast_to(mask, tiny_scan.scan().counts.shape)
        file["small"] = mask[:30]
    found = fdo.read_scan(tmp_path / "raw.h5", fields={**FIELDS, "mask": "of_frames"})
    assert found.mask is not None
    assert np.argwhere(~found.mask[5]).tolist() == [[1, 2], [4, 7]]
    with pytest.raises(StudyError, match=r"mask is bool \(30, 32\), and bad has shape \(32, 32\)"):
        fdo.read_scan(tmp_path / "raw.h5", fields={**FIELDS, "mask": "small"})


@pytest.mark.parametrize("unit", ["px", "nm"])
def test_a_unit_that_the_file_contradicts_is_refused(unit: str, tmp_path: Path) -> None:
    write_file(tmp_path / "raw.h5")
    with h5py.File(tmp_path / "raw.h5", "r+") as file:
        file["motors/sy"].attrs["units"] = file["motors/sx"].attrs["units"] = "um"
    assert len(fdo.read_scan(tmp_path / "raw.h5", fields=FIELDS)) == len(tiny_scan.scan())
    with pytest.raises(StudyError, match=f"base.fields: unit is '{unit}', but motors/sy says 'um'; mend the"):
        fdo.read_scan(tmp_path / "raw.h5", fields={**FIELDS, "unit": unit})
