"""Image quality of an aligned reconstruction, every convention stated with the number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, minimum_filter
from skimage.metrics import structural_similarity

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.scores.region import Region, with_phase

MS_SSIM_BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales (Wang, Simoncelli, Bovik, Asilomar 2003)."""

WINDOW_TAPS = 11
WINDOW_SIGMA_PX = 1.5
PSNR_CEILING_DB = 300.0

_FLAT = 1e-6
_LEAST_INTERIOR = 0.1

Image = NDArray[np.float64]


def score(
    reference: NDArray[np.complexfloating], aligned: NDArray[np.complexfloating], region: Region
) -> dict[str, Any]:
    """Score an aligned complex field against the truth.

    PSNR, mean absolute error and complex NRMSE are taken over the mask. The peak of PSNR
    and SSIM is the reference's own range over the mask, never 255 or 2 pi. The phase error
    is angle(prediction * conj(reference)); the phase images compared by SSIM are the
    reference's phase about its circular mean, and that plus the error, so that no wrap
    of the prediction shows as an edge. Both are counted from the reference's least phase
    on the mask: SSIM is made for brightness, and where means lie on both sides of zero,
    inverted contrast times inverted luminance would pass for likeness.

    SSIM uses an 11-tap Gaussian window of sigma 1.5 px and needs whole rectangles. Outside
    the mask the prediction is replaced by the reference, alike for every method. The SSIM
    map is then averaged over the mask pixels whose whole window lies inside the mask, so
    that the replaced pixels earn nothing; where these are under a tenth of the mask, a
    scan with holes, it is averaged over the whole mask. MS-SSIM weighs pixels by the mask
    at every scale, in windows, in halving and in averages, so that replaced pixels enter
    nowhere. Images are not blurred first. docs/metrics.md compares these conventions with
    those of `ancestor_scores`.

    The phase is scored where `with_phase` says that there is one.

    Parameters
    ----------
    reference, aligned : (y, x) complex
        Truth, and prediction after `align_to`, on the grid of the region.

    Returns
    -------
    dict
        JSON-able. ``amplitude`` and ``phase``, each with ``psnr_db``, ``ssim``, ``ms_ssim``
        and ``mae`` (phase in rad); ``complex_nrmse``; ``conventions``. A PSNR above
        `PSNR_CEILING_DB` is given as that. Where the reference is flat in amplitude or in
        phase, that part's scores except ``mae`` have no peak and are None.

    Raises
    ------
    StudyError
        If shapes differ, the prediction is not finite on the mask, the reference is zero
        all over it, or the rectangle is smaller than the SSIM window.
    """
    region.require_shape("reference", reference)
    region.require_shape("prediction", aligned)
    if bad := int(np.count_nonzero(~np.isfinite(aligned[region.mask]))):
        problem = f"must be finite, got {bad} of {region.pixels} scored pixels NaN or infinite"
        raise StudyError("prediction", problem)
    if not np.any(reference[region.mask]):
        raise StudyError("reference", f"is zero on all {region.pixels} pixels of the scored region")
    if min(region.shape) < WINDOW_TAPS:
        found = f"{region.shape[0]} x {region.shape[1]}"
        problem = f"must be at least {WINDOW_TAPS} pixels high and wide, got {found}"
        raise StudyError("scoring region", problem)
    box = region.rectangle
    mask = region.mask[box]
    truth = reference[box].astype(np.complex128)
    predicted = np.where(mask, aligned[box], truth)
    has_phase = with_phase(truth, mask)
    betas = ms_ssim_betas(region.shape)
    phase, error = phase_and_error(truth, predicted, has_phase)
    parts = {
        "amplitude": (np.abs(truth), np.abs(predicted) - np.abs(truth), mask),
        "phase": (phase - phase[has_phase].min(), np.where(has_phase, error, 0), has_phase),
    }
    residual = np.linalg.norm((predicted - truth)[mask]) / np.linalg.norm(truth[mask])
    return {
        **{name: _score_image(*part, betas) for name, part in parts.items()},
        "complex_nrmse": float(residual),
        "conventions": {
            "peak": {name: float(np.ptp(image[scored])) for name, (image, _, scored) in parts.items()},
            "pixels": region.pixels,
            "phase_pixels": int(has_phase.sum()),
            "ssim_pixels": int(_ssim_support(mask).sum()),
            "ms_ssim_scales": len(betas),
            "ms_ssim_betas": list(betas),
        },
    }


def phase_and_error(
    reference: NDArray[np.complexfloating], aligned: NDArray[np.complexfloating], mask: NDArray[np.bool_]
) -> tuple[Image, Image]:
    """Return the reference's phase about its circular mean, and the phase error.

    Parameters
    ----------
    reference, aligned : (y, x) complex
    mask : (y, x) bool
        Pixels over which the circular mean is taken.

    Returns
    -------
    phase, error : (y, x) float64, rad
        Both in (-pi, pi]; the prediction's phase image is their sum.
    """
    mean = np.sum(np.exp(1j * np.angle(reference[mask])))
    phase = np.angle(reference * np.conj(mean)).astype(np.float64)
    return phase, np.angle(aligned * np.conj(reference)).astype(np.float64)


def ms_ssim_betas(shape: tuple[int, int]) -> tuple[float, ...]:
    """Return the exponents of the scales that fit into an image, summing to one.

    The 11-tap window must fit into the image halved at each further scale, and the side
    be 11 (scales - 1)^2 at least, as torchmetrics asks: that is more for four scales only.

    Examples
    --------
    >>> [len(ms_ssim_betas((side, 500))) for side in (175, 176, 99, 98, 44, 22, 11)]
    [4, 5, 4, 3, 3, 2, 1]
    """
    scales = len(MS_SSIM_BETAS)
    while scales > 1 and min(shape) < WINDOW_TAPS * max(2 ** (scales - 1), (scales - 1) ** 2):
        scales -= 1
    chosen = MS_SSIM_BETAS[:scales]
    return tuple(beta / sum(chosen) for beta in chosen)


def _score_image(
    image: Image, error: Image, mask: NDArray[np.bool_], betas: tuple[float, ...]
) -> dict[str, float | None]:
    peak = float(np.ptp(image[mask]))
    mae = float(np.mean(np.abs(error[mask])))
    if peak <= _FLAT * max(1.0, float(np.abs(image[mask]).max())):
        return {"psnr_db": None, "ssim": None, "ms_ssim": None, "mae": mae}
    predicted = image + error
    ratio = float(np.sqrt(np.mean(error[mask] ** 2))) / peak
    window = {"gaussian_weights": True, "sigma": WINDOW_SIGMA_PX, "use_sample_covariance": False}
    similarity: Any = structural_similarity
    local: Image = similarity(image, predicted, data_range=peak, full=True, **window)[1]
    return {
        "psnr_db": -20 * float(np.log10(max(ratio, 10 ** (-PSNR_CEILING_DB / 20)))),
        "ssim": float(local[_ssim_support(mask)].mean()),
        "ms_ssim": _ms_ssim(image, predicted, mask, peak, betas),
        "mae": mae,
    }


def _ms_ssim(
    image: Image, predicted: Image, mask: NDArray[np.bool_], peak: float, betas: tuple[float, ...]
) -> float:
    """Return MS-SSIM over the mask; contrast anticorrelated with the truth counts as none, not as NaN.

    Contrast counts at all scales, luminance at the last one only, and all but that one
    leave out the rectangle's rim. A mask without holes gives what torchmetrics gives.
    """
    weights = mask.astype(np.float64)
    value = 1.0
    for scale, beta in enumerate(betas, start=1):
        luminance, local = _masked_ssim_maps(image, predicted, weights, peak)
        margin = slice(WINDOW_TAPS // 2, -(WINDOW_TAPS // 2))
        if scale == len(betas):
            local *= luminance
        if scale == len(betas) or not weights[margin, margin].any():
            margin = slice(None)
        mean = float(np.average(local[margin, margin], weights=weights[margin, margin]))
        value *= max(0.0, mean) ** beta
        quarters = _quarter_sums(weights)
        image, predicted = (_ratio(_quarter_sums(a * weights), quarters) for a in (image, predicted))
        weights = quarters / 4
    return value


def _masked_ssim_maps(first: Image, second: Image, weights: Image, peak: float) -> tuple[Image, Image]:
    """Return SSIM's factors luminance and contrast-structure (Wang et al. 2004) of weighted windows."""
    lit = _windowed(weights)

    def mean(values: Image) -> Image:
        return _ratio(_windowed(values * weights), lit)

    mean1, mean2 = mean(first), mean(second)
    spread = mean(first**2) - mean1**2 + mean(second**2) - mean2**2
    covariance = mean(first * second) - mean1 * mean2
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    luminance = (2 * mean1 * mean2 + c1) / (mean1**2 + mean2**2 + c1)
    return luminance, (2 * covariance + c2) / (spread + c2)


def _windowed(image: Image) -> Image:
    radius = WINDOW_TAPS // 2
    return np.asarray(gaussian_filter(image, WINDOW_SIGMA_PX, mode="mirror", radius=radius), dtype=np.float64)


def _quarter_sums(image: Image) -> Image:
    """Return the sums of 2 x 2 blocks; an odd last row or column is left out."""
    rows, columns = (n // 2 for n in image.shape)
    return image[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).sum(axis=(1, 3))


def _ratio(sums: Image, weights: Image) -> Image:
    return np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 0)


def _ssim_support(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    interior = np.asarray(minimum_filter(mask, WINDOW_TAPS, mode="constant"), dtype=np.bool_)
    return interior if interior.sum() >= _LEAST_INTERIOR * mask.sum() else mask
