"""Reconstructions as HDF5 products of ptychodus, which opens, compares and refines them.

The layout is that of ``ptychodus.api.io`` 1.7.0. Lengths are in metres about the middle of
the object; everything that its reader needs and the reconstruction lacks comes from the
physics of the experiment, and is never guessed.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any, TypedDict, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import atomic_path
from fly64_dose_overlap.files.reconstruction import Reconstruction, checked, read_reconstructions
from fly64_dose_overlap.provenance import Record

_FORMAT = ("v108", "v108")
"""Oldest and newest version of the file format that is written; any h5py 3 reads it."""


class Optics(TypedDict):
    """What a product must say of the experiment."""

    pixel_m: float
    """Side of an object pixel."""
    photon_energy_ev: float
    detector_distance_m: float
    """From object to detector."""


def recorded_optics(record: Record, *, where: str) -> Optics:
    """Return the optics that the provenance of a dataset or a reconstruction states, or refuse it.

    That one is not recorded is usual for a base set of one's own. ptychodus reads no product without
    them, and invented values would give wrong lengths.
    """
    physics: Any = record.get("physics_parameters")
    known = cast(dict[str, Any], physics) if isinstance(physics, dict) else {}
    keys = ("object_pixel_m", "energy_ev", "detector_distance_m")
    missing = [key for key in keys if not isinstance(known.get(key), int | float)]
    if missing:
        hint = "ptychodus needs them; state them in base.fields, of an NPZ in its _metadata"
        raise StudyError(where, f"the provenance has no {', '.join(missing)}", hint)
    pixel_m, energy_ev, distance_m = (float(known[key]) for key in keys)
    return Optics(pixel_m=pixel_m, photon_energy_ev=energy_ev, detector_distance_m=distance_m)


def write_product(path: Path | str, reconstruction: Reconstruction, optics: Optics) -> None:
    """Write a reconstruction as a product that ptychodus opens; equal ones give equal bytes.

    The position of a frame in a product is the middle of its window, ``(N - 1) / 2``, from
    the middle of the object, ``(M - 1) / 2``: for even N, ``(x - M / 2) * pixel_m`` where x
    is the object pixel under patch pixel N / 2. Frames are numbered from 0 in the dataset's
    order, as ptychodus numbers patterns that carry no index. If a length or the energy is not
    positive, or the reconstruction is not sound, it is refused, and nothing is written.
    """
    where = str(path)
    for name, value in optics.items():
        if not 0 < cast(float, value) < math.inf:
            raise StudyError(where, f"{name} must be positive and finite, got {value}")
    r = checked(reconstruction, where=where)
    pixel_m = optics["pixel_m"]
    pixel = {"pixel_width_m": pixel_m, "pixel_height_m": pixel_m}
    side = r.probe.shape[-1]
    position_m = (r.positions_px - side // 2 - (np.array(r.obj.shape) - side) / 2) * pixel_m
    # In memory first: on a full disk the HDF5 library ends the process by a segmentation fault.
    content = io.BytesIO()
    with h5py.File(content, "w", libver=_FORMAT) as file:
        # The reader has defaults for the rest: exposure, tilt, absorption.
        file.attrs.update(
            {
                "name": r.label,
                "comments": r.metadata(),
                "photon_energy_eV": optics["photon_energy_ev"],
                "detector_object_distance_m": optics["detector_distance_m"],
                "probe_photon_count": float(np.sum(np.abs(r.probe.astype(np.complex128)) ** 2)),
                "far_field": True,
            }
        )
        # Axes (layer, y, x), and (mode of the variation along the scan, incoherent mode, y, x).
        # Kept open, which decides where the library puts the rest.
        obj = _dataset(file, "object", r.obj[None])
        obj.attrs.update({**pixel, "center_x_m": 0.0, "center_y_m": 0.0})
        _dataset(file, "probe", r.probe[None]).attrs.update(pixel)
        _dataset(file, "probe_position_indexes", np.arange(len(position_m)))
        _dataset(file, "probe_position_x_m", position_m[:, 1])
        _dataset(file, "probe_position_y_m", position_m[:, 0])
        _dataset(file, "object_layer_spacing_m", np.zeros(0))
        _dataset(file, "loss_epochs", np.arange(len(r.loss)))
        _dataset(file, "loss_values", r.loss)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def write_products(folder: Path) -> None:
    """Write a product beside every reconstruction of a folder.

    Where the provenance lacks what a product must say, none is written; stage base has said why.
    """
    for reconstruction in read_reconstructions(folder):
        path = folder / f"{reconstruction.method}.h5"
        try:
            optics = recorded_optics(reconstruction.record, where=str(path))
        except StudyError:
            return
        write_product(path, reconstruction, optics)


def _dataset(file: h5py.File, name: str, values: NDArray[Any]) -> h5py.Dataset:
    """Write an array without the time of day; compressed, unless it is empty."""
    how = {"compression": "gzip", "shuffle": True} if values.size else {}
    return file.create_dataset(name, data=values, track_times=False, **how)
