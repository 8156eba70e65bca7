"""What methods are told about the instrument, with errors if the study asks for them.

Frames are simulated with the true probe at the true positions, and a view carries these.
Errors come in where a method is given its scan, the same for all of them; overlap, region
and physical limit remain those of the true scan.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from fly64_dose_overlap.config import CalibrationParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.physics.modes import orthogonal
from fly64_dose_overlap.provenance import with_step
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.seeding import generator


def with_calibration_errors(scan: Scan, params: CalibrationParams, *, where: str) -> Scan:
    """Return the scan with errors in its probe and its positions.

    Parameters
    ----------
    params : CalibrationParams
        All errors zero gives the very same scan.

    Returns
    -------
    Scan
        Positions that would put a window outside the object are moved back to its edge.

    Raises
    ------
    StudyError
        If a defocus is asked for and wavelength or pixel size are not known.
    """
    if not any(params.model_dump(exclude={"seed"}).values()):
        return scan
    probe = scan.probe.astype(np.complex128)
    if params.modes is not None and params.modes < len(probe):
        strongest = orthogonal(torch.from_numpy(probe))[: params.modes].numpy()
        probe = strongest * np.sqrt((np.abs(probe) ** 2).sum() / (np.abs(strongest) ** 2).sum())
    for key in ("defocus_error_um", "astigmatism_um"):
        if getattr(params, key) and scan.optics is None:
            problem = f"calibration.{key} needs energy_ev and object_pixel_m, which the provenance lacks"
            raise StudyError(where, problem, f"set calibration.{key} to 0")
    if scan.optics is not None and (params.defocus_error_um or params.astigmatism_um):
        distances = params.defocus_error_um * 1e-6, params.astigmatism_um * 1e-6
        probe = propagate(
            probe, distances[0], scan.optics.wavelength_m, scan.optics.object_pixel_m, distances[1]
        )
    probe *= math.sqrt(1 + params.photon_scale_error)
    rng = generator(params.seed, "calibration", "positions", *map(int, scan.scan_index[:1]))
    moved = scan.positions_px + rng.normal(0, params.position_error_px, scan.positions_px.shape)
    lowest = scan.side // 2
    inside = np.clip(moved, lowest, np.array(scan.object_shape) - scan.side + lowest)
    flux = scan.flux
    if params.flux_error:
        rng = generator(params.seed, "calibration", "flux", *map(int, scan.scan_index[:1]))
        light = np.exp(rng.normal(0, params.flux_error, len(scan)))
        flux = light if flux is None else flux * light
    record = with_step(
        scan.record, "calibration", "errors of probe, positions and light", **params.model_dump()
    )
    return replace(scan, probe=probe.astype(np.complex64), positions_px=inside, flux=flux, record=record)


def propagate(
    field: NDArray[np.complex128],
    distance_m: float,
    wavelength_m: float,
    pixel_m: float,
    astigmatism_m: float = 0.0,
) -> NDArray[np.complex128]:
    """Propagate a field through free space by the Fresnel transfer function.

    exp(-i pi wavelength z u^2) at spatial frequency u (J. W. Goodman, Introduction to
    Fourier Optics, section 4.2); the power is kept. Light that leaves the frame wraps around.

    Parameters
    ----------
    field : (..., y, x) complex128
    distance_m, wavelength_m, pixel_m : float, m
    astigmatism_m : float, m
        By how much further along y than along x.
    """
    rows, columns = (np.fft.fftfreq(n, pixel_m) for n in field.shape[-2:])
    phase = -math.pi * wavelength_m * distance_m * (rows[:, None] ** 2 + columns**2)
    phase -= math.pi * wavelength_m * astigmatism_m / 2 * (rows[:, None] ** 2 - columns**2)
    return np.fft.ifft2(np.fft.fft2(field) * np.exp(1j * phase))
