"""The instrument in a bound: known, or as a part of what the photons must tell.

Vectors are flat, complex128: the object's pixels, and behind them what is unknown.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fly64_dose_overlap.physics.fisher import FisherInformation
from fly64_dose_overlap.physics.illumination import whole_and_rest
from fly64_dose_overlap.physics.joint import Unknowns, position_curvature, probe_curvature
from fly64_dose_overlap.physics.joint_fisher import JointInformation
from fly64_dose_overlap.physics.modes import envelope
from fly64_dose_overlap.physics.propagation import intensity
from fly64_dose_overlap.scan import Scan

Vector = NDArray[np.complex128]
Pair = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Of the real and of the imaginary part of every component."""


class KnownInstrument:
    """Nothing is unknown: vectors hold the object alone."""

    size = 0

    def __init__(self, scan: Scan, truth: NDArray[np.complex64]) -> None:
        self._information = FisherInformation(scan.model, torch.from_numpy(truth))
        self._shape = truth.shape

    def product(self, vector: Vector) -> Vector:
        """Return the information times a vector."""
        change = torch.from_numpy(vector.reshape(self._shape).astype(np.complex64))
        return self._information.product(change).numpy().astype(np.complex128).ravel()

    def whitening(self) -> Pair:
        """Return one over the root of the information's diagonal, about."""
        return np.zeros(0), np.zeros(0)

    def spread(self) -> Pair:
        """Return the standard deviations of the prior."""
        return np.zeros(0), np.zeros(0)


class UnknownInstrument:
    """Vectors hold what is unknown behind the object: probe, positions (y + i x), logarithms of flux.

    Parameters
    ----------
    scan : Scan
        With what is unknown of it.
    truth : (y, x) complex64
    """

    def __init__(self, scan: Scan, truth: NDArray[np.complex64]) -> None:
        self._scan, self._unknown, self._model = scan, scan.unknown, scan.model
        log_flux = np.zeros(len(scan)) if scan.flux is None else np.log(scan.flux)
        shifts = whole_and_rest(scan.positions_px, scan.side)[1]
        self._at = Unknowns(torch.from_numpy(truth), torch.from_numpy(scan.probe), shifts, log_flux)
        self._information = JointInformation(self._model, self._at)
        wanted = (self._unknown.probe, self._unknown.positions_px > 0, self._unknown.flux > 0)
        sizes = (scan.probe.size, len(scan), len(scan))
        self._sizes = [size if is_wanted else 0 for size, is_wanted in zip(sizes, wanted, strict=True)]

    @property
    def size(self) -> int:
        """Components behind those of the object."""
        return sum(self._sizes)

    def product(self, vector: Vector) -> Vector:
        """Return the information times a vector."""
        shape, frames = self._at.obj.shape, len(self._scan)
        obj, *others = np.split(vector, np.cumsum([self._at.obj.numel(), *self._sizes])[:-1])
        probe, positions, flux = (
            each if each.size else np.zeros(size)
            for each, size in zip(others, (self._at.probe.numel(), frames, frames), strict=True)
        )
        change = Unknowns(
            torch.from_numpy(obj.reshape(shape).astype(np.complex64)),
            torch.from_numpy(probe.reshape(self._at.probe.shape).astype(np.complex64)),
            np.stack([positions.real, positions.imag], axis=1),
            flux.real.astype(np.float64),
        )
        found = self._information.product(change)
        positions = found.shifts_px[:, 0] + 1j * found.shifts_px[:, 1]
        parts: tuple[Any, ...] = (found.probe.numpy().ravel(), positions, found.log_flux)
        kept = [part if size else part[:0] for part, size in zip(parts, self._sizes, strict=True)]
        return np.concatenate([found.obj.numpy().ravel(), *kept]).astype(np.complex128)

    def whitening(self) -> Pair:
        """Return one over the root of the information's diagonal, about."""
        pixels = probe_curvature(self._model, self._at.obj).double().rsqrt().numpy()
        y, x = position_curvature(self._at.probe)
        power = float(intensity(self._at.probe).sum(dtype=torch.float64))
        return self._beside(pixels, (y**-0.5, x**-0.5), power**-0.5)

    def spread(self) -> Pair:
        """Return the standard deviations of the prior."""
        pixels = (envelope(self._at.probe).double() / 2).sqrt().numpy()
        sigma = self._unknown.positions_px
        return self._beside(pixels, (sigma, sigma), self._unknown.flux)

    def _beside(self, probe: NDArray[np.float64], positions: tuple[float, float], flux: float) -> Pair:
        modes, moved, lit = self._sizes
        pixels = np.tile(probe.ravel(), len(self._scan.probe))[:modes]
        real = [pixels, np.full(moved, positions[0]), np.full(lit, flux)]
        imaginary = [pixels, np.full(moved, positions[1]), np.zeros(lit)]
        return np.concatenate(real), np.concatenate(imaginary)
