"""Scans in files of other programs, each written by the rules of its format."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import emdfile
import h5py
import hdf5storage
import numpy as np
from numpy.typing import NDArray

import fly64_dose_overlap as fdo
from fly64_dose_overlap.files.formats import ELEMENTARY_CHARGE
from fly64_dose_overlap.scan import HC_EV_M, Scan

SIDE = 32
ENERGY_EV, DISTANCE_M, DETECTOR_M = 8800.0, 1.5, 75e-6
PIXEL_M = HC_EV_M / ENERGY_EV * DISTANCE_M / (SIDE * DETECTOR_M)


@cache
def case(name: str = "") -> tuple[Scan, NDArray[np.complex64]]:
    """Return the scan that a format is written from; a data cube's is a raster, all lines one way."""
    jitter_px = 0.0 if name == "EMD" else 0.5
    scan, truth = fdo.simulate(
        1e4, seed=1, field_px=30, frame_side_px=SIDE, defocus_um=200, jitter_px=jitter_px
    )
    return (scan.frames(np.lexsort(scan.positions_px.T[::-1])) if name == "EMD" else scan), truth


def metres(scan: Scan) -> NDArray[np.float64]:
    return (scan.positions_px - 100.0) * PIXEL_M


def write_cxi(file: h5py.File, scan: Scan, units: bool = True) -> None:
    """Write the fields that CXI 1.6 and NXcxi_ptycho name."""
    file["cxi_version"] = 160
    entry = file.create_group("entry_1")
    y, x = metres(scan).T
    detector = entry.create_group("instrument_1/detector_1")
    detector["data"] = scan.counts[:].astype(np.uint32)
    detector["distance"] = DISTANCE_M * (1e3 if units else 1)
    detector["x_pixel_size"] = detector["y_pixel_size"] = DETECTOR_M
    detector["translation"] = np.stack([x, y, 0 * x], axis=1)
    mask = np.zeros((SIDE, SIDE), np.uint32)
    mask[3, 4] = 0x00000004  # dead
    detector["mask"] = mask
    source = entry.create_group("instrument_1/source_1")
    source["energy"] = ENERGY_EV / 1e3 if units else ENERGY_EV * ELEMENTARY_CHARGE
    source["probe"] = scan.probe
    if units:
        detector["distance"].attrs["units"], source["energy"].attrs["units"] = "mm", "keV"
    entry["data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")


def write_ptyd(file: h5py.File, scan: Scan) -> None:
    """Write what ptypy's doc/rst/ptyd.rst lists, and a probe beside it."""
    file["chunks/0/data"] = scan.counts[:].astype(np.int32)
    file["chunks/0/indices"] = np.arange(len(scan))
    file["chunks/0/positions"] = metres(scan)
    file["chunks/0/weights"] = np.zeros(0)
    weight = np.ones((SIDE, SIDE))
    weight[3, 4] = 0
    file["meta/weight2d"] = weight
    file["meta/energy"], file["meta/distance"] = ENERGY_EV / 1e3, DISTANCE_M
    file["meta/psize"] = np.full(2, DETECTOR_M)


def write_emd(file: h5py.File, scan: Scan) -> None:
    """Write a data cube by py4DSTEM's own library for files, with its calibration."""
    steps = [(5 * PIXEL_M * 1e9, "nm")] * 2 + [(1e-10 / (SIDE * PIXEL_M), "A^-1")] * 2
    cube = emdfile.Array(
        scan.counts[:].astype(np.uint16).reshape(7, 7, SIDE, SIDE),
        name="datacube",
        units="pixel intensity",
        dims=[[0, step] for step, _ in steps],
        dim_names=["Rx", "Ry", "Qx", "Qy"],
        dim_units=[unit for _, unit in steps],
    )
    calibration = emdfile.Metadata(name="calibration")
    calibration["R_pixel_size"], calibration["R_pixel_units"] = steps[0]
    calibration["Q_pixel_size"], calibration["Q_pixel_units"] = steps[2]
    cube.metadata = calibration
    copy_into(file, lambda path: emdfile.save(path, cube))


def write_shelves(file: h5py.File, scan: Scan) -> None:
    """Write a result of PtychoShelves as MATLAB's v7.3 keeps it, by another's writer of that format."""
    frames_last = np.moveaxis(scan.counts[:].astype(np.float32), 0, -1)
    result = {
        "probe": np.moveaxis(scan.probe, 0, -1),
        "outputs": {"probe_positions": scan.positions_px[:, ::-1]},
        "dp": frames_last,
        "p": {"dx_spec": np.full(2, PIXEL_M)},
    }
    copy_into(file, lambda path: hdf5storage.savemat(path, result, format="7.3", appendmat=False))


def copy_into(file: h5py.File, write: Callable[[str], object]) -> None:
    """Copy all that a library writes to a path of its own."""
    with TemporaryDirectory() as folder:
        path = str(Path(folder, "written"))
        write(path)
        with h5py.File(path) as source:
            for name in source:
                source.copy(name, file)


def write_ptyr(file: h5py.File, scan: Scan) -> None:
    """Write what ptypy's ``Ptycho.save_run`` does of a run; a position for each mode of the probe."""
    name = "Sscan_00G00"
    obj = file.create_group(f"content/obj/{name}")
    obj["data"] = case()[1][None]
    obj["_psize"] = np.full(2, PIXEL_M)
    obj["_origin"] = np.full(2, -100 * PIXEL_M)
    file[f"content/probe/{name}/data"] = np.concatenate([scan.probe, 0.3j * scan.probe[:, ::-1]])
    file[f"content/positions/{name}"] = np.repeat(metres(scan), 2, axis=0)


WRITERS: dict[str, Callable[[h5py.File, Scan], None]] = {
    "CXI": write_cxi,
    "CXI in SI units": lambda file, scan: write_cxi(file, scan, units=False),
    "ptyd": write_ptyd,
    "PtychoShelves": write_shelves,
    "EMD": write_emd,
}


WITHOUT_FRAMES = {"ptyr": write_ptyr}


def written(path: Path, name: str) -> Path:
    with h5py.File(path, "w") as file:
        (WRITERS | WITHOUT_FRAMES)[name](file, case(name)[0])
    return path
