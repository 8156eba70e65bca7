"""Products for ptychodus: layout, metres about the middle, the same bytes, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fly64_dose_overlap import provenance
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.product import Optics, recorded_optics, write_product, write_products
from fly64_dose_overlap.files.reconstruction import (
    Reconstruction,
    write_reconstruction,
    write_reconstructions,
)
from fly64_dose_overlap.study.probe import ZonePlate

PIXEL_M = 50e-9
OPTICS = Optics(pixel_m=PIXEL_M, photon_energy_ev=8800.0, detector_distance_m=1.95)
SIDE, OBJECT_SHAPE = 8, (20, 25)


@pytest.fixture
def reconstruction() -> Reconstruction:
    rng = np.random.default_rng(5)
    modes = rng.normal(size=(2, SIDE, SIDE)) + 1j * rng.normal(size=(2, SIDE, SIDE))
    return Reconstruction(
        method="rpie",
        label="rPIE",
        kind="iterative",
        obj=np.exp(1j * rng.uniform(-1, 1, OBJECT_SHAPE)).astype(np.complex64),
        probe=modes.astype(np.complex64),
        positions_px=np.array([[4.0, 4.0], [10.0, 12.5], [11.25, 20.0]]),
        loss=np.array([3.0, 2.5]),
        settings={"epochs": 2},
        record=provenance.new_record("reconstruct"),
    )


def opened(path: Path) -> Any:
    return h5py.File(path)


def test_layout_and_units(reconstruction: Reconstruction, tmp_path: Path) -> None:
    write_product(tmp_path / "a.h5", reconstruction, OPTICS)
    with opened(tmp_path / "a.h5") as file:
        content: dict[str, Any] = {name: item[()] for name, item in file.items()}
        root, obj, probe = (dict(item.attrs) for item in (file, file["object"], file["probe"]))
    assert np.array_equal(content["object"], reconstruction.obj[None])
    assert np.array_equal(content["probe"], reconstruction.probe[None])
    assert content["object"].dtype == content["probe"].dtype == np.complex64
    assert obj == {"pixel_width_m": PIXEL_M, "pixel_height_m": PIXEL_M, "center_x_m": 0, "center_y_m": 0}
    assert probe == {"pixel_width_m": PIXEL_M, "pixel_height_m": PIXEL_M}
    assert root["name"] == "rPIE"
    assert root["photon_energy_eV"] == 8800
    assert root["detector_object_distance_m"] == 1.95
    assert root["probe_photon_count"] == pytest.approx(np.sum(np.abs(reconstruction.probe) ** 2))
    assert root["far_field"]
    assert json.loads(root["comments"])["reconstruction"]["method"] == "rpie"
    assert content["loss_epochs"].tolist() == [0, 1]
    assert content["loss_values"].tolist() == [3.0, 2.5]
    assert content["probe_position_indexes"].tolist() == [0, 1, 2]
    assert content["object_layer_spacing_m"].shape == (0,)


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("shape", [(20, 25), (21, 24)])
def test_positions_lead_back_to_our_windows(
    reconstruction: Reconstruction, tmp_path: Path, side: int, shape: tuple[int, int]
) -> None:
    changed = replace(
        reconstruction, obj=np.ones(shape, np.complex64), probe=np.ones((1, side, side), np.complex64)
    )
    write_product(tmp_path / "a.h5", changed, OPTICS)
    with opened(tmp_path / "a.h5") as file:
        y_m, x_m = (np.asarray(file[f"probe_position_{axis}_m"]) for axis in "yx")
    # ptychodus: pixel k of M lies at k - (M - 1) / 2, and a window starts (N - 1) / 2 before its middle.
    first_y, first_x = (
        values / PIXEL_M + (length - 1) / 2 - (side - 1) / 2
        for values, length in zip((y_m, x_m), shape, strict=True)
    )
    expected = reconstruction.positions_px - side // 2
    np.testing.assert_allclose(np.stack([first_y, first_x], axis=1), expected, atol=1e-9)


def test_equal_reconstructions_give_equal_bytes_in_any_process(
    reconstruction: Reconstruction, tmp_path: Path
) -> None:
    write_product(tmp_path / "a.h5", reconstruction, OPTICS)
    written = int(time.time())
    write_reconstruction(tmp_path / "r.npz", reconstruction)
    # At another time, and with a heap of another history.
    code = (
        "import sys, time; filler = [bytes([7]) * n for n in range(5000)]; del filler\n"
        "from fly64_dose_overlap.files.product import write_product\n"
        "from fly64_dose_overlap.files.reconstruction import read_reconstruction\n"
        "while int(time.time()) == int(sys.argv[3]): time.sleep(0.01)\n"
        f"write_product(sys.argv[2], read_reconstruction(sys.argv[1]), {OPTICS})"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "r.npz"), str(tmp_path / "b.h5"), str(written)]
    subprocess.run(command, check=True)
    assert sha256_of(tmp_path / "a.h5") == sha256_of(tmp_path / "b.h5")


def test_a_long_provenance_fits(reconstruction: Reconstruction, tmp_path: Path) -> None:
    settings = {"notes": "x" * 200_000}
    write_product(tmp_path / "a.h5", replace(reconstruction, settings=settings), OPTICS)
    with opened(tmp_path / "a.h5") as file:
        assert json.loads(file.attrs["comments"])["reconstruction"]["settings"] == settings


def test_no_loss_is_an_empty_list(reconstruction: Reconstruction, tmp_path: Path) -> None:
    write_product(tmp_path / "a.h5", replace(reconstruction, loss=np.zeros(0)), OPTICS)
    with opened(tmp_path / "a.h5") as file:
        assert file["loss_values"].shape == file["loss_epochs"].shape == (0,)


@pytest.mark.parametrize("name", ["pixel_m", "photon_energy_ev", "detector_distance_m"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_optics_are_refused(
    reconstruction: Reconstruction, tmp_path: Path, name: str, value: float
) -> None:
    optics: Any = {**OPTICS, name: value}
    with pytest.raises(StudyError, match=rf"a\.h5: {name} must be positive and finite, got {value}"):
        write_product(tmp_path / "a.h5", reconstruction, optics)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_sound_is_not_written(reconstruction: Reconstruction, tmp_path: Path) -> None:
    outside = replace(reconstruction, positions_px=reconstruction.positions_px[:, ::-1])
    with pytest.raises(StudyError, match=r"a\.h5: 1 of 3 positions put the 8x8 probe outside the 20x25"):
        write_product(tmp_path / "a.h5", outside, OPTICS)
    real: Any = np.ones(OBJECT_SHAPE)
    with pytest.raises(StudyError, match=r"a\.h5: 'reconstructed_object' must be complex, got float64"):
        write_product(tmp_path / "a.h5", replace(reconstruction, obj=real), OPTICS)
    assert list(tmp_path.iterdir()) == []


def test_optics_come_from_the_provenance() -> None:
    optics = ZonePlate()
    physics = {
        "object_pixel_m": optics.object_pixel_m(64),
        "energy_ev": optics.energy_ev,
        "detector_distance_m": optics.detector_distance_m,
    }
    record = provenance.new_record("base", physics=physics)
    assert recorded_optics(record, where="base.npz") == {
        "pixel_m": pytest.approx(57.2e-9, rel=1e-3),
        "photon_energy_ev": 8800.0,
        "detector_distance_m": 1.95,
    }


@pytest.mark.parametrize(
    ("record", "missing"),
    [
        ({}, "object_pixel_m, energy_ev, detector_distance_m"),
        ({"physics_parameters": ["no mapping"]}, "object_pixel_m, energy_ev, detector_distance_m"),
        ({"physics_parameters": {"object_pixel_m": 1e-8, "energy_ev": "8.8 keV"}}, "energy_ev, detector"),
    ],
)
def test_optics_that_are_not_recorded_are_named(record: dict[str, Any], missing: str) -> None:
    message = rf"base\.npz: the provenance has no {missing}.*; ptychodus needs them"
    with pytest.raises(StudyError, match=message):
        recorded_optics(record, where="base.npz")


def test_a_folder_gets_a_product_for_every_reconstruction(
    reconstruction: Reconstruction, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"object_pixel_m": PIXEL_M, "energy_ev": 8800.0, "detector_distance_m": 1.95}
    record = provenance.with_physics(reconstruction.record, **known)
    other = replace(reconstruction, method="epie", record=record)
    write_reconstructions(tmp_path / "a", [replace(reconstruction, record=record), other])
    write_products(tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a").glob("*.h5")) == ["epie.h5", "rpie.h5"]
    write_reconstructions(tmp_path / "b", [reconstruction])
    write_products(tmp_path / "b")
    assert not list((tmp_path / "b").glob("*.h5"))
    assert not capsys.readouterr().err, "the base set's stage has said why"
