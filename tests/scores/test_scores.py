"""Scores against formulas written out, and against controls that must come out bad."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.scores.align import align_to
from fly64_dose_overlap.scores.region import Region, scan_region
from fly64_dose_overlap.scores.scores import (
    MS_SSIM_BETAS,
    PSNR_CEILING_DB,
    ms_ssim_betas,
    phase_and_error,
    score,
)
from fly64_dose_overlap.seeding import generator

Complex = NDArray[np.complex128]
SIDE = 120
HOLE = (slice(50, 60), slice(50, 70))


@pytest.fixture(scope="module")
def truth() -> Complex:
    rng = generator(3, "scores")
    smooth = [gaussian_filter(rng.normal(size=(SIDE, SIDE)), 3) for _ in range(2)]
    amplitude, phase = (image / np.abs(image).max() for image in smooth)
    return (0.8 + 0.2 * amplitude) * np.exp(0.7j * phase)


@pytest.fixture(scope="module")
def region() -> Region:
    illumination = np.ones((SIDE, SIDE))
    illumination[HOLE] = 0
    return scan_region(illumination, np.array([[5.0, 5.0], [114.0, 108.0]]), 0.1)


def _noisy(truth: Complex, sigma: float) -> Complex:
    rng = generator(3, "scores", "noise")
    return truth + sigma * (rng.normal(size=truth.shape) + 1j * rng.normal(size=truth.shape))


def _gauss11(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every whole 11 x 11 window's Gaussian mean, as a sum over the taps."""
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    taps /= taps.sum()
    rows, columns = image.shape[0] - 10, image.shape[1] - 10
    out = np.zeros((rows, columns))
    for i in range(11):
        for j in range(11):
            out += taps[i] * taps[j] * image[i : i + rows, j : j + columns]
    return out


def _ssim_maps(
    a: NDArray[np.float64], b: NDArray[np.float64], peak: float, weights: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """SSIM and its contrast-structure part (Wang et al. 2004) where whole windows fit."""
    weights = np.ones_like(a) if weights is None else weights
    lit = np.maximum(_gauss11(weights), 1e-30)
    ma, mb, aa, bb, ab = (_gauss11(weights * image) / lit for image in (a, b, a * a, b * b, a * b))
    va, vb, cov = aa - ma**2, bb - mb**2, ab - ma * mb
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    contrast = (2 * cov + c2) / (va + vb + c2)
    return contrast * (2 * ma * mb + c1) / (ma**2 + mb**2 + c1), contrast


def _halved(image: NDArray[np.float64]) -> NDArray[np.float64]:
    even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4


def test_identical_images_score_full_marks(truth: Complex, region: Region) -> None:
    result = score(truth, truth, region)
    for part in ("amplitude", "phase"):
        assert result[part] == pytest.approx(
            {"psnr_db": PSNR_CEILING_DB, "ssim": 1, "ms_ssim": 1, "mae": 0}, abs=1e-9
        )
    assert result["complex_nrmse"] == 0


def test_pixelwise_scores_by_hand(truth: Complex, region: Region) -> None:
    predicted = 1.1 * truth * np.exp(0.05j)
    result = score(truth, predicted, region)
    amplitude = np.abs(truth)[region.mask]
    rms = 0.1 * np.sqrt(np.mean(amplitude**2))
    peak = amplitude.max() - amplitude.min()
    assert result["amplitude"]["psnr_db"] == pytest.approx(20 * np.log10(peak / rms))
    assert result["amplitude"]["mae"] == pytest.approx(0.1 * amplitude.mean())
    phase_peak = np.ptp(np.angle(truth)[region.mask])
    assert result["phase"]["psnr_db"] == pytest.approx(20 * np.log10(phase_peak / 0.05))
    assert result["phase"]["mae"] == pytest.approx(0.05)
    assert result["complex_nrmse"] == pytest.approx(abs(1.1 * np.exp(0.05j) - 1))
    assert result["conventions"]["peak"] == pytest.approx({"amplitude": peak, "phase": phase_peak})


def test_ssim_is_the_mean_over_windows_inside_the_mask(truth: Complex, region: Region) -> None:
    predicted = _noisy(truth, 0.05)
    result = score(truth, predicted, region)
    box = region.rectangle
    mask = region.mask[box]
    a, b = np.abs(truth[box]), np.abs(predicted[box])
    expected, _ = _ssim_maps(a, b, float(np.ptp(a[mask])))
    whole = np.array([[mask[i : i + 11, j : j + 11].all() for j in range(104 - 10)] for i in range(110 - 10)])
    assert result["conventions"]["ssim_pixels"] == whole.sum()
    assert result["amplitude"]["ssim"] == pytest.approx(expected[whole].mean(), abs=1e-6)


@pytest.mark.parametrize("holes", [0.0, 0.4])
def test_ms_ssim_is_the_weighted_product_over_halved_scales(truth: Complex, holes: float) -> None:
    lit = generator(3, "holes").uniform(size=(SIDE, SIDE)) >= holes
    lit[30:44, 50:80] &= holes == 0
    region = scan_region(lit.astype(float), np.array([[0.0, 0.0], [SIDE, SIDE]]), 0.1)
    predicted = _noisy(truth, 0.03)
    result = score(truth, predicted, region)
    a, b, weights = np.abs(truth), np.abs(predicted), lit.astype(float)
    peak = float(np.ptp(a[lit]))
    betas = np.array(MS_SSIM_BETAS[:4]) / sum(MS_SSIM_BETAS[:4])
    expected = 1.0
    for scale, beta in enumerate(betas):
        if scale == 3:
            a_, b_, weights_ = (np.pad(image, 5, mode="reflect") for image in (a, b, weights))
            local, _ = _ssim_maps(a_, b_, peak, weights_)
            expected *= np.average(local, weights=weights) ** beta
        else:
            _, local = _ssim_maps(a, b, peak, weights)
            expected *= np.average(local, weights=weights[5:-5, 5:-5]) ** beta
        quarter = np.maximum(_halved(weights), 1e-30)
        a, b, weights = _halved(a * weights) / quarter, _halved(b * weights) / quarter, _halved(weights)
    assert result["amplitude"]["ms_ssim"] == pytest.approx(expected, abs=1e-9)
    assert result["conventions"]["ms_ssim_scales"] == 4
    assert result["conventions"]["ms_ssim_betas"] == pytest.approx(list(betas))


def test_ms_ssim_of_a_full_mask_is_that_of_torchmetrics(truth: Complex) -> None:
    whole = scan_region(np.ones((SIDE, SIDE)), np.array([[0.0, 0.0], [SIDE, SIDE]]), 0.1)
    predicted = _noisy(truth, 0.05)
    result = score(truth, predicted, whole)
    first, second = (torch.from_numpy(np.abs(field))[None, None] for field in (predicted, truth))
    expected = multiscale_structural_similarity_index_measure(
        first,
        second,
        data_range=float(np.ptp(np.abs(truth))),
        betas=ms_ssim_betas((SIDE, SIDE)),
        normalize="relu",
    )
    assert result["amplitude"]["ms_ssim"] == pytest.approx(float(expected), abs=1e-9)


def test_pixels_outside_the_mask_earn_and_cost_nothing(truth: Complex, region: Region) -> None:
    predicted = _noisy(truth, 0.05)
    spoilt = predicted.copy()
    spoilt[~region.mask] = np.nan
    assert score(truth, spoilt, region) == score(truth, predicted, region)


def test_holes_do_not_raise_ms_ssim(truth: Complex) -> None:
    lit = generator(3, "holes").uniform(size=(SIDE, SIDE)) >= 0.5
    everywhere = np.array([[0.0, 0.0], [SIDE, SIDE]])
    whole, holed = (scan_region(light, everywhere, 0.1) for light in (np.ones((SIDE, SIDE)), 1.0 * lit))
    whole_score, holed_score, filled_score = (
        score(truth, np.where(right, truth, _noisy(truth, 0.1)), region)["phase"]["ms_ssim"]
        for right, region in ((False, whole), (False, holed), (~lit, whole))
    )
    assert filled_score > whole_score + 0.03
    assert holed_score < whole_score


def test_mask_without_whole_windows_is_averaged_over_itself(truth: Complex) -> None:
    illumination = np.ones((SIDE, SIDE))
    illumination[::8, ::8] = 0
    region = scan_region(illumination, np.array([[0.0, 0.0], [SIDE, SIDE]]), 0.1)
    result = score(truth, _noisy(truth, 0.05), region)
    assert result["conventions"]["ssim_pixels"] == region.pixels == SIDE * SIDE - 225
    assert 0 < result["amplitude"]["ssim"] < 1


def test_controls_come_out_bad(truth: Complex, region: Region) -> None:
    shuffled = generator(3, "shuffle").permutation(truth.ravel()).reshape(truth.shape)
    good = score(truth, align_to(truth, _noisy(truth, 0.02), region, upsampling=20).field, region)
    flat = score(truth, align_to(truth, np.ones_like(truth), region, upsampling=20).field, region)
    mixed = score(truth, align_to(truth, shuffled, region, upsampling=20).field, region)
    for part in ("amplitude", "phase"):
        assert good[part]["ssim"] > 0.7
        assert flat[part]["ssim"] < 0.3
        assert abs(mixed[part]["ssim"]) < 0.05
        assert good[part]["psnr_db"] > flat[part]["psnr_db"] + 6
        assert good[part]["ms_ssim"] > 0.9
        assert flat[part]["ms_ssim"] < 0.3
    assert good["complex_nrmse"] < 0.3 * flat["complex_nrmse"]


def test_an_exact_amplitude_under_a_wrong_phase_scores_below_a_flat_one(
    truth: Complex, region: Region
) -> None:
    """The one factor of the alignment then shrinks the modulus, as docs/metrics.md says."""
    wrong = np.abs(truth) * np.exp(-3j * np.angle(truth))
    found = [align_to(truth, field, region, upsampling=10) for field in (wrong, np.ones_like(truth))]
    exact, flat = (score(truth, each.field, region)["amplitude"]["psnr_db"] for each in found)
    assert abs(found[0].scale) < 0.9
    assert exact < flat


def test_negative_contrast_gives_zero_not_nan(truth: Complex, region: Region) -> None:
    assert score(truth, truth.conj(), region)["phase"]["ms_ssim"] == 0


def test_wraps_of_the_prediction_are_not_edges(truth: Complex, region: Region) -> None:
    turned = score(truth * np.exp(3.1j), _noisy(truth, 0.02) * np.exp(3.1j), region)
    plain = score(truth, _noisy(truth, 0.02), region)
    assert turned["phase"] == pytest.approx(plain["phase"], rel=1e-9)
    assert plain["phase"]["ssim"] > 0.7


def test_phase_is_taken_about_its_circular_mean() -> None:
    angles = np.array([[3.0, -3.0], [np.pi, 3.0]])
    phase, error = phase_and_error(np.exp(1j * angles), np.exp(1j * (angles + 0.2)), angles != np.pi)
    mean = np.angle(2 * np.exp(3j) + np.exp(-3j))
    np.testing.assert_allclose(phase, np.angle(np.exp(1j * (angles - mean))), atol=1e-12)
    np.testing.assert_allclose(error, 0.2)
    assert np.ptp(phase) == pytest.approx(2 * np.pi - 6)


def test_result_is_json_without_infinities(truth: Complex, region: Region) -> None:
    assert (
        json.loads(json.dumps(score(truth, truth, region), allow_nan=False))["conventions"]["pixels"] == 11240
    )


def test_flat_amplitude_of_the_truth_has_no_peak(truth: Complex, region: Region) -> None:
    pure = truth / np.abs(truth)
    result = score(pure, 1.5 * pure, region)
    assert result["amplitude"] == {"psnr_db": None, "ssim": None, "ms_ssim": None, "mae": pytest.approx(0.5)}
    assert result["phase"]["psnr_db"] > 250


@pytest.mark.parametrize(
    ("side", "scales"), [(11, 1), (21, 1), (22, 2), (44, 3), (98, 3), (99, 4), (175, 4), (176, 5)]
)
def test_betas_are_renormalised_for_the_scales_that_fit(side: int, scales: int) -> None:
    betas = ms_ssim_betas((side, 1000))
    assert len(betas) == len(ms_ssim_betas((1000, side))) == scales
    assert sum(betas) == pytest.approx(1)
    assert np.array(betas) / betas[0] == pytest.approx(np.array(MS_SSIM_BETAS[:scales]) / MS_SSIM_BETAS[0])


@pytest.mark.parametrize("side", [11, 22, 44, 99, 176])
def test_smallest_side_of_each_number_of_scales_can_be_scored(side: int) -> None:
    rng = generator(3, "small", side)
    phase, amplitude = rng.uniform(-1, 1, size=(side, side)), rng.uniform(0.5, 1, size=(side, side))
    field: Complex = np.exp(1j * phase).astype(np.complex128) * amplitude
    region = scan_region(np.ones((side, side)), np.array([[0.0, 0.0], [side, side]]), 0.1)
    assert score(field, field, region)["phase"]["ms_ssim"] == pytest.approx(1)


def test_bad_input_is_refused(truth: Complex, region: Region) -> None:
    broken = truth.copy()
    broken[20, 20] = np.inf
    small = scan_region(np.ones((SIDE, SIDE)), np.array([[0.0, 0.0], [9.0, 50.0]]), 0.1)
    cases: list[tuple[Any, Any, Region, str]] = [
        (truth, broken, region, "prediction: must be finite, got 1 of 11240 scored pixels"),
        (
            truth,
            truth[1:],
            region,
            r"prediction: must have the region's shape \(120, 120\), got \(119, 120\)",
        ),
        (truth[1:], truth, region, "reference: must have the region's shape"),
        (0 * truth, truth, region, "reference: is zero on all 11240 pixels"),
        (truth, truth, small, "must be at least 11 pixels high and wide, got 10 x 51"),
    ]
    for reference, prediction, where, message in cases:
        with pytest.raises(StudyError, match=message):
            score(reference, prediction, where)


@pytest.mark.parametrize("value", [0, 1e-5 + 0j, -1e-3j])
def test_the_phase_is_scored_without_the_pixels_of_a_truth_that_have_none(
    truth: Complex, region: Region, value: complex
) -> None:
    noisy, dark = _noisy(truth, 0.05), truth.copy()
    dark[30, 40] = value
    wanted, found = (
        score(truth, noisy, region),
        score(dark, np.where(dark == truth, noisy, value + 0.05), region),
    )
    assert found["phase"]["psnr_db"] == pytest.approx(wanted["phase"]["psnr_db"], abs=0.01)
    assert found["phase"]["mae"] == pytest.approx(wanted["phase"]["mae"], rel=1e-3)
    assert found["phase"]["ssim"] == pytest.approx(wanted["phase"]["ssim"], abs=0.01)
    assert wanted["conventions"]["phase_pixels"] == found["conventions"]["phase_pixels"] + 1 == region.pixels
