"""What a referee would try on the scores: freedoms that cost nothing, and cheats that must."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from fly64_dose_overlap.scores.align import align_to
from fly64_dose_overlap.scores.frc import cutoff, fourier_ring_correlation
from fly64_dose_overlap.scores.region import Region, scan_region
from fly64_dose_overlap.scores.scores import score
from fly64_dose_overlap.seeding import generator

Complex = NDArray[np.complex128]
SIDE = 176
BOX = np.array([[20.0, 24.0], [155.0, 151.0]])
UPSAMPLING = 50


def _field(name: str, length_px: float) -> Complex:
    """Return a periodic complex field without detail near Nyquist, so that shifting it is exact."""
    rng = generator(11, "referee", name)
    layers = [gaussian_filter(rng.normal(size=(SIDE, SIDE)), length_px, mode="wrap") for _ in range(2)]
    amplitude, phase = (layer / np.abs(layer).max() for layer in layers)
    return ((0.85 + 0.15 * amplitude) * np.exp(0.6j * phase)).astype(np.complex128)


@pytest.fixture(scope="module")
def truth() -> Complex:
    return _field("truth", 2.0)


@pytest.fixture(scope="module")
def prediction(truth: Complex) -> Complex:
    """A reconstruction with errors at the truth's own scales."""
    return truth * _field("error", 3.0) ** 0.3


@pytest.fixture(scope="module", params=["whole", "holes"])
def region(request: pytest.FixtureRequest) -> Region:
    lit = np.ones((SIDE, SIDE))
    if request.param == "holes":
        y, x = np.mgrid[:SIDE, :SIDE]
        lit[np.hypot(y % 40 - 20, x % 40 - 20) < 11] = 0
    return scan_region(lit, BOX, 0.1)


def _judge(truth: Complex, prediction: Complex, region: Region) -> dict[str, Any]:
    """Align and score as the evaluation does."""
    aligned = align_to(truth, prediction, region, upsampling=UPSAMPLING).field
    curve = fourier_ring_correlation(truth[region.rectangle], aligned[region.rectangle])
    return {**score(truth, aligned, region), "frc": curve.frc, "cutoff": cutoff(curve)}


@pytest.fixture(scope="module")
def plain(truth: Complex, prediction: Complex, region: Region) -> dict[str, Any]:
    """What the prediction is worth as it is."""
    return _judge(truth, prediction, region)


def _shifted(field: Complex, dy: float, dx: float) -> Complex:
    waves = [np.exp(-2j * np.pi * np.fft.fftfreq(SIDE) * shift) for shift in (dy, dx)]
    return np.fft.ifft2(np.fft.fft2(field) * np.outer(waves[0], waves[1])).astype(np.complex128)


def _ramped(field: Complex, ky: float, kx: float) -> Complex:
    pixels = np.arange(SIDE)
    return field * np.outer(np.exp(1j * ky * pixels), np.exp(1j * kx * pixels))


def _assert_same(found: dict[str, Any], plain: dict[str, Any], tolerance: float) -> None:
    """Compare scores: a decibel is 12 % of error, so ten times the tolerance in decibels.

    The FRC is compared where the truth has detail, up to three quarters of Nyquist.
    """
    for part in ("amplitude", "phase"):
        assert found[part]["psnr_db"] == pytest.approx(plain[part]["psnr_db"], abs=10 * tolerance)
        for name in ("ssim", "ms_ssim"):
            assert found[part][name] == pytest.approx(plain[part][name], abs=tolerance)
        assert found[part]["mae"] == pytest.approx(plain[part]["mae"], rel=tolerance)
    assert found["complex_nrmse"] == pytest.approx(plain["complex_nrmse"], rel=tolerance)
    rings = 3 * len(plain["frc"]) // 4
    np.testing.assert_allclose(found["frc"][:rings], plain["frc"][:rings], atol=tolerance)


@pytest.mark.parametrize("angle_rad", [0.5, np.pi / 2, np.pi, -3.0])
def test_global_phase_and_a_factor_change_nothing(
    truth: Complex, prediction: Complex, region: Region, plain: dict[str, Any], angle_rad: float
) -> None:
    """Both are fitted in closed form: rounding is all that is left."""
    _assert_same(_judge(truth, 0.01 * np.exp(1j * angle_rad) * prediction, region), plain, 1e-6)


@pytest.mark.parametrize(("ky", "kx"), [(0.013, -0.021), (-0.7, 0.4)])
def test_linear_phase_ramp_changes_nothing(
    truth: Complex, prediction: Complex, region: Region, plain: dict[str, Any], ky: float, kx: float
) -> None:
    """The ramp's fit ends where Newton's method no longer climbs, at the root of machine precision."""
    _assert_same(_judge(truth, _ramped(prediction, ky, kx), region), plain, 1e-4)


@pytest.mark.parametrize(("dy", "dx"), [(0.5, -0.5), (-0.26, 3.74), (2.0, -5.0)])
def test_shift_changes_nothing_when_the_grid_of_the_search_holds_it(
    truth: Complex, prediction: Complex, region: Region, plain: dict[str, Any], dy: float, dx: float
) -> None:
    """Left is the faded margin of the interpolation, which reaches in from the rectangle's edge."""
    _assert_same(_judge(truth, _shifted(prediction, dy, dx), region), plain, 2e-3)


def test_shift_between_grid_points_costs_a_hundredth_of_a_pixel(truth: Complex, region: Region) -> None:
    """Left is 0.01 px on each axis times the truth's slope, and a step more where holes tilt the peak."""
    found = _judge(truth, _shifted(truth, 0.31, -1.23), region)
    slopes = [(_shifted(truth, *step) - truth)[region.mask] for step in ((0.01, 0.0), (0.0, 0.01))]
    bound = np.sqrt(sum(np.linalg.norm(slope) ** 2 for slope in slopes)) / np.linalg.norm(truth[region.mask])
    assert 0 < found["complex_nrmse"] < 3 * bound
    assert found["cutoff"] > 0.9


def test_truth_itself_is_perfect(truth: Complex, region: Region) -> None:
    found = _judge(truth, 2j * truth, region)
    assert found["complex_nrmse"] < 1e-7
    np.testing.assert_allclose(found["frc"], 1, atol=1e-9)
    for part in ("amplitude", "phase"):
        assert found[part]["psnr_db"] > 120
        assert found[part]["ssim"] == pytest.approx(1, abs=1e-9)
        assert found[part]["ms_ssim"] == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("block_px", [1, 8, 16])
def test_shuffled_truth_is_worth_nothing(truth: Complex, region: Region, block_px: int) -> None:
    """Every value is right and no place is: only the histogram survives."""
    count = SIDE // block_px
    blocks = (
        truth.reshape(count, block_px, count, block_px).transpose(0, 2, 1, 3).reshape(-1, block_px, block_px)
    )
    mixed = generator(11, "referee", "shuffle", block_px).permutation(blocks)
    shuffled = mixed.reshape(count, count, block_px, block_px).transpose(0, 2, 1, 3).reshape(SIDE, SIDE)
    found = _judge(truth, shuffled, region)
    for part in ("amplitude", "phase"):
        assert abs(found[part]["ssim"]) < 0.15
        assert found[part]["ms_ssim"] < 0.2
        assert found[part]["psnr_db"] < 16
    assert found["cutoff"] < 0.1


def test_smooth_image_of_another_object_is_worth_nothing(truth: Complex, region: Region) -> None:
    found = _judge(truth, _field("another", 2.0), region)
    for part in ("amplitude", "phase"):
        assert abs(found[part]["ssim"]) < 0.15
        assert found[part]["ms_ssim"] < 0.3


def test_inverted_phase_is_not_forgiven(truth: Complex, region: Region) -> None:
    """The conjugate has the same amplitude; neither factor, ramp nor shift mends its phase."""
    found = _judge(truth, truth.conj(), region)
    assert found["phase"]["ssim"] < 0
    assert found["phase"]["ms_ssim"] == 0
    assert found["phase"]["psnr_db"] < 12
    assert found["amplitude"]["ssim"] > 0.99
    assert found["complex_nrmse"] > 0.2


def test_negated_amplitude_contrast_is_not_forgiven(truth: Complex, region: Region) -> None:
    inverted = (1.7 / np.abs(truth) - 1) * truth
    found = _judge(truth, inverted, region)
    assert found["amplitude"]["ssim"] < 0
    assert found["amplitude"]["ms_ssim"] == 0
    assert found["phase"]["ssim"] == pytest.approx(1, abs=1e-3)


def test_more_error_costs_more(truth: Complex, region: Region) -> None:
    found = [_judge(truth, truth * _field("error", 3.0) ** strength, region) for strength in (0.1, 0.3, 0.9)]
    for part in ("amplitude", "phase"):
        for name in ("psnr_db", "ssim", "ms_ssim"):
            assert np.all(np.diff([scores[part][name] for scores in found]) < 0)
    assert np.all(np.diff([scores["complex_nrmse"] for scores in found]) > 0)
