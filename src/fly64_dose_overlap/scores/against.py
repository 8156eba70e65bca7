"""Scores where frames were measured, and a reference stands for the truth that nobody knows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.scores.region import Region
from fly64_dose_overlap.scores.scores import score

MOST_NOISE = 0.5
"""Part of a squared error that may be the reference's own, for it to be taken off."""


@dataclass(frozen=True, eq=False)
class Against:
    """The reference that a view of measured frames is compared with."""

    figures: dict[str, Any]
    """What made it, see `pipeline.reference.Reference`."""
    halves: tuple[NDArray[np.complex64], NDArray[np.complex64]]
    """Objects (y, x) from two halves of its photons."""
    held: Scan
    """Its photons in the frames of the view, which no method sees."""

    @property
    def name(self) -> str:
        """What scores against it are called."""
        return f"the reference of {self.figures['photons_per_frame']:.2g} photons per frame"

    def noise(self, reference: NDArray[np.complex64], region: Region) -> dict[str, float | None]:
        """Return the scores of the reference's own noise: half of what its halves differ by.

        Errors that halves share, of probe, positions and prior, are not in it.
        """
        first, second = self.halves
        found = score(reference, reference + (first - second) / 2, region)
        return {
            "phase_psnr_db": found["phase"]["psnr_db"],
            "amplitude_psnr_db": found["amplitude"]["psnr_db"],
            "complex_nrmse": found["complex_nrmse"],
        }


def beyond_noise(scores: dict[str, Any], noise: dict[str, float | None]) -> dict[str, float | None]:
    """Return scores with the noise of the reference taken off, None where it is most of the error.

    Squared errors of independent photons add.

    Examples
    --------
    >>> scores = {"phase": {"psnr_db": 20.0}, "amplitude": {"psnr_db": None}, "complex_nrmse": 0.1}
    >>> noise = {"phase_psnr_db": 30.0, "amplitude_psnr_db": 30.0, "complex_nrmse": 0.09}
    >>> {key: value and round(value, 2) for key, value in beyond_noise(scores, noise).items()}
    {'phase_psnr_db': 20.46, 'amplitude_psnr_db': None, 'complex_nrmse': None}
    """
    found: dict[str, float | None] = {}
    for part in ("phase", "amplitude"):
        key = f"{part}_psnr_db"
        square = _beyond(_square(scores[part]["psnr_db"]), _square(noise[key]))
        found[key] = None if square is None else -10 * math.log10(square)
    own = noise["complex_nrmse"]
    square = _beyond(scores["complex_nrmse"] ** 2, own and own**2)
    found["complex_nrmse"] = None if square is None else math.sqrt(square)
    return found


def _square(psnr_db: float | None) -> float | None:
    """Return the squared error, of squared peaks, behind a PSNR."""
    return None if psnr_db is None else 10 ** (-psnr_db / 10)


def _beyond(error: float | None, own: float | None) -> float | None:
    """Return a squared error without that of the reference."""
    if error is None or own is None or own > MOST_NOISE * error:
        return None
    return error - own
