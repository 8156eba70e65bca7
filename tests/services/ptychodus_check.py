"""Products that the real ptychodus reads, simulates and finds to agree with our frames.

ptychodus.sh runs it three times: ``make FOLDER`` with the project's Python writes the products and
the frames that we expect, ``check FOLDER`` with ptychodus's own opens and simulates them and writes
files of its own, and ``read FOLDER`` with the project's reads these.
That a file opens says little; half a pixel or swapped axes show in the frames only.
"""

# ptychodus has an environment of its own.
# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 128
DOSE = 10000
LOSS = (3.0, 2.0, 1.5)
PRODUCTS = ("right", "shifted", "swapped")
FRAMES = "frames.npz"
THEIRS = {"HDF5": "theirs.h5", "CXI": "theirs.cxi"}
WHOLE = "whole.cxi"


def make(folder: Path) -> None:
    """Write a right product of a true object, two wrong ones, and the frames expected of it.

    ptychodus shifts the probe by fractions of a pixel, as we do.
    """
    from dataclasses import replace

    from scipy.ndimage import gaussian_filter

    from fly64_dose_overlap.config import load_params
    from fly64_dose_overlap.files.product import recorded_optics, write_product
    from fly64_dose_overlap.files.reconstruction import Reconstruction
    from fly64_dose_overlap.study.base import make_synthetic_base
    from fly64_dose_overlap.study.dose import Simulation

    params = load_params(Path(__file__).resolve().parents[2] / "params.yaml")
    scan = {"frame_side_px": SIDE, "field_px": 48.0, "step_px": 12.0, "jitter_px": 1.0}
    base = make_synthetic_base(params.base.model_copy(update=scan))
    noise = gaussian_filter(np.random.default_rng(1).normal(size=(2, *base.obj.shape)), (0, 6, 6))
    amplitude, phase = noise / noise.std()
    base = replace(base, obj=((0.9 + 0.03 * amplitude) * np.exp(1j * phase)).astype(np.complex64))
    base, _ = Simulation(base).with_dose(DOSE)
    truth = Reconstruction(
        method="truth",
        label="Truth",
        kind="reference",
        obj=base.obj,
        probe=base.probe,
        positions_px=base.positions_px,
        loss=np.array(LOSS),
        settings={},
        record=base.record,
    )
    optics = recorded_optics(base.record, where="base set")
    moved = (base.positions_px, base.positions_px + 0.5, base.positions_px[:, ::-1])
    for name, positions_px in zip(PRODUCTS, moved, strict=True):
        write_product(folder / f"{name}.h5", replace(truth, positions_px=positions_px), optics)
    detector_pixel_m = base.record["physics_parameters"]["detector_pixel_m"]
    np.savez(
        folder / FRAMES,
        photons=Simulation(base).expected(slice(0, len(base.positions_px))),
        detector_pixel_m=detector_pixel_m,
    )


def check(folder: Path) -> None:
    """Open the products by ptychodus's registry and compare its simulation with the frames."""
    from ptychodus.api.plugins import PluginRegistry

    reader = PluginRegistry.load_plugins().product_file_readers.get_strategy_by_name("HDF5")
    products = {name: reader.read(folder / f"{name}.h5") for name in PRODUCTS}
    right = products["right"]
    assert right.metadata.name == "Truth"
    assert [(loss.epoch, loss.value) for loss in right.losses] == list(enumerate(LOSS))
    assert right.probes.get_array().shape == (1, 1, SIDE, SIDE)
    assert right.object_.num_layers == 1
    with np.load(folder / FRAMES) as frames:
        photons, detector_pixel_m = frames["photons"], float(frames["detector_pixel_m"])
    assert abs(simulate(right)[1] / detector_pixel_m - 1) < 1e-6
    residual = {name: amplitude_residual(product, photons) for name, product in products.items()}
    print(*(f"{name}: amplitude residual {value:.4f}" for name, value in residual.items()), sep="\n")
    assert residual["right"] < 0.01
    assert residual["shifted"] > 0.03
    assert residual["swapped"] > 0.2
    writers = PluginRegistry.load_plugins().product_file_writers
    for name, path in THEIRS.items():
        writers.get_strategy_by_name(name).write(folder / path, right)
    # Its reader takes a file with frames beside the product, and its writer makes two.
    import h5py

    with h5py.File(folder / "theirs.cxi", "r") as product, h5py.File(folder / WHOLE, "w") as whole:
        for key in product:
            product.copy(key, whole, expand_soft=False)
        whole["entry_1/instrument_1/detector_1/data"] = np.random.default_rng(1).poisson(photons)


def read(folder: Path) -> None:
    """Read what ptychodus wrote, and compare what we expect of it with the frames expected before."""
    import torch

    from fly64_dose_overlap.files.own_npz import read_user_base
    from fly64_dose_overlap.physics.model import ScanModel

    with np.load(folder / FRAMES) as frames:
        photons = frames["photons"]
    for path in (*THEIRS.values(), WHOLE):
        base = read_user_base(folder / path, modes="all")
        model = ScanModel(torch.from_numpy(base.probe), base.positions_px, base.obj.shape)
        expected = model.expected(torch.from_numpy(base.obj), slice(0, len(photons))).numpy()
        difference = np.sqrt(expected) - np.sqrt(photons)
        residual = float(np.linalg.norm(difference) / np.linalg.norm(np.sqrt(photons)))
        print(f"{path}: amplitude residual {residual:.6f}")
        assert residual < 1e-3
        assert (base.amplitude is not None) == (path == WHOLE)


def amplitude_residual(product: Any, photons: Any) -> float:
    """Return norm(simulated - expected) / norm(expected) of the amplitudes, with nothing fitted."""
    difference = np.sqrt(simulate(product)[0]) - np.sqrt(photons)
    return float(np.linalg.norm(difference) / np.linalg.norm(np.sqrt(photons)))


def simulate(product: Any) -> tuple[Any, float]:
    """Return ptychodus's frames, (frame, y, x) photons, and its detector pixel in metres.

    Its wavefields are densities: photons are their squared modulus times the area of a pixel,
    in units of the object's, where the probe counts photons per pixel.
    """
    from ptychodus.api.simulate.diffraction import generate_diffraction_data

    data = generate_diffraction_data(product)
    detector, pixel = data.get_pixel_geometry(), product.object_.get_pixel_geometry()
    return data.get_patterns() * (detector.get_area_m2() / pixel.get_area_m2()), detector.width_m


if __name__ == "__main__":
    {"make": make, "check": check, "read": read}[sys.argv[1]](Path(sys.argv[2]))
