"""Fourier ring correlation against a loop over Fourier pixels, and its thresholds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.scores.frc import FrcCurve, cutoff, first_crossing, fourier_ring_correlation
from fly64_dose_overlap.seeding import generator

Complex = NDArray[np.complex128]


def _random(name: str, shape: tuple[int, int]) -> Complex:
    rng = generator(5, "frc", name)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def _curve(values: list[float]) -> FrcCurve:
    rings = len(values)
    return FrcCurve(np.arange(1, rings + 1) / (2 * rings), np.array(values), np.full(rings, 100.0))


def _loop_frc(a: Complex, b: Complex, weights: NDArray[np.float64]) -> tuple[list[float], list[int]]:
    height, width = a.shape
    a = weights * (a - (weights * a).sum() / weights.sum())
    b = weights * (b - (weights * b).sum() / weights.sum())
    y, x = np.mgrid[:height, :width]
    shorter = min(height, width)
    sums = [[0.0, 0.0, 0.0, 0] for _ in range(shorter // 2 + 1)]
    for i in range(-(height // 2), height - height // 2):
        for j in range(-(width // 2), width - width // 2):
            radius = math.hypot(i / height, j / width)
            ring = int(np.rint(radius * shorter))
            if radius > 0.5 or ring > shorter // 2:
                continue
            wave = np.exp(-2j * np.pi * (i * y / height + j * x / width))
            fa, fb = (a * wave).sum(), (b * wave).sum()
            sums[ring][0] += (fa * fb.conjugate()).real
            sums[ring][1] += abs(fa) ** 2
            sums[ring][2] += abs(fb) ** 2
            sums[ring][3] += 1
    return [s[0] / math.sqrt(s[1] * s[2]) for s in sums[1:]], [int(s[3]) for s in sums[1:]]


@pytest.mark.parametrize("shape", [(16, 16), (16, 22), (19, 15)])
@pytest.mark.parametrize("window", ["hann", "none"])
def test_matches_a_loop_over_fourier_pixels(shape: tuple[int, int], window: Any) -> None:
    a = _random("a", shape)
    b = a + _random("b", shape) + 4
    sides = [0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n) for n in shape]
    weights = np.outer(*sides) if window == "hann" else np.ones(shape)
    expected, pixels = _loop_frc(a, b, weights)
    curve = fourier_ring_correlation(a, b, window=window)
    np.testing.assert_allclose(curve.frc, expected, atol=1e-9)
    np.testing.assert_allclose(curve.frequency, np.arange(1, min(shape) // 2 + 1) / min(shape))
    if window == "none":
        np.testing.assert_allclose(curve.effective_pixels, pixels)


@pytest.mark.parametrize("window", ["hann", "tukey", "none"])
def test_identity_inversion_and_factors(window: Any) -> None:
    a = _random("a", (40, 33))
    np.testing.assert_allclose(fourier_ring_correlation(a, a, window=window).frc, 1)
    np.testing.assert_allclose(fourier_ring_correlation(a, -3 * a, window=window).frc, -1)
    np.testing.assert_allclose(fourier_ring_correlation(a, 1j * a, window=window).frc, 0, atol=1e-12)
    np.testing.assert_allclose(fourier_ring_correlation(a, a + 100, window=window).frc, 1)


def test_noise_gives_the_expected_correlation() -> None:
    a, noise = _random("signal", (128, 128)), _random("noise", (128, 128))
    curve = fourier_ring_correlation(a, a + 2 * noise)
    assert curve.frc[8:].mean() == pytest.approx(1 / math.sqrt(5), abs=0.02)


def test_scatter_of_unrelated_images_follows_the_effective_pixel_count() -> None:
    """The real part of a correlation of n independent complex pairs has variance 1 / (2 n)."""
    curves = [
        fourier_ring_correlation(_random(f"u{i}", (48, 48)), _random(f"v{i}", (48, 48))) for i in range(60)
    ]
    scatter = np.mean([curve.frc[4:] ** 2 * 2 * curve.effective_pixels[4:] for curve in curves])
    assert scatter == pytest.approx(1, abs=0.08)


def test_low_pass_cuts_at_its_own_frequency_on_an_oblong_image() -> None:
    shape = (64, 160)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1]), indexing="ij"))
    detail = np.fft.fft2(_random("detail", shape))
    other = np.fft.fft2(_random("other", shape))
    a = np.fft.ifft2(detail)
    b = np.fft.ifft2(np.where(radius < 0.3, detail, other))
    for oriented in ((a, b), (a.T, b.T)):
        assert cutoff(fourier_ring_correlation(*oriented)) == pytest.approx(0.6, abs=0.03)


def test_prediction_without_detail_correlates_with_nothing() -> None:
    curve = fourier_ring_correlation(_random("a", (40, 40)), np.full((40, 40), 0.3 - 0.1j))
    assert not curve.frc.any()
    assert cutoff(curve) == 0


@pytest.mark.parametrize(
    ("values", "threshold", "expected"),
    [
        ([0.95, 0.72, 0.55, 0.45, 0.20], 0.5, 2.5),
        ([0.8, 0.4, 0.2, 0.1], 0.5, 0.75),
        ([0.8, 0.4, 0.2, 0.1], 1 / 7, 2.571429),
        ([0.3, 0.9, 0.1], 0.5, 0.0),
        ([0.9, 0.8, 0.7], 0.5, 3.0),
        ([0.9, 0.5, 0.5, 0.1], 0.5, 2.0),
        ([0.9, math.nan, 0.1], 0.5, 1.0),
        ([math.nan, math.nan], 0.5, math.nan),
    ],
)
def test_first_crossing(values: list[float], threshold: float, expected: float) -> None:
    assert first_crossing(np.array(values), threshold) == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_cutoff_is_a_fraction_of_nyquist() -> None:
    assert cutoff(_curve([0.9, 0.8, 0.7, 0.3])) == pytest.approx(0.875)
    assert cutoff(_curve([0.9, 0.8, 0.7, 0.6])) == 1.0
    assert cutoff(_curve([0.4, 0.8, 0.7, 0.6])) == 0.0
    assert cutoff(_curve([0.9, 0.8, 0.7, 0.6]), 0.65) == pytest.approx(0.875)
    assert cutoff(_curve([0.9, 0.5, 0.1, 0.0]), "one-seventh") == pytest.approx(
        0.5 + 0.25 * (0.5 - 1 / 7) / 0.4
    )
    assert cutoff(_curve([0.9, 0.8, 0.4, 0.3]), "half-bit") == pytest.approx(
        0.75 + 0.25 * (0.4 - (0.2071 + 0.191016) / (1.2071 + 0.091016)) / 0.1, abs=1e-4
    )
    assert math.isnan(cutoff(_curve([math.nan, math.nan])))


def test_the_coarsest_rings_alone_decide_nothing_of_halves() -> None:
    """Three rings of few pixels, in which halves differ, and agreement to the middle of the others."""
    values = np.array([0.1, 0.1, 0.1, *[0.9] * 9, *[0.0] * 8])
    pixels = np.array([3.0, 6.0, 9.0, *[100.0] * 17])
    curve = FrcCurve(np.arange(1, 21) / 40, values, pixels)
    for name in ("half-bit", "one-seventh"):
        assert 0.6 < cutoff(curve, name) < 0.65
    assert cutoff(curve, "half") == cutoff(curve, 1 / 7) == 0
    for number in (1, 3):
        surer = np.where(np.arange(20) == number - 1, 10.0, pixels)
        assert cutoff(FrcCurve(curve.frequency, values, surer), "half-bit") == 0
    # So does the ring beside one in which halves agree.
    values[0] = 0.95
    assert 0.6 < cutoff(FrcCurve(curve.frequency, values, pixels), "half-bit") < 0.65
    assert cutoff(FrcCurve(curve.frequency, 0 * values, np.full(20, 3.0)), "half-bit") == 0


def test_thresholds_are_van_heel_and_schatz() -> None:
    curve = FrcCurve(np.array([0.1, 0.2, 0.3]), np.zeros(3), np.array([1.0, 100.0, 1e12]))
    np.testing.assert_allclose(curve.threshold("half"), 0.5)
    np.testing.assert_allclose(curve.threshold("one-seventh"), 1 / 7)
    # Coefficients as printed in the paper.
    n = np.sqrt(curve.effective_pixels)
    np.testing.assert_allclose(
        curve.threshold("half-bit"), (0.2071 + 1.9102 / n) / (1.2071 + 0.9102 / n), rtol=1e-4
    )
    np.testing.assert_allclose(curve.threshold("one-bit"), (0.5 + 2.4142 / n) / (1.5 + 1.4142 / n), rtol=1e-4)
    with pytest.raises(
        StudyError, match="must be one of half, one-seventh, half-bit, one-bit, got '3-sigma'"
    ):
        curve.threshold("3-sigma")  # type: ignore[arg-type]


def test_bad_input_is_refused() -> None:
    a = _random("a", (16, 16))
    broken = a.copy()
    broken[0, 0] = np.nan
    with pytest.raises(StudyError, match=r"one shape, at least 4 x 4, got \(16, 16\) and \(15, 16\)"):
        fourier_ring_correlation(a, a[1:])
    with pytest.raises(StudyError, match="at least 4 x 4"):
        fourier_ring_correlation(a[:3], a[:3])
    with pytest.raises(StudyError, match="FRC prediction: must be finite"):
        fourier_ring_correlation(a, broken)
    with pytest.raises(StudyError, match="FRC reference: is the same everywhere"):
        fourier_ring_correlation(np.ones_like(a), a)
    with pytest.raises(StudyError, match="FRC window: must be hann, tukey or none, got 'kaiser'"):
        fourier_ring_correlation(a, a, window="kaiser")  # type: ignore[arg-type]
