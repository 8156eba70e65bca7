"""Mean squared errors after alignment, as traces that random vectors estimate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.scores.frc import Rings
from fly64_dose_overlap.scores.lanczos import Field, real_dot
from fly64_dose_overlap.scores.region import Region, with_phase


class AlignedError:
    """Projector of an error onto what alignment leaves of it, zero outside the mask.

    `align_to` fits one complex factor and a linear phase ramp by least squares over the
    mask. For a small error dO it takes off dO's components along O, i O, i y O and
    i x O. The translation, kept only where it helps, is not taken off.

    Parameters
    ----------
    truth : (y, x) complex128
    mask : (y, x) bool
    """

    def __init__(self, truth: Field, mask: NDArray[np.bool_]) -> None:
        self._mask = mask
        y, x = np.meshgrid(*(np.arange(n) - n / 2 for n in mask.shape), indexing="ij")
        inside = np.where(mask, truth, 0)
        columns = [(factor * inside).ravel().view(np.float64) for factor in (1 + 0j, 1j, 1j * y, 1j * x)]
        basis = np.linalg.qr(np.stack(columns, axis=1))[0].T
        self._basis = [vector.copy().view(np.complex128).reshape(mask.shape) for vector in basis]

    def __call__(self, error: Field) -> Field:
        """Return what alignment leaves of an error: a symmetric, idempotent map."""
        left = np.where(self._mask, error, 0)
        for vector in self._basis:
            left = left - real_dot(vector, left) * vector
        return left


class Traces:
    """Linear functionals whose mean over random vectors is the mean squared error of an estimate.

    For an error of covariance C and random z with E z z^T = 1, E z^T W C z = tr(W C)
    (Hutchinson, Commun. Stat. Simul. 19, 433, 1990). All images are cut to the rectangle.

    Parameters
    ----------
    truth : (y, x) complex128
        Inside the region's rectangle.

    The phase counts where `with_phase` has one.
    """

    def __init__(self, truth: Field, region: Region) -> None:
        self.mask = region.mask[region.rectangle]
        self._phase = with_phase(truth, self.mask)
        self.rings = Rings(region.shape)
        modulus = np.where(self.mask & (truth != 0), np.abs(truth), 1)
        self._direction = np.where(self.mask, np.where(truth == 0, 1, truth), 0) / modulus
        self._modulus = np.where(self._phase, modulus, 1)
        self._pixels = region.pixels
        self._power = float(np.sum(np.abs(truth[self.mask]) ** 2))

    def draw(self, rng: np.random.Generator) -> Field:
        """Return z, +-1 in amplitude and in phase direction on every pixel of the mask."""
        signs = rng.choice([-1.0, 1.0], size=(2, *self.mask.shape))
        return self._direction * (signs[0] + 1j * signs[1])

    def seen_by(self, vector: Field) -> Callable[[Field], NDArray[np.float64]]:
        """Return the functionals of an error that belong to a random vector.

        They give (3 + ring,) float64: phase (rad^2), amplitude (transmission^2) and complex
        error (relative to the truth's power) averaged over the mask, and error power per
        pixel by ring.
        """
        spectrum = self.rings.spectrum(vector)
        along = self._direction.conj() * vector
        phase = np.where(self._phase, along.imag, 0) / self._modulus**2 / np.count_nonzero(self._phase)
        amplitude = along.real / self._pixels

        def see(error: Field) -> NDArray[np.float64]:
            turned = self._direction.conj() * error
            relative = real_dot(vector, error) / self._power
            by_ring = self.rings.cross_power(spectrum, self.rings.spectrum(error))
            parts = [np.vdot(phase, turned.imag), np.vdot(amplitude, turned.real), relative]
            return np.array([*parts, *by_ring], dtype=np.float64)

        return see
