"""What a method has found of the instrument, beside what the scan says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray

from fly64_dose_overlap.scan import Scan


class Found(Protocol):
    """A reconstruction, however it came."""

    @property
    def probe(self) -> Complex[NDArray[np.complex64], "mode y x"]:
        """Its incoherent modes, sqrt(photons)."""
        ...

    @property
    def positions_px(self) -> Float[NDArray[np.float64], "frame 2"]:
        """Positions (y, x), object pixels."""
        ...

    @property
    def flux(self) -> Float[NDArray[np.float64], " frame"] | None:
        """Light of each frame in that of the probe, where it was found."""
        ...


@dataclass(frozen=True, eq=False)
class FoundInstrument:
    """Probe, positions and light of frames.

    Attributes
    ----------
    probe : (mode, y, x) complex64, sqrt(photons)
    positions_px : (frame, 2) float64, object pixels
        As the scan has them.
    away_px : (frame, 2) float64, object pixels
        How far from there they were found, less the mean.
    flux : (frame,) float64
        Light of each frame in that of the probe.
    frames : (frame,) int64
        Their numbers in the scan that they were recorded in.
    """

    probe: Complex[NDArray[np.complex64], "mode y x"]
    positions_px: Float[NDArray[np.float64], "frame 2"]
    away_px: Float[NDArray[np.float64], "frame 2"]
    flux: Float[NDArray[np.float64], " frame"]
    frames: Int[NDArray[np.int64], " frame"]

    @classmethod
    def of(cls, found: Found, scan: Scan) -> FoundInstrument:
        """Return what a method found of a scan."""
        away = found.positions_px - scan.positions_px
        away -= away.mean(axis=0)
        flux = np.ones(len(scan)) if found.flux is None else found.flux
        return cls(found.probe, scan.positions_px, away, flux, scan.scan_index)

    def is_of(self, scan: Scan) -> bool:
        """Whether it is what the scan says."""
        same = self.probe.shape == scan.probe.shape and np.array_equal(self.probe, scan.probe)
        return same and not self.away_px.any() and bool((self.flux == 1).all())

    @property
    def mode_powers(self) -> NDArray[np.float64]:
        """Parts of the probe's power (mode,)."""
        powers = (np.abs(self.probe.astype(np.complex128)) ** 2).sum(axis=(1, 2))
        return powers / powers.sum()

    @property
    def position_rms_px(self) -> float:
        """Root mean square of what positions were moved by along one axis."""
        return float(np.sqrt((self.away_px**2).mean()))

    def described(self) -> dict[str, Any]:
        """Return what stands among the scores of a method."""
        return {
            "mode_powers": self.mode_powers.tolist(),
            "position_rms_px": self.position_rms_px,
            "flux_spread": float(np.log(self.flux).std()),
        }
