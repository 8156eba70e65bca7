"""Photons that fall on the object."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import oaconvolve  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from fly64_dose_overlap.errors import StudyError

COVERED_FRACTION_OF_MAXIMUM = 0.1


def fluence_summary(
    probe: NDArray[np.inexact], positions_px: NDArray[np.float64], object_shape: tuple[int, int]
) -> dict[str, float]:
    """Summarise the photons that fall on each object pixel over the scan.

    Parameters
    ----------
    probe : (y, x) complex
        Sum of the squared modulus in photons per frame.
    positions_px : (frame, 2) float64, object pixels
    object_shape : (int, int)
        Rows and columns of the object.

    Returns
    -------
    dict
        ``photons_per_pixel_mean``, ``_median`` and ``_max`` over the bounding box of
        the positions, and ``covered_fraction``: the part of the box that gets more
        than a tenth of the maximum.

    Raises
    ------
    StudyError
        If a position lies outside the object.
    """
    fluence = fluence_map(probe, positions_px, object_shape)
    low = np.floor(positions_px.min(axis=0)).astype(int)
    high = np.ceil(positions_px.max(axis=0)).astype(int) + 1
    box = fluence[low[0] : high[0], low[1] : high[1]]
    maximum = float(box.max())
    return {
        "photons_per_pixel_mean": float(box.mean()),
        "photons_per_pixel_median": float(np.median(box)),
        "photons_per_pixel_max": maximum,
        "covered_fraction": float(np.mean(box > COVERED_FRACTION_OF_MAXIMUM * maximum)),
    }


def fluence_map(
    probe: NDArray[np.inexact], positions_px: NDArray[np.float64], object_shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Add up the probe's intensity over the scan: n(r) = sum_j abs(P(r - r_j))^2.

    Positions are spread bilinearly onto the grid, which is then convolved with the
    probe's intensity: time and memory depend on the object, not on the frames.

    Returns
    -------
    photons_per_pixel : (y, x) float64
        Incident photons; what falls beyond the object's edge is lost.
    """
    rows, columns = object_shape
    limit = np.array([rows - 1, columns - 1])
    outside = int(np.count_nonzero(((positions_px < 0) | (positions_px > limit)).any(axis=1)))
    if outside:
        raise StudyError(
            "positions_px",
            f"{outside} of {len(positions_px)} positions lie outside the {rows}x{columns} object",
            "are positions in object pixels?",
        )
    corner = np.minimum(np.floor(positions_px), np.maximum(limit - 1, 0)).astype(np.int64)
    fraction = positions_px - corner
    visits = np.zeros(rows * columns)
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = np.abs(1 - dy - fraction[:, 0]) * np.abs(1 - dx - fraction[:, 1])
        y, x = np.minimum(corner + np.array([dy, dx]), limit).T
        visits += np.bincount(y * columns + x, weights=weight, minlength=visits.size)
    intensity = np.abs(np.asarray(probe, dtype=np.complex128)) ** 2
    spread: Any = oaconvolve(visits.reshape(rows, columns), intensity, mode="full")
    top, left = (side // 2 for side in probe.shape)
    cropped = spread[top : top + rows, left : left + columns]
    return np.maximum(np.asarray(cropped, dtype=np.float64), 0.0)
