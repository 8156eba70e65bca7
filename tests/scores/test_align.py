"""Alignment removes what ptychography cannot know, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.scores.align import MAX_SHIFT_PX, Aligned, align_to
from fly64_dose_overlap.scores.region import Region, scan_region
from fly64_dose_overlap.scores.scores import score
from fly64_dose_overlap.seeding import generator

Complex = NDArray[np.complex128]
HEIGHT, WIDTH = 96, 128


def _smooth(name: str) -> NDArray[np.float64]:
    """A periodic random texture without power beyond half of Nyquist, between -1 and 1."""
    white = generator(7, "align", name).normal(size=(HEIGHT, WIDTH))
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(HEIGHT), np.fft.fftfreq(WIDTH), indexing="ij"))
    image = np.fft.ifft2(np.fft.fft2(white) * (radius < 0.25) / (0.02 + radius)).real
    return image / np.abs(image).max()


@pytest.fixture(scope="module")
def truth() -> Complex:
    amplitude = 0.85 + 0.15 * _smooth("amplitude")
    return amplitude.astype(np.complex128) * np.exp(0.8j * _smooth("phase"))


@pytest.fixture(scope="module")
def region() -> Region:
    illumination = np.ones((HEIGHT, WIDTH))
    illumination[40:46, 60:70] = 0
    return scan_region(illumination, np.array([[14.0, 14.0], [80.0, 112.0]]), 0.1)


def _rolled(field: Complex, dy: float, dx: float) -> Complex:
    fy, fx = np.fft.fftfreq(HEIGHT)[:, None], np.fft.fftfreq(WIDTH)
    return np.fft.ifft2(np.fft.fft2(field) * np.exp(-2j * np.pi * (dy * fy + dx * fx)))


def _ramp(ky: float, kx: float) -> Complex:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.exp(1j * (ky * y + kx * x))


def _nrmse(truth: Complex, aligned: Aligned, region: Region) -> float:
    difference = (aligned.field - truth)[region.mask]
    return float(np.linalg.norm(difference) / np.linalg.norm(truth[region.mask]))


def _noise(name: str, sigma: float) -> Complex:
    rng = generator(7, "align", "noise", name)
    return sigma * (rng.normal(size=(HEIGHT, WIDTH)) + 1j * rng.normal(size=(HEIGHT, WIDTH)))


def test_identical_input_comes_back(truth: Complex, region: Region) -> None:
    aligned = align_to(truth, truth, region, upsampling=50)
    assert aligned.shift_px == (0.0, 0.0)
    assert aligned.ramp_rad_per_px == (0.0, 0.0)
    assert aligned.scale == pytest.approx(1, abs=1e-12)
    assert _nrmse(truth, aligned, region) < 1e-12
    outside = np.ones(truth.shape, dtype=bool)
    outside[region.rectangle] = False
    assert not aligned.field[outside].any()


def test_zero_shift_leaves_the_samples_alone(truth: Complex, region: Region) -> None:
    noisy = truth + _noise("plain", 0.05)
    aligned = align_to(truth, noisy, region, upsampling=50)
    assert aligned.shift_px == (0.0, 0.0)
    box = region.rectangle
    rows, columns = (np.arange(s.stop - s.start) - (s.stop - s.start - 1) / 2 for s in box)
    ky, kx = aligned.ramp_rad_per_px
    expected = aligned.scale * np.exp(1j * (ky * rows[:, None] + kx * columns)) * noisy[box]
    np.testing.assert_allclose(aligned.field[box], expected, rtol=1e-13)


@pytest.mark.parametrize(("dy", "dx"), [(5, 3), (-8, 8), (0, -1)])
def test_roll_is_found_as_its_opposite(truth: Complex, region: Region, dy: int, dx: int) -> None:
    aligned = align_to(truth, np.roll(truth, (dy, dx), axis=(0, 1)), region, upsampling=20)
    assert aligned.shift_px == (-dy, -dx)
    assert _nrmse(truth, aligned, region) < 1e-3


def test_agrees_with_scikit_image_on_a_periodic_pair(truth: Complex) -> None:
    whole = scan_region(np.ones((HEIGHT, WIDTH)), np.array([[0.0, 0.0], [HEIGHT, WIDTH]]), 0.1)
    moved = _rolled(truth, 2.3, -3.65)
    unweighted: Any = None
    found, _, _ = phase_cross_correlation(truth, moved, upsample_factor=20, normalization=unweighted)
    assert align_to(truth, moved, whole, upsampling=20).shift_px == pytest.approx(tuple(found), abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(
    dy=st.floats(-6, 6),
    dx=st.floats(-6, 6),
    ky=st.floats(-0.4, 0.4),
    kx=st.floats(-0.4, 0.4),
    scale=st.floats(0.01, 100),
    phase=st.floats(-3.1, 3.1),
)
def test_shift_ramp_and_factor_are_found_together(
    truth: Complex, region: Region, dy: float, dx: float, ky: float, kx: float, scale: float, phase: float
) -> None:
    changed = scale * np.exp(1j * phase) * _ramp(ky, kx) * _rolled(truth, dy, dx)
    aligned = align_to(truth, changed, region, upsampling=50)
    assert aligned.shift_px == pytest.approx((-dy, -dx), abs=0.021)
    assert aligned.ramp_rad_per_px == pytest.approx((-ky, -kx), abs=1e-4)
    assert abs(aligned.scale) * scale == pytest.approx(1, abs=1e-3)
    assert _nrmse(truth, aligned, region) < 5e-3


def test_reported_parameters_reproduce_the_field(truth: Complex, region: Region) -> None:
    changed = (0.3 - 2j) * _ramp(0.2, -0.1) * _rolled(truth, 1.5, -2.25)
    aligned = align_to(truth, changed, region, upsampling=4)
    dy, dx = aligned.shift_px
    ky, kx = aligned.ramp_rad_per_px
    assert (dy, dx) == (-1.5, 2.25)
    centre = [(s.start + s.stop - 1) / 2 for s in region.rectangle]
    factor = aligned.scale * np.exp(-1j * (ky * centre[0] + kx * centre[1]))
    # Shifting the true object first is exact; the ramp then meets other coordinates.
    shifted = (0.3 - 2j) * _ramp(0.2, -0.1) * np.exp(-1j * (0.2 * dy - 0.1 * dx)) * truth
    box = region.rectangle
    np.testing.assert_allclose(aligned.field[box], (factor * _ramp(ky, kx) * shifted)[box], atol=2e-3)


def test_scores_do_not_see_what_alignment_removes(truth: Complex, region: Region) -> None:
    noisy = truth + np.fft.ifft2(np.fft.fft2(_noise("band", 0.05)) * (np.abs(np.fft.fft2(truth)) > 1e-9))
    plain = score(truth, align_to(truth, noisy, region, upsampling=50).field, region)
    changed = 12 * np.exp(2j) * _ramp(-0.02, 0.3) * _rolled(noisy, 0.5, -1.24)
    again = score(truth, align_to(truth, changed, region, upsampling=50).field, region)
    for part in ("amplitude", "phase"):
        assert again[part]["psnr_db"] == pytest.approx(plain[part]["psnr_db"], abs=0.05)
        assert again[part]["ssim"] == pytest.approx(plain[part]["ssim"], abs=2e-3)
        assert again[part]["ms_ssim"] == pytest.approx(plain[part]["ms_ssim"], abs=2e-3)
    assert again["complex_nrmse"] == pytest.approx(plain["complex_nrmse"], rel=5e-3)


@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_registration_never_raises_the_residual(truth: Complex, region: Region, sigma: float) -> None:
    for trial in range(4):
        noisy = truth + _noise(f"trial {trial}", sigma)
        fitted = align_to(truth, noisy, region, upsampling=50)
        plain = noisy[region.mask]
        scale = np.vdot(plain, truth[region.mask]) / np.vdot(plain, plain)
        unregistered = np.linalg.norm(truth[region.mask] - scale * plain) / np.linalg.norm(truth[region.mask])
        assert _nrmse(truth, fitted, region) <= unregistered * (1 + 1e-12)
        assert max(map(abs, fitted.shift_px)) <= 0.1


def test_flat_prediction_stays_flat_and_unshifted(truth: Complex, region: Region) -> None:
    aligned = align_to(truth, np.full_like(truth, 3j), region, upsampling=50)
    assert aligned.shift_px == (0.0, 0.0)
    assert np.ptp(np.abs(aligned.field[region.mask])) < 1e-12


def test_search_stays_within_its_limit(truth: Complex, region: Region) -> None:
    aligned = align_to(truth, np.roll(truth, 20, axis=0), region, upsampling=50)
    assert max(map(abs, aligned.shift_px)) <= MAX_SHIFT_PX


def test_pixels_outside_the_mask_do_not_matter(truth: Complex, region: Region) -> None:
    spoilt = truth.copy()
    spoilt[region.rectangle] = np.where(region.mask[region.rectangle], truth[region.rectangle], 50)
    aligned = align_to(truth, spoilt, region, upsampling=50)
    assert aligned.shift_px == (0.0, 0.0)
    assert _nrmse(truth, aligned, region) < 1e-12


def test_fields_that_nowhere_meet_give_zero(truth: Complex, region: Region) -> None:
    left, right = truth.copy(), truth.copy()
    left[:, 64:], right[:, :64] = 0, 0
    left[:, 50:64], right[:, 64:78] = 0, 0
    aligned = align_to(left, right, region, upsampling=2)
    assert aligned.scale == 0
    assert not aligned.field.any()


def test_parameters_are_plain_numbers(truth: Complex, region: Region) -> None:
    found = align_to(truth, -2 * truth.astype(np.complex64), region, upsampling=1).parameters()
    assert found["shift_px"] == [0.0, 0.0]
    assert found["scale_modulus"] == pytest.approx(0.5)
    assert abs(found["scale_phase_rad"]) == pytest.approx(np.pi)
    assert found["ramp_rad_per_px"] == pytest.approx([0, 0], abs=1e-7)


def test_bad_fields_are_refused(truth: Complex, region: Region) -> None:
    dead = truth.copy()
    dead[region.mask] = 0
    broken = truth.copy()
    broken[3, 4] = np.nan
    for prediction, message in [
        (truth[:-1], r"prediction: must have the region's shape \(96, 128\), got \(95, 128\)"),
        (truth[None], r"prediction: must have the region's shape"),
        (np.abs(truth), "prediction: must be a complex field, got float64"),
        (broken, "prediction: must be finite, got 1 of 12288 pixels NaN or infinite"),
        (
            np.zeros_like(truth),
            "prediction: is zero on all 6573 pixels of the scored region; did the network",
        ),
        (dead, "prediction: is zero on all"),
    ]:
        with pytest.raises(StudyError, match=message):
            align_to(truth, prediction, region, upsampling=50)
    with pytest.raises(StudyError, match="reference: is zero on all"):
        align_to(dead, truth, region, upsampling=50)
    with pytest.raises(StudyError, match="registration_upsampling: must be at least 1, got 0"):
        align_to(truth, truth, region, upsampling=0)


@pytest.mark.parametrize(
    ("dy", "dx", "at_limit"), [(0, 0, False), (5, -7, False), (9, 0, True), (0, 12, True), (-30, 20, True)]
)
def test_a_translation_beyond_the_search_is_told(
    truth: Complex, region: Region, dy: int, dx: int, at_limit: bool
) -> None:
    moved = np.roll(truth, (dy, dx), axis=(0, 1))
    for prediction in (moved, 2j * moved * _ramp(0.02, -0.03), moved + _noise("beyond", 0.2)):
        found = align_to(truth, prediction, region, upsampling=10)
        assert found.at_limit == found.parameters()["at_limit"] == at_limit
        if max(abs(dy), abs(dx)) > 9:
            assert found.beyond_px == (-dy, -dx)


def test_noise_alone_is_not_taken_for_a_translation(truth: Complex, region: Region) -> None:
    for name in ("a", "b", "c"):
        assert align_to(truth, 1 + _noise(name, 1.0), region, upsampling=10).beyond_px is None
