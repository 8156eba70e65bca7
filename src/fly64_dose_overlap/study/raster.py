"""Scan positions of a fly scan."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.errors import StudyError

JITTER_LIMIT_SIGMAS = 3.0


def raster_scan(
    field_px: float,
    step_px: float,
    jitter_px: float,
    rng: np.random.Generator,
    *,
    origin_px: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.float64]:
    """Return the positions of a serpentine raster with jitter.

    A fly scan moves along x without stopping and turns back on the next line. The
    jitter stands for the stage's errors; it also breaks the raster's symmetry, which
    would otherwise leave periodic artefacts in a reconstruction.

    Parameters
    ----------
    field_px, step_px : float, object pixels
        Side of the square that holds all positions, and pitch along both axes. A field that
        is not a multiple of the pitch has the raster in its middle.
    jitter_px : float, object pixels
        Standard deviation of each coordinate, cut off at three of them. Positions that
        would leave the field are reflected at its border.
    origin_px : (float, float), object pixels
        Corner (y, x) of the field with the lowest coordinates.

    Returns
    -------
    positions_px : (frame, 2) float64, object pixels
        (y, x), in the order of acquisition.

    Raises
    ------
    StudyError
        If a length is out of range.
    """
    if not 0 < step_px <= field_px:
        raise StudyError("step_px", f"must be positive and at most field_px={field_px}, got {step_px}")
    if not 0 <= jitter_px <= field_px / (2 * JITTER_LIMIT_SIGMAS):
        problem = f"must lie between 0 and a sixth of field_px={field_px}, got {jitter_px}"
        raise StudyError("jitter_px", problem)
    lines = math.floor(field_px / step_px) + 1
    axis = np.arange(lines, dtype=np.float64) * step_px
    axis += (field_px - axis[-1]) / 2
    positions = np.empty((lines, lines, 2))
    positions[:, :, 0] = axis[:, None]
    positions[::2, :, 1] = axis
    positions[1::2, :, 1] = axis[::-1]
    positions = positions.reshape(-1, 2)
    limit = JITTER_LIMIT_SIGMAS * jitter_px
    positions += np.clip(jitter_px * rng.standard_normal(positions.shape), -limit, limit)
    positions = np.abs(positions)
    positions = field_px - np.abs(field_px - positions)
    return positions + np.asarray(origin_px, dtype=np.float64)
