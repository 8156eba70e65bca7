"""What a reconstruction is told about the instrument, with errors if the study asks for them.

Frames are simulated with the true probe at the true positions. A view carries the probe
and positions that every method is given; errors put there are the same for all of them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.config import CalibrationParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import Dataset
from fly64_dose_overlap.provenance import with_step
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.study.probe import HC_EV_M


def with_calibration_errors(dataset: Dataset, params: CalibrationParams, *, where: str) -> Dataset:
    """Return the dataset with errors in its probe and its positions.

    Parameters
    ----------
    dataset : Dataset
    params : CalibrationParams
        All errors zero gives the very same dataset.
    where : str
        Names the dataset in errors.

    Returns
    -------
    Dataset
        Positions that would put a window outside the object are moved back to its edge.

    Raises
    ------
    StudyError
        If a defocus is asked for and the provenance lacks wavelength or pixel size.
    """
    errors = params.model_dump(exclude={"seed"})
    if not any(errors.values()):
        return dataset
    probe = dataset.probe.astype(np.complex128)
    if params.defocus_error_um:
        wavelength_m, pixel_m = _optics(dataset, where)
        probe = propagate(probe, params.defocus_error_um * 1e-6, wavelength_m, pixel_m)
    probe *= math.sqrt(1 + params.photon_scale_error)
    rng = generator(params.seed, "calibration", "positions", *map(int, dataset.scan_index[:1]))
    moved = dataset.positions_px + rng.normal(0, params.position_error_px, dataset.positions_px.shape)
    half = dataset.probe.shape[0] // 2
    inside = np.clip(moved, half, np.array(dataset.obj.shape) - half)
    record = with_step(dataset.record, "calibration", "errors of probe and positions", **params.model_dump())
    return replace(dataset, probe=probe.astype(np.complex64), positions_px=inside, record=record)


def propagate(
    field: NDArray[np.complex128], distance_m: float, wavelength_m: float, pixel_m: float
) -> NDArray[np.complex128]:
    """Propagate a field through free space by the Fresnel transfer function.

    exp(-i pi wavelength z u^2) at spatial frequency u (J. W. Goodman, Introduction to
    Fourier Optics, section 4.2); the power is kept. Light that leaves the frame wraps around.

    Parameters
    ----------
    field : (y, x) complex128
    distance_m, wavelength_m, pixel_m : float, m
    """
    rows, columns = (np.fft.fftfreq(n, pixel_m) for n in field.shape)
    phase = -math.pi * wavelength_m * distance_m * (rows[:, None] ** 2 + columns**2)
    return np.fft.ifft2(np.fft.fft2(field) * np.exp(1j * phase))


def _optics(dataset: Dataset, where: str) -> tuple[float, float]:
    physics: dict[str, Any] = dataset.record.get("physics_parameters", {})
    missing = [key for key in ("energy_ev", "object_pixel_m") if not physics.get(key)]
    if missing:
        raise StudyError(
            where,
            f"calibration.defocus_error_um needs {' and '.join(missing)}, which the provenance lacks",
            "set calibration.defocus_error_um to 0",
        )
    return HC_EV_M / float(physics["energy_ev"]), float(physics["object_pixel_m"])
