"""Image quality by the conventions of hoidn/PtychoPINN, this study's ancestor.

They are here so that numbers can be set beside published ones, and under names of their
own because they differ from `score` in every part: see docs/metrics.md. They know no
mask: every pixel of the region's rectangle counts.
"""

from __future__ import annotations

import warnings
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.scores.frc import first_crossing
from fly64_dose_overlap.scores.region import Region

MS_SSIM_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
LEAST_SSIM = 1e-4
WINDOW_SIDE_PX = 7
AMPLITUDE_BLUR_PX = 1.0

Image = NDArray[np.float64]


def ancestor_scores(
    reference: NDArray[np.complexfloating], aligned: NDArray[np.complexfloating], region: Region
) -> dict[str, dict[str, float | None]]:
    """Score an aligned complex field by the ancestor's conventions.

    The amplitude is rescaled to the reference's mean and each phase loses its own plane
    first, on top of whatever alignment has done.

    Parameters
    ----------
    reference, aligned : (y, x) complex
        Truth, and prediction after `align_to`, on the grid of the region.
    region : Region
        Only its rectangle counts.

    Returns
    -------
    dict
        JSON-able: ``amplitude`` and ``phase``, each with ``mae``, ``mse``,
        ``psnr_peak255_db``, ``ssim_flat7``, ``ms_ssim_decimated``, ``frc50_index`` and
        ``frc_one_seventh_index``; an SSIM or index that has no value is None.

    Raises
    ------
    StudyError
        If shapes differ, a side is under 7 px, the prediction is not finite, or its mean
        amplitude is 0.
    """
    region.require_shape("reference", reference)
    region.require_shape("prediction", aligned)
    if min(region.shape) < WINDOW_SIDE_PX:
        sides = f"{region.shape[0]} x {region.shape[1]}"
        raise StudyError(
            "scoring region", f"must be at least {WINDOW_SIDE_PX} pixels high and wide, got {sides}"
        )
    truth, predicted = reference[region.rectangle], aligned[region.rectangle]
    if not np.all(np.isfinite(predicted)):
        raise StudyError("prediction", "must be finite in the whole rectangle of the scored region")
    amplitude: Image = np.abs(truth).astype(np.float64)
    rescaled = ancestor_rescaled_amplitude(amplitude, np.abs(predicted).astype(np.float64))
    phase, predicted_phase = (
        ancestor_plane_removed_phase(np.angle(field).astype(np.float64)) for field in (truth, predicted)
    )
    unit_phases = [(image + np.pi) / (2 * np.pi) for image in (phase, predicted_phase)]
    blurred = [gaussian_filter(image, AMPLITUDE_BLUR_PX) for image in (amplitude, rescaled)]
    return {
        "amplitude": {
            **_pixelwise(amplitude, rescaled),
            "ssim_flat7": _or_none(ancestor_ssim_flat7(amplitude, rescaled, float(np.ptp(amplitude)))),
            "ms_ssim_decimated": ancestor_ms_ssim_decimated(blurred[0], blurred[1]),
        },
        "phase": {
            **_pixelwise(phase, predicted_phase),
            "ssim_flat7": _or_none(ancestor_ssim_flat7(unit_phases[0], unit_phases[1], 1.0)),
            "ms_ssim_decimated": ancestor_ms_ssim_decimated(unit_phases[0], unit_phases[1]),
        },
    }


def ancestor_rescaled_amplitude(amplitude: Image, predicted: Image) -> Image:
    """Return the predicted amplitude times the ratio of the means, which is not the least-squares factor.

    Raises
    ------
    StudyError
        If the prediction's mean is 0.
    """
    mean = float(predicted.mean())
    if mean == 0:
        raise StudyError("prediction", "has a mean amplitude of 0", "did the network collapse?")
    return predicted * (float(amplitude.mean()) / mean)


def ancestor_plane_removed_phase(phase: Image) -> Image:
    """Return a phase minus its least-squares plane; wraps stay, and count as structure."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in phase.shape)
    # On a full grid centred coordinates are orthogonal to each other and to a constant.
    slope_y = float(np.sum(y[:, None] * phase) / max(np.sum(y**2) * len(x), 1))
    slope_x = float(np.sum(x * phase) / max(np.sum(x**2) * len(y), 1))
    return phase - phase.mean() - slope_y * y[:, None] - slope_x * x


def ancestor_psnr_peak255_db(reference: Image, predicted: Image) -> float:
    """Return 20 log10(255 / RMSE), the peak of 8-bit images whatever the images hold.

    Equal images give 361.2 dB, since the machine's epsilon is added to the RMSE. An image
    of range 1 reads 48.13 dB more than it would with its own peak.
    """
    rmse = float(np.sqrt(np.mean((reference - predicted) ** 2)))
    return 20 * float(np.log10(255 / (rmse + np.finfo(np.float64).eps)))


def ancestor_ssim_flat7(reference: Image, predicted: Image, data_range: float) -> float:
    """Return SSIM with a flat window of 7 x 7 px and sample covariance; NaN for flat images of range 0.

    The ancestor's range is that of the reference for an amplitude, and 1 for a phase
    mapped to (phase + pi) / 2 pi.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(cast(Any, structural_similarity)(reference, predicted, data_range=data_range))


def ancestor_ms_ssim_decimated(reference: Image, predicted: Image) -> float:
    """Return the product of whole SSIMs over images decimated 2:1, which is not the textbook's MS-SSIM.

    Every second pixel is dropped from scale to scale, without a filter. The range is the
    larger of the two images' at full size. A scale with a side under 7 px ends the
    product, and exponents left over are dropped without renormalising the others.
    A negative SSIM counts as `LEAST_SSIM`. The ancestor blurs amplitudes beforehand
    with a Gaussian of sigma 1 px, and phases not.

    Warns
    -----
    RuntimeWarning
        If an SSIM is NaN, for which the score is 0.
    """
    data_range = float(max(np.ptp(reference), np.ptp(predicted)))
    value = 1.0
    for exponent in MS_SSIM_EXPONENTS:
        if min(reference.shape) < WINDOW_SIDE_PX:
            break
        ssim = ancestor_ssim_flat7(reference, predicted, data_range)
        if np.isnan(ssim):
            warnings.warn("the SSIM of a scale is NaN; MS-SSIM counts as 0", RuntimeWarning, stacklevel=2)
            return 0.0
        value *= (ssim if ssim >= 0 else LEAST_SSIM) ** exponent
        reference, predicted = reference[::2, ::2], predicted[::2, ::2]
    return value


def ancestor_frc(reference: Image, predicted: Image) -> NDArray[np.float64]:
    """Correlate two real images ring by ring, from zero frequency into the corners.

    FRC = abs(sum F1 conj(F2)) / sqrt(sum abs(F1)^2 sum abs(F2)^2). Rings are those of the
    rounded radius in Fourier pixels; oblong images are cropped to the square in their
    middle. No window, no mean taken off. The modulus hides a sign, and past ring side / 2
    rings are beyond Nyquist and incomplete. A ring without power is NaN.
    """
    side = min(reference.shape)
    top, left = ((n - side) // 2 for n in reference.shape)
    square = (slice(top, top + side), slice(left, left + side))
    first, second = (np.fft.fft2(image[square]) for image in (reference, predicted))
    steps = np.fft.fftfreq(side, 1 / side)
    ring = np.rint(np.hypot(steps[:, None], steps)).astype(np.intp).ravel()

    def over_rings(values: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.bincount(ring, weights=values.ravel()).astype(np.float64)

    product = first * second.conj()
    cross = np.hypot(over_rings(product.real), over_rings(product.imag))
    norm = np.sqrt(over_rings(np.abs(first) ** 2) * over_rings(np.abs(second) ** 2))
    return np.divide(cross, norm, out=np.full_like(cross, np.nan), where=norm > 0)


def ancestor_frc_index(curve: NDArray[np.float64], threshold: float) -> float:
    """Return the ring at which a curve first falls strictly below a threshold, interpolated.

    In rings, not in units of Nyquist: 0 if the first ring is below, the number of rings if
    none is, NaN if all are NaN.
    """
    return first_crossing(curve, threshold)


def _pixelwise(reference: Image, predicted: Image) -> dict[str, float | None]:
    curve = ancestor_frc(reference, predicted)
    return {
        "mae": float(np.mean(np.abs(reference - predicted))),
        "mse": float(np.mean((reference - predicted) ** 2)),
        "psnr_peak255_db": ancestor_psnr_peak255_db(reference, predicted),
        "frc50_index": _or_none(ancestor_frc_index(curve, 0.5)),
        "frc_one_seventh_index": _or_none(ancestor_frc_index(curve, 1 / 7)),
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
