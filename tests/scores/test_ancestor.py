"""The ancestor's conventions, by the numbers that are known of them."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from benchmarks.ancestor import (
    LEAST_SSIM,
    MS_SSIM_EXPONENTS,
    ancestor_frc,
    ancestor_frc_index,
    ancestor_ms_ssim_decimated,
    ancestor_plane_removed_phase,
    ancestor_psnr_peak255_db,
    ancestor_rescaled_amplitude,
    ancestor_scores,
    ancestor_ssim_flat7,
)
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.scores.region import Region, scan_region
from fly64_dose_overlap.scores.scores import score
from fly64_dose_overlap.seeding import generator

Image = NDArray[np.float64]
Complex = NDArray[np.complex128]
SIDE = 120
BOX = np.array([[6.0, 4.0], [105.0, 115.0]])


def _random(*shape: int, name: str = "image") -> Image:
    return generator(9, "ancestor", name).uniform(size=shape)


@pytest.fixture(scope="module")
def truth() -> Complex:
    smooth = [gaussian_filter(_random(SIDE, SIDE, name=name) - 0.5, 2) for name in ("a", "b")]
    amplitude, phase = (image / np.abs(image).max() for image in smooth)
    return (0.8 + 0.2 * amplitude) * np.exp(0.7j * phase)


@pytest.fixture(scope="module")
def region() -> Region:
    return scan_region(np.ones((SIDE, SIDE)), BOX, 0.1)


def _plane(shape: tuple[int, int]) -> Image:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return 0.1 * x + 0.2 * y + 0.5


def test_equal_images_have_361_db() -> None:
    image = _random(20, 20)
    assert ancestor_psnr_peak255_db(image, image) == pytest.approx(361.2, abs=0.05)


def test_psnr_reads_48_db_above_that_of_a_peak_of_1() -> None:
    image, other = _random(20, 20), _random(20, 20, name="other")
    own_peak = -10 * math.log10(np.mean((image - other) ** 2))
    assert ancestor_psnr_peak255_db(image, other) - own_peak == pytest.approx(48.13, abs=0.005)


@pytest.mark.parametrize(
    ("curve", "threshold", "expected"),
    [
        ([0.95, 0.72, 0.55, 0.45, 0.20], 0.5, 2.5),
        ([0.8, 0.4, 0.2, 0.1], 0.5, 0.75),
        ([0.8, 0.4, 0.2, 0.1], 1 / 7, 2.571429),
        ([0.3, 0.9, 0.1], 0.5, 0.0),
        ([0.9, 0.8, 0.7], 0.5, 3.0),
        ([math.nan, math.nan], 0.5, math.nan),
    ],
)
def test_frc_index_counts_rings(curve: list[float], threshold: float, expected: float) -> None:
    found = ancestor_frc_index(np.array(curve), threshold)
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_frc_is_that_of_a_loop_over_fourier_pixels_of_the_middle_square() -> None:
    first, second = _random(12, 17), _random(12, 17, name="other")
    a, b = (np.fft.fftshift(np.fft.fft2(image[:, 2:14])) for image in (first, second))
    sums: dict[int, list[complex]] = {}
    for i in range(12):
        for j in range(12):
            ring = sums.setdefault(round(math.hypot(i - 6, j - 6)), [0, 0, 0])
            ring[0] += a[i, j] * b[i, j].conj()
            ring[1] += abs(a[i, j]) ** 2
            ring[2] += abs(b[i, j]) ** 2
    expected = [abs(s[0]) / math.sqrt(abs(s[1]) * abs(s[2])) for _, s in sorted(sums.items())]
    np.testing.assert_allclose(ancestor_frc(first, second), expected, rtol=1e-10)


def test_frc_reaches_into_the_corners_and_hides_a_sign() -> None:
    image = _random(32, 32)
    curve = ancestor_frc(image, -image)
    assert len(curve) == round(16 * math.sqrt(2)) + 1
    np.testing.assert_allclose(curve, 1)
    np.testing.assert_allclose(ancestor_frc(image, image), 1)


def test_ring_without_power_has_no_correlation() -> None:
    curve = ancestor_frc(_random(16, 16), np.zeros((16, 16)))
    assert np.isnan(curve).all()
    assert math.isnan(ancestor_frc_index(curve, 0.5))


def test_amplitude_gets_the_ratio_of_means_and_not_least_squares() -> None:
    amplitude, predicted = _random(9, 9), _random(9, 9, name="other") + 0.2
    rescaled = ancestor_rescaled_amplitude(amplitude, predicted)
    assert rescaled.mean() == pytest.approx(amplitude.mean())
    least_squares = np.sum(amplitude * predicted) / np.sum(predicted**2)
    assert rescaled[0, 0] / predicted[0, 0] != pytest.approx(least_squares, rel=0.01)
    with pytest.raises(StudyError, match="prediction: has a mean amplitude of 0; did the network collapse"):
        ancestor_rescaled_amplitude(amplitude, np.zeros((9, 9)))


@pytest.mark.parametrize("shape", [(7, 9), (12, 12), (1, 5)])
def test_phase_loses_its_least_squares_plane(shape: tuple[int, int]) -> None:
    phase = _random(*shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    columns = np.column_stack([np.ones(phase.size), y.ravel(), x.ravel()])
    fit = columns @ np.linalg.lstsq(columns, phase.ravel())[0]
    np.testing.assert_allclose(ancestor_plane_removed_phase(phase), phase - fit.reshape(shape), atol=1e-12)
    np.testing.assert_allclose(ancestor_plane_removed_phase(_plane(shape)), 0, atol=1e-12)


def test_ssim_has_a_flat_window_and_sample_covariance() -> None:
    a, b = _random(25, 31), _random(25, 31, name="other")
    mean_a, mean_b = (uniform_filter(image, 7) for image in (a, b))
    sample = 49 / 48
    spread = sample * (uniform_filter(a * a, 7) - mean_a**2 + uniform_filter(b * b, 7) - mean_b**2)
    covariance = sample * (uniform_filter(a * b, 7) - mean_a * mean_b)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    local = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    local /= (mean_a**2 + mean_b**2 + c1) * (spread + c2)
    assert ancestor_ssim_flat7(a, b, 2.0) == pytest.approx(local[3:-3, 3:-3].mean(), rel=1e-9)
    assert ancestor_ssim_flat7(a, a, 2.0) == 1


@pytest.mark.parametrize(("side", "scales"), [(7, 1), (12, 1), (13, 2), (48, 3), (97, 5), (300, 5)])
def test_ms_ssim_drops_pixels_and_the_exponents_that_are_left(side: int, scales: int) -> None:
    a, b = _random(side, side + 9), _random(side, side + 9, name="other")
    b = 0.8 * a + 0.3 * b
    span = max(np.ptp(a), np.ptp(b))
    factors = [
        ancestor_ssim_flat7(a[:: 2**i, :: 2**i], b[:: 2**i, :: 2**i], float(span)) ** MS_SSIM_EXPONENTS[i]
        for i in range(scales)
    ]
    assert ancestor_ms_ssim_decimated(a, b) == pytest.approx(math.prod(factors))
    assert ancestor_ms_ssim_decimated(a, a) == 1


def test_negative_ssim_counts_as_a_ten_thousandth() -> None:
    image = _random(12, 12)
    assert ancestor_ssim_flat7(image, 1 - image, float(np.ptp(image))) < 0
    assert ancestor_ms_ssim_decimated(image, 1 - image) == pytest.approx(LEAST_SSIM ** MS_SSIM_EXPONENTS[0])


def test_ssim_that_is_nan_scores_0_with_a_warning() -> None:
    flat = np.ones((20, 20))
    with pytest.warns(RuntimeWarning, match="the SSIM of a scale is NaN; MS-SSIM counts as 0"):
        assert ancestor_ms_ssim_decimated(flat, flat) == 0


def test_scores_of_the_truth_itself(truth: Complex, region: Region) -> None:
    rings = len(ancestor_frc(np.zeros((100, 112)), np.zeros((100, 112))))
    perfect = {
        "mae": 0,
        "mse": 0,
        "psnr_peak255_db": 361.2,
        "ssim_flat7": 1,
        "ms_ssim_decimated": 1,
        "frc50_index": rings,
        "frc_one_seventh_index": rings,
    }
    for part in ancestor_scores(truth, 2 * truth, region).values():
        assert part == pytest.approx(perfect, abs=0.05)


def test_scores_are_of_the_rescaled_blurred_and_mapped_images(truth: Complex, region: Region) -> None:
    rng = generator(9, "ancestor", "noise")
    predicted = 2 * (truth + 0.1 * rng.normal(size=truth.shape)) * np.exp(0.2j + 0.004j * np.arange(SIDE))
    scores = ancestor_scores(truth, predicted, region)
    a, b = truth[6:106, 4:116], predicted[6:106, 4:116]
    amplitude = np.abs(a)
    rescaled = np.abs(b) * amplitude.mean() / np.abs(b).mean()
    assert scores["amplitude"]["mae"] == pytest.approx(np.abs(amplitude - rescaled).mean())
    assert scores["amplitude"]["ssim_flat7"] == pytest.approx(
        ancestor_ssim_flat7(amplitude, rescaled, float(np.ptp(amplitude)))
    )
    assert scores["amplitude"]["ms_ssim_decimated"] == pytest.approx(
        ancestor_ms_ssim_decimated(gaussian_filter(amplitude, 1), gaussian_filter(rescaled, 1))
    )
    phase, predicted_phase = (ancestor_plane_removed_phase(np.angle(field)) for field in (a, b))
    assert scores["phase"]["mse"] == pytest.approx(np.mean((phase - predicted_phase) ** 2))
    mapped = [image / (2 * np.pi) + 0.5 for image in (phase, predicted_phase)]
    assert scores["phase"]["ssim_flat7"] == pytest.approx(ancestor_ssim_flat7(mapped[0], mapped[1], 1.0))
    assert scores["phase"]["ms_ssim_decimated"] == pytest.approx(ancestor_ms_ssim_decimated(*mapped))
    assert scores["phase"]["frc50_index"] == ancestor_frc_index(ancestor_frc(phase, predicted_phase), 0.5)


def test_sign_of_the_phase_is_not_forgiven(truth: Complex, region: Region) -> None:
    scores = ancestor_scores(truth, truth.conj(), region)
    phase = ancestor_plane_removed_phase(np.angle(truth[6:106, 4:116]))
    assert scores["phase"]["mae"] == pytest.approx(2 * np.abs(phase).mean())
    assert scores["amplitude"]["mae"] == 0


def test_flat_phase_scores_much_higher_than_by_our_conventions(truth: Complex, region: Region) -> None:
    """Range 1 for a phase mapped from 2 pi forgives what the phase's own range does not."""
    flat = np.abs(truth).astype(np.complex128)
    theirs: Any = ancestor_scores(truth, flat, region)["phase"]
    ours: Any = score(truth, flat, region)["phase"]
    assert theirs["ssim_flat7"] > 0.7
    assert ours["ssim"] < 0.2
    assert theirs["psnr_peak255_db"] > ours["psnr_db"] + 40


def test_result_is_json_with_none_for_what_has_no_value(truth: Complex, region: Region) -> None:
    pure = np.full_like(truth, 0.5)
    with pytest.warns(RuntimeWarning, match="MS-SSIM counts as 0"):
        scores = ancestor_scores(pure, pure, region)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert scores["amplitude"]["ssim_flat7"] is None
    assert scores["phase"]["frc50_index"] is None


def test_bad_input_is_refused(truth: Complex, region: Region) -> None:
    broken = truth.copy()
    broken[50, 50] = np.nan
    small = scan_region(np.ones((SIDE, SIDE)), np.array([[0.0, 0.0], [5.0, 50.0]]), 0.1)
    with pytest.raises(StudyError, match=r"prediction: must have the region's shape \(120, 120\)"):
        ancestor_scores(truth, truth[1:], region)
    with pytest.raises(StudyError, match="prediction: must be finite in the whole rectangle"):
        ancestor_scores(truth, broken, region)
    with pytest.raises(StudyError, match="must be at least 7 pixels high and wide, got 6 x 51"):
        ancestor_scores(truth, truth, small)
    with pytest.raises(StudyError, match="has a mean amplitude of 0"):
        ancestor_scores(truth, 0 * truth, region)
