"""Fourier ring correlation: to which spatial frequency a reconstruction follows the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import Brief
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.scores.region import edge_taper

NYQUIST = 0.5
"""Highest spatial frequency of the object's grid, cycles per pixel."""

WindowName = Literal["hann", "tukey", "none"]
WINDOW: WindowName = "hann"
ThresholdName = Literal["half", "one-seventh", "half-bit", "one-bit"]

OF_HALVES: tuple[ThresholdName, ...] = ("half-bit", "one-seventh", "one-bit")
"""Thresholds for two noisy halves."""
FEW_PIXELS = 10
"""Independent pixels of a ring, below which its correlation is mostly chance."""

_CONSTANT = {"half": 0.5, "one-seventh": 1 / 7}
_BIT_SNR = {"half-bit": 0.2071, "one-bit": 0.5}
_FADED = {"hann": 0.5, "tukey": 0.125, "none": 0.0}
_NO_POWER = 1e-20
REPORTED: dict[ThresholdName, str] = {
    "half": "frc50",
    "half-bit": "frc_half_bit",
    "one-seventh": "frc_one_seventh",
}
"""Thresholds whose cutoffs are reported, and under which names."""
_LEAST_LEAK = 1e-4

Curve = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class FrcCurve(Brief):
    """A Fourier ring correlation, from the first ring to Nyquist.

    Attributes
    ----------
    frequency : (ring,) float64, cycles per pixel
        Centres of the rings; their width is the first of them.
    frc : (ring,) float64, -1..1
    effective_pixels : (ring,) float64
        Independent Fourier pixels in each ring, corrected for the window.
    """

    frequency: Curve
    frc: Curve
    effective_pixels: Curve

    @property
    def nyquist_fraction(self) -> Curve:
        """Centres of the rings as fractions of Nyquist."""
        return self.frequency / NYQUIST

    def threshold(self, name: ThresholdName) -> Curve:
        """Return a threshold at every ring.

        ``half`` (0.5) is the one against a noise-free truth. The others are for two noisy
        halves: ``one-seventh``, and the information thresholds ``half-bit`` and ``one-bit``,
        T = [S + (2 sqrt(S) + 1) / sqrt(n)] / [S + 1 + 2 sqrt(S) / sqrt(n)] with S = 0.2071
        and 0.5 (van Heel and Schatz, J. Struct. Biol. 151, 250, 2005).

        Raises
        ------
        StudyError
            If there is no threshold of that name.
        """
        if name in _CONSTANT:
            return np.full(len(self.frc), _CONSTANT[name])
        if name not in _BIT_SNR:
            known = ", ".join([*_CONSTANT, *_BIT_SNR])
            raise StudyError("FRC threshold", f"must be one of {known}, got {name!r}")
        snr = _BIT_SNR[name]
        root, noise = np.sqrt(snr), 1 / np.sqrt(self.effective_pixels)
        return (snr + (2 * root + 1) * noise) / (snr + 1 + 2 * root * noise)


def fourier_ring_correlation(
    reference: NDArray[np.complexfloating],
    prediction: NDArray[np.complexfloating],
    *,
    window: WindowName = WINDOW,
) -> FrcCurve:
    """Correlate two complex images ring by ring in Fourier space.

    FRC = Re sum F1 conj(F2) / sqrt(sum abs(F1)^2 sum abs(F2)^2). The real part is kept, so
    that an inverted image scores -1. Rings are one frequency step of the shorter side
    wide and binned by frequency, so that oblong images have circular rings; they run
    up to Nyquist and leave the corners out. Each image's window-weighted mean is taken off
    first: it says nothing about detail, and the window would spread it into ring 1. Ring 0
    is left out.

    Parameters
    ----------
    reference, prediction : (y, x) complex
        The aligned pair, cut to the scan rectangle.
    window : {"hann", "tukey", "none"}
        Apodisation against the wrap-around edge; the Tukey window tapers an eighth of a side at each end.

    Returns
    -------
    FrcCurve
        A ring in which either image has no power correlates with nothing: its FRC is 0.

    Raises
    ------
    StudyError
        If the images are not 2-D, finite and of one shape of at least 4 x 4, the reference
        is constant, or the window is unknown.
    """
    if reference.ndim != 2 or reference.shape != prediction.shape or min(reference.shape) < 4:
        found = f"{reference.shape} and {prediction.shape}"
        raise StudyError("FRC", f"needs two images of one shape, at least 4 x 4, got {found}")
    for name, image in (("reference", reference), ("prediction", prediction)):
        if not np.all(np.isfinite(image)):
            raise StudyError(f"FRC {name}", "must be finite")
    rings = Rings(reference.shape, window)
    first, second = (rings.spectrum(image) for image in (reference, prediction))
    cross = rings.sums((first * second.conj()).real)
    powers = [rings.sums(np.abs(spectrum) ** 2) for spectrum in (first, second)]
    floors = [_NO_POWER * float(np.sum(np.abs(image) ** 2)) * image.size for image in (reference, prediction)]
    if np.all(powers[0] <= floors[0]):
        raise StudyError("FRC reference", "is the same everywhere: it has no detail")
    alive = (powers[0] > floors[0]) & (powers[1] > floors[1])
    norm = np.sqrt(np.where(alive, powers[0] * powers[1], 1))
    return FrcCurve(rings.frequency, np.where(alive, cross / norm, 0.0), rings.independent_pixels())


def cutoff(curve: FrcCurve, threshold: ThresholdName | float = "half") -> float:
    """Return the frequency at which a curve first falls below a threshold.

    Below the thresholds for two noisy halves a ring of fewer than `FEW_PIXELS` independent pixels decides
    nothing: by chance halves of few photons differ in slow phases, of which frames tell least, and agree in
    detail.

    Returns
    -------
    float
        Fraction of Nyquist, interpolated linearly between rings; 0 if the first ring is
        already below, and 1.0, to be read as "at least 1", if no ring is.
    """
    level = curve.threshold(threshold) if isinstance(threshold, str) else np.full(len(curve.frc), threshold)
    above = curve.frc - level
    if threshold in OF_HALVES:
        above[(above < 0) & (curve.effective_pixels < FEW_PIXELS)] = np.nan
    index = first_crossing(above, 0.0)
    if index == 0 or (np.isnan(index) and not np.isnan(curve.frc).all()):
        return 0.0
    return float(np.interp(index, np.arange(len(curve.frc)), curve.nyquist_fraction, right=1.0))


def first_crossing(values: NDArray[np.floating], threshold: float) -> float:
    """Return the index at which values first fall strictly below a threshold.

    Parameters
    ----------
    values : (bin,) float
        NaN bins are passed over.

    Returns
    -------
    float
        Index, interpolated linearly from the bin before; 0 if the first bin is below, the
        number of bins if none is, NaN if all are NaN.

    Examples
    --------
    >>> round(first_crossing(np.array([0.95, 0.72, 0.55, 0.45, 0.20]), 0.5), 6)
    2.5
    """
    finite = np.flatnonzero(~np.isnan(values))
    if len(finite) == 0:
        return float("nan")
    below = np.flatnonzero(values[finite] < threshold)
    if len(below) == 0:
        return float(len(values))
    if below[0] == 0:
        return 0.0
    before, after = finite[below[0] - 1], finite[below[0]]
    fraction = (values[before] - threshold) / (values[before] - values[after])
    return float(before + fraction * (after - before))


class Rings:
    """Windowed images in Fourier space, summed over rings that are one step of the shorter side wide.

    Parameters
    ----------
    shape : (int, int)
        Sides of the images.
    window : {"hann", "tukey", "none"}
    """

    def __init__(self, shape: tuple[int, ...], window: WindowName = WINDOW) -> None:
        if window not in _FADED:
            raise StudyError("FRC window", f"must be hann, tukey or none, got {window!r}")
        shorter = min(shape)
        self._rings = shorter // 2
        self.frequency: Curve = np.arange(1, self._rings + 1) / shorter
        """(ring,) cycles per pixel, the centres."""
        faded = _FADED[window]
        self._weights = np.outer(*(edge_taper(n, faded * n) for n in shape)) if faded else np.ones(shape)
        radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij"))
        ring = np.rint(radius * shorter).astype(np.intp)
        self._ring = np.where((radius > NYQUIST) | (ring > self._rings), self._rings + 1, ring)

    def spectrum(self, image: NDArray[np.complexfloating]) -> NDArray[np.complex128]:
        """Return the transform of an image about its weighted mean, under the window."""
        mean = np.sum(self._weights * image) / np.sum(self._weights)
        return np.fft.fft2(self._weights * (image - mean)).astype(np.complex128)

    def sums(self, values: Curve | None = None) -> Curve:
        """Return the sum of values (y, x) over each ring; without values, its pixels."""
        weights = None if values is None else values.ravel()
        sums = np.bincount(self._ring.ravel(), weights=weights, minlength=self._rings + 2)
        return sums[1 : self._rings + 1].astype(np.float64)

    def cross_power(self, first: NDArray[np.complex128], second: NDArray[np.complex128]) -> Curve:
        """Return Re conj(F1) F2 of two spectra per pixel of the image, averaged over each ring.

        Of white noise with itself it is the variance.
        """
        sums = self.sums((first.conj() * second).real)
        return sums / np.maximum(self.sums(), 1) / float(np.sum(self._weights**2))

    def independent_pixels(self) -> Curve:
        """Return how many independent Fourier pixels each ring holds.

        A window correlates Fourier pixels at lag l by rho(l), the normalised transform of its
        square. The sum over a ring then scatters as that of n^2 / sum abs(rho(q - q'))^2
        independent pixels, the sum running over all pairs in the ring.
        """
        leak = np.abs(np.fft.fft2(self._weights**2)) ** 2
        leak /= leak[0, 0]
        pairs = np.zeros(self._rings + 2)
        for lag in np.argwhere(leak > _LEAST_LEAK):
            same = self._ring == np.roll(self._ring, lag, axis=(0, 1))
            pairs += leak[tuple(lag)] * np.bincount(self._ring[same], minlength=self._rings + 2)
        return self.sums() ** 2 / pairs[1 : self._rings + 1]


def cutoffs(curve: FrcCurve, pixel_nm: float | None) -> dict[str, float | None]:
    """Return each cutoff as a fraction of Nyquist and as a half period in nanometres."""
    found: dict[str, float | None] = {}
    for threshold, name in REPORTED.items():
        found[name] = fraction = cutoff(curve, threshold)
        found[f"{name}_nm"] = pixel_nm / fraction if pixel_nm and fraction > 0 else None
    return found
