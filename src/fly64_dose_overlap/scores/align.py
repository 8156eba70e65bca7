"""Take off what ptychography cannot know before a reconstruction is scored.

A reconstruction is defined up to a complex factor, a phase ramp and a translation.
All three are estimated on the complex field over the scored region, alike for every
method; no phase is unwrapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.scores.region import Region, edge_taper

MAX_SHIFT_PX = 8
"""Registration looks this far; a wider search finds false matches in periodic objects."""

_FADE_PX = 24
_MARGIN_PX = MAX_SHIFT_PX + _FADE_PX
_APODISED_FRACTION = 0.05
_LEAST_GAIN = 1e-6
_FAR_LESS = 0.8
_MAX_PASSES = 3
_MAX_NEWTON_STEPS = 12

Complex = NDArray[np.complex128]
Real = NDArray[np.float64]
Pair = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Aligned:
    """A prediction brought onto the reference, and what it took.

    ``field = scale * exp(i (ramp_y y + ramp_x x)) * shifted prediction``, with (y, x)
    counted from the centre of the region's rectangle.
    """

    field: Complex
    """(y, x), the aligned prediction inside the region's rectangle, zero outside it."""
    shift_px: Pair
    """(dy, dx), translation of the prediction; (0, 0) means its samples are untouched."""
    ramp_rad_per_px: Pair
    """(ky, kx), phase ramp that was multiplied on."""
    scale: complex
    """Factor that was multiplied on."""
    beyond_px: Pair | None = None
    """A translation farther than `MAX_SHIFT_PX` that fits far better; it was not applied."""

    @property
    def at_limit(self) -> bool:
        """Whether the search for the translation ended where it may not go on."""
        return self.beyond_px is not None or max(map(abs, self.shift_px)) >= MAX_SHIFT_PX

    def parameters(self) -> dict[str, Any]:
        """Return what was found as JSON-able values, to be printed with the scores."""
        return {
            "shift_px": list(self.shift_px),
            "ramp_rad_per_px": list(self.ramp_rad_per_px),
            "scale_modulus": abs(self.scale),
            "scale_phase_rad": float(np.angle(self.scale)),
            "at_limit": self.at_limit,
        }


class _Fit(NamedTuple):
    """The best ``scale * exp(i ramp . r)`` for a pair, and the squared residual it leaves."""

    scale: complex
    ramp: Pair
    residual: float


class _Registered(NamedTuple):
    """Samples of the prediction, shifted after ``first_ramp`` was multiplied on, and their fit."""

    samples: Complex
    shift: Pair
    first_ramp: Pair
    fit: _Fit


def align_to(
    reference: NDArray[np.complexfloating],
    prediction: NDArray[np.complexfloating],
    region: Region,
    *,
    upsampling: int,
) -> Aligned:
    """Align a complex prediction to a complex reference over a region.

    A ramp is fitted and taken off, the translation is found by cross-correlation and
    applied in Fourier space, and one complex factor and a linear phase ramp are fitted
    last by least squares. The translation is kept only if it lowers the residual that
    remains after that last fit, so that registration cannot wreck an aligned pair.

    Parameters
    ----------
    reference, prediction : (y, x) complex
        The truth, and a reconstruction on the same grid.
    region : Region
        Pixels that decide; nothing outside its rectangle changes the ramp or the scale.
    upsampling : int, >= 1
        The translation is found to 1 / upsampling pixel, within `MAX_SHIFT_PX`.

    Raises
    ------
    StudyError
        If shapes differ, a field is not complex, not finite or zero over the region,
        or upsampling is below 1.
    """
    for name, field in (("reference", reference), ("prediction", prediction)):
        _check_field(name, field, region)
    if upsampling < 1:
        raise StudyError("registration_upsampling", f"must be at least 1, got {upsampling}")
    box = region.rectangle
    plain = prediction.astype(np.complex128)
    found = _register(reference[box].astype(np.complex128), plain, region, upsampling)
    aligned = np.zeros_like(plain)
    aligned[box] = found.fit.scale * _ramp_on(region.shape, found.fit.ramp) * found.samples
    # The first ramp was taken off before the shift: both orders differ by a constant phase.
    scale = found.fit.scale * np.exp(-1j * np.dot(found.first_ramp, found.shift))
    ramp = _sum(found.first_ramp, found.fit.ramp)
    beyond = _find_beyond(
        reference.astype(np.complex128), plain * _ramp_on(plain.shape, ramp, box), region, found.fit.residual
    )
    return Aligned(aligned, found.shift, ramp, complex(scale), beyond)


def _check_field(name: str, field: NDArray[Any], region: Region) -> None:
    region.require_shape(name, field)
    if not np.iscomplexobj(field):
        raise StudyError(name, f"must be a complex field, got {field.dtype}")
    if bad := int(np.count_nonzero(~np.isfinite(field))):
        raise StudyError(name, f"must be finite, got {bad} of {field.size} pixels NaN or infinite")
    if not np.any(field[region.mask]):
        problem = f"is zero on all {region.pixels} pixels of the scored region"
        raise StudyError(name, problem, "did the network collapse, or do its patches lie elsewhere?")


def _register(target: Complex, prediction: Complex, region: Region, upsampling: int) -> _Registered:
    """Alternate between ramp and translation; keep the pair that leaves the smallest residual.

    The ramp goes first because it moves the spectrum, past Nyquist if it is steep, and
    the interpolation needs the spectrum centred.
    """
    box = region.rectangle
    mask = region.mask[box]
    best = _Registered(prediction[box], (0.0, 0.0), (0.0, 0.0), _fit_ramp(target, prediction[box], mask))
    ramp, tried = best.fit.ramp, [best.shift]
    for _ in range(_MAX_PASSES):
        padded = _faded_surroundings(prediction * _ramp_on(prediction.shape, ramp, box), box)
        shift = _find_shift(target, padded, mask, upsampling)
        if shift in tried:
            break
        tried.append(shift)
        moved = _fourier_shift(padded, shift)[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX]
        fit = _fit_ramp(target, moved, mask)
        if fit.residual < (1 - _LEAST_GAIN) * best.fit.residual:
            best = _Registered(moved, shift, ramp, fit)
        ramp = _sum(ramp, fit.ramp)
    return best


def _sum(first: Pair, second: Pair) -> Pair:
    return first[0] + second[0], first[1] + second[1]


def _ramp_on(shape: tuple[int, ...], ramp: Pair, box: tuple[slice, slice] | None = None) -> Complex:
    """Return exp(i ramp . r), with r from the centre of ``box`` or of the image itself."""
    phases: list[Complex] = []
    for axis, (length, rate) in enumerate(zip(shape, ramp, strict=True)):
        first, stop = (box[axis].start, box[axis].stop) if box else (0, length)
        phases.append(np.exp(1j * rate * (np.arange(length) - (first + stop - 1) / 2)))
    return phases[0][:, None] * phases[1][None, :]


def _fit_ramp(target: Complex, samples: Complex, mask: NDArray[np.bool_]) -> _Fit:
    """Minimise sum over the mask of abs(target - c exp(i k . r) samples)^2 over c and k.

    With the best c inserted, this maximises abs(Z(k))^2, Z(k) = sum target conj(samples)
    exp(-i k . r): the peak of a zero-padded periodogram, then Newton's method on its logarithm,
    which is concave over the whole main lobe and so converges from any bin next to the top.
    """
    product = np.where(mask, target * samples.conj(), 0)
    if not product.any():
        return _Fit(0j, (0.0, 0.0), float(np.sum(np.abs(target[mask]) ** 2)))
    padded = (2 * product.shape[0], 2 * product.shape[1])
    peak = np.unravel_index(np.argmax(np.abs(np.fft.fft2(product, padded))), padded)
    ramp: Real = np.array([2 * np.pi * np.fft.fftfreq(n)[i] for n, i in zip(padded, peak, strict=True)])
    total, gradient, hessian = _tone(product, ramp)
    for _ in range(_MAX_NEWTON_STEPS):
        if not np.any(gradient) or np.linalg.eigvalsh(hessian).max() >= 0:
            break
        trial = ramp - np.linalg.solve(hessian, gradient)
        there = _tone(product, trial)
        if abs(there[0]) <= abs(total):
            break
        ramp, (total, gradient, hessian) = trial, there
    scale = total / float(np.sum(np.abs(samples[mask]) ** 2))
    found = (float(ramp[0]), float(ramp[1]))
    model = scale * _ramp_on(product.shape, found) * samples
    return _Fit(scale, found, float(np.sum(np.abs(target[mask] - model[mask]) ** 2)))


def _tone(product: Complex, ramp: Real) -> tuple[complex, Real, Real]:
    """Return Z at ``ramp``, and the gradient and Hessian of log abs(Z)^2 there."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in product.shape)
    rows = np.exp(-1j * ramp[0] * y) * np.stack([np.ones_like(y), y, y * y])
    columns = np.exp(-1j * ramp[1] * x) * np.stack([np.ones_like(x), x, x * x])
    moments = rows @ product @ columns.T
    total = complex(moments[0, 0])
    slope = -1j * np.array([moments[1, 0], moments[0, 1]]) / total
    bend = -np.array([[moments[2, 0], moments[1, 1]], [moments[1, 1], moments[0, 2]]]) / total
    return total, 2 * slope.real, 2 * (bend - np.outer(slope, slope)).real


def _faded_surroundings(field: Complex, box: tuple[slice, slice]) -> Complex:
    """Cut out the rectangle with a margin that falls to zero, so that nothing wraps or rings.

    The margin is flat as far as a shift can reach. Where the field ends, its edge is repeated.
    """
    rows, columns = box
    margin = 2 * _MARGIN_PX
    cut = np.pad(field, _MARGIN_PX, mode="edge")[
        rows.start : rows.stop + margin, columns.start : columns.stop + margin
    ]
    return cut * np.outer(*(edge_taper(n, _FADE_PX) for n in cut.shape))


def _find_shift(target: Complex, padded: Complex, mask: NDArray[np.bool_], upsampling: int) -> Pair:
    """Return the translation of ``padded`` that correlates best with ``target``.

    The target alone is apodised and freed of its mean, as a template: a window on both
    images would draw the peak towards zero, and a mean would swamp it. The correlation
    is evaluated by matrix products on a grid of whole pixels and then on one of
    1 / upsampling pixel about the best (Guizar-Sicairos et al., Opt. Lett. 33, 156, 2008),
    which keeps the search inside `MAX_SHIFT_PX`.
    """
    weights = mask * np.outer(*(edge_taper(n, _APODISED_FRACTION * n) for n in target.shape))
    template = np.zeros_like(padded)
    mean = np.sum(weights * target) / np.sum(weights)
    template[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX] = weights * (target - mean)
    spectrum = np.fft.fft2(template).conj() * np.fft.fft2(padded)
    steps = np.arange(-MAX_SHIFT_PX, MAX_SHIFT_PX + 1, dtype=np.float64)
    dy, dx = _best_on_grid(spectrum, steps, steps)
    fine = np.arange(-upsampling, upsampling + 1) / upsampling
    if upsampling > 1:
        dy, dx = _best_on_grid(spectrum, dy + fine, dx + fine)
    limit = float(MAX_SHIFT_PX)
    return min(max(dy, -limit), limit), min(max(dx, -limit), limit)


def _find_beyond(reference: Complex, prediction: Complex, region: Region, residual: float) -> Pair | None:
    """Return a translation by whole pixels beyond the search that leaves far less than ``residual``.

    Looked for are repeats of the reference's structure at any distance: the highest
    correlation of the whole images, both without their means over the region.
    """
    template = np.where(region.mask, reference - reference[region.mask].mean(), 0)
    spectrum = np.fft.fft2(template) * np.fft.fft2(prediction - prediction[region.mask].mean()).conj()
    peak = np.unravel_index(np.argmax(np.abs(np.fft.ifft2(spectrum))), template.shape)
    shift = [int(at) - n if at > n // 2 else int(at) for at, n in zip(peak, template.shape, strict=True)]
    if max(map(abs, shift)) <= MAX_SHIFT_PX:
        return None
    moved = np.roll(prediction, shift, axis=(0, 1))[region.rectangle]
    fit = _fit_ramp(reference[region.rectangle], moved, region.mask[region.rectangle])
    return (float(shift[0]), float(shift[1])) if fit.residual < _FAR_LESS * residual else None


def _best_on_grid(spectrum: Complex, dy: Real, dx: Real) -> Pair:
    along_y, along_x = (np.fft.fftfreq(n) for n in spectrum.shape)
    rows = np.exp(-2j * np.pi * np.outer(dy, along_y))
    columns = np.exp(-2j * np.pi * np.outer(along_x, dx))
    correlation = np.abs(rows @ spectrum @ columns)
    i, j = np.unravel_index(np.argmax(correlation), correlation.shape)
    return float(dy[i]), float(dx[j])


def _fourier_shift(field: Complex, shift_px: Pair) -> Complex:
    phases = [np.exp(-2j * np.pi * s * np.fft.fftfreq(n)) for s, n in zip(shift_px, field.shape, strict=True)]
    return np.fft.ifft2(np.fft.fft2(field) * phases[0][:, None] * phases[1])
