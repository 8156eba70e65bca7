"""The part of the object that is scored: inside the scan, and illuminated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from fly64_dose_overlap.arrays import DiskArray
from fly64_dose_overlap.config import EvaluateParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.physics.illumination import require_positions

LEAST_MODULUS = 0.01

EVALUATION = EvaluateParams(region_threshold=0.1, registration_upsampling=50)
"""The study's own, so that a notebook's scores are those of the study."""


@dataclass(frozen=True, eq=False)
class Region:
    """Pixels over which every method is aligned and scored."""

    mask: NDArray[np.bool_]
    """(y, x), the scored pixels on the grid of the whole object."""
    rectangle: tuple[slice, slice]
    """Rows and columns of the smallest rectangle that holds the mask."""
    pixels: int
    """Number of pixels in the mask."""
    threshold: float
    """Fraction of the largest illumination in the scan's box that a pixel must exceed."""
    covered_fraction: float
    """Part of the scan's box that the mask covers."""

    @property
    def shape(self) -> tuple[int, int]:
        """Sides (y, x) of the rectangle, pixels."""
        rows, columns = self.rectangle
        return rows.stop - rows.start, columns.stop - columns.start

    def described(self, top: int = 0, left: int = 0) -> dict[str, Any]:
        """Return the region as JSON has it; (top, left) are added to its rows and columns."""
        rows, columns = self.rectangle
        return {
            "illumination_threshold": self.threshold,
            "pixels": self.pixels,
            "rows": [top + rows.start, top + rows.stop],
            "columns": [left + columns.start, left + columns.stop],
            "covered_fraction": self.covered_fraction,
        }

    def require_shape(self, name: str, field: NDArray[Any] | DiskArray) -> None:
        """Refuse an image that is not on the grid of the mask.

        Raises
        ------
        StudyError
            If the shapes differ; the message gives both.
        """
        if field.shape != self.mask.shape:
            raise StudyError(name, f"must have the region's shape {self.mask.shape}, got {field.shape}")


def scan_region(illumination: NDArray[Any], positions_px: NDArray[np.float64], threshold: float) -> Region:
    """Return the illuminated pixels inside the bounding box of the scan positions.

    Neither the object's centre nor any reconstruction enters, so the region is the same
    for every method.

    Parameters
    ----------
    illumination : (y, x) float, any unit, >= 0
        Sum over the frames of the probe intensity at each object pixel.
    positions_px : (frame, 2) float64, object pixels
        (y, x) of the object pixel under each patch's pixel [N/2, N/2].
    threshold : float
        Pixels count where the illumination exceeds this fraction of its largest value
        in the box; 0 <= threshold < 1.

    Raises
    ------
    StudyError
        If the input is malformed, or no pixel remains.
    """
    if illumination.ndim != 2 or np.iscomplexobj(illumination):
        found = f"{illumination.dtype} {illumination.shape}"
        raise StudyError("illumination", f"must be real (y, x), got {found}")
    if not np.all(np.isfinite(illumination)) or np.any(illumination < 0):
        raise StudyError("illumination", "must be finite and not negative")
    require_positions(positions_px)
    if not 0 <= threshold < 1:
        raise StudyError("region threshold", f"must be in [0, 1), got {threshold}")
    lowest, highest = positions_px.min(axis=0), positions_px.max(axis=0)
    first = np.maximum(np.ceil(lowest), 0).astype(int)
    stop = np.minimum(np.floor(highest) + 1, illumination.shape).astype(int)
    if np.any(stop <= first):
        raise StudyError(
            "scoring region",
            f"no pixel of {illumination.shape} lies between the {len(positions_px)} scan positions, "
            f"from {lowest.tolist()} to {highest.tolist()} (y, x)",
            "keep more frames (s_img of a view); are positions in object pixels?",
        )
    box = (slice(first[0], stop[0]), slice(first[1], stop[1]))
    inside = illumination[box]
    lit = inside > threshold * inside.max()
    if not lit.any():
        raise StudyError("scoring region", f"no light falls on the {lit.shape} pixels inside the scan")
    mask = np.zeros(illumination.shape, dtype=bool)
    mask[box] = lit
    rectangle = find_objects(mask.astype(np.int8))[0]
    return Region(mask, rectangle, int(lit.sum()), float(threshold), float(lit.mean()))


def with_phase(truth: NDArray[np.complexfloating], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a mask whose phase can be scored: no photon tells that of a truth near zero.

    The variance of a phase grows as one over the squared modulus, so that a few such pixels
    would decide a mean over all.

    Parameters
    ----------
    truth : (y, x) complex
    mask : (y, x) bool

    Returns
    -------
    (y, x) bool
        Where the modulus exceeds `LEAST_MODULUS` times its mean over the mask.
    """
    modulus = np.abs(truth)
    return mask & (modulus > LEAST_MODULUS * modulus[mask].mean())


def edge_taper(length: int, fade_px: float) -> NDArray[np.float64]:
    """Return weights that rise from 0 to 1 over ``fade_px`` at both ends, as a squared sine.

    Half the length gives the Hann window, a smaller part a Tukey window.
    """
    from_edge = np.arange(length, dtype=np.float64) + 0.5
    from_edge = np.minimum(from_edge, length - from_edge)
    return np.sin(np.pi / 2 * np.minimum(from_edge / fade_px, 1)) ** 2
