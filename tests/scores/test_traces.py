"""Mean squared errors after alignment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fly64_dose_overlap.scores.align import align_to
from fly64_dose_overlap.scores.frc import Rings, fourier_ring_correlation
from fly64_dose_overlap.scores.lanczos import real_dot
from fly64_dose_overlap.scores.region import Region, scan_region
from fly64_dose_overlap.scores.traces import AlignedError, Traces

SHAPE = (28, 24)


def complex_normal(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray[Any, Any]:
    parts = np.random.default_rng(seed).normal(size=(2, *shape))
    return parts[0] + 1j * parts[1]


def truth() -> np.ndarray[Any, Any]:
    return 1 + 0.2 * complex_normal(1)


def region_of(*, holes: bool) -> Region:
    light = np.ones(SHAPE)
    if holes:
        light[5:9, 7:12] = 0
    return scan_region(light, np.array([[0.0, 0.0], [SHAPE[0] - 1.0, SHAPE[1] - 1.0]]), 0.1)


@pytest.mark.parametrize("holes", [False, True])
def test_projection_is_what_alignment_does_to_a_small_error(holes: bool) -> None:
    region, size = region_of(holes=holes), 1e-5
    error = complex_normal(2)
    ramp = 1j * (0.01 * np.arange(SHAPE[0])[:, None] + 0.5 + 0.2j) * truth()
    found = align_to(truth(), truth() + size * (error + ramp), region, upsampling=1).field
    left = np.where(region.mask, (found - truth()) / size, 0)
    wanted = AlignedError(truth(), region.mask)(error)
    np.testing.assert_allclose(left, wanted, atol=2e-3)


def test_projection_is_symmetric_and_idempotent() -> None:
    aligned = AlignedError(truth(), region_of(holes=True).mask)
    first, second = complex_normal(2), complex_normal(3)
    assert real_dot(first, aligned(second)) == pytest.approx(real_dot(aligned(first), second), rel=1e-10)
    np.testing.assert_allclose(aligned(aligned(first)), aligned(first), atol=1e-12)


@pytest.mark.parametrize("holes", [False, True])
def test_mean_over_random_vectors_is_the_error_of_every_part(holes: bool) -> None:
    region = region_of(holes=holes)
    traces, mask = Traces(truth(), region), region.mask
    direction = truth() / abs(truth())
    along, across = 0.3, 0.7 + 0.1 * np.arange(SHAPE[1])

    def covariance(field: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        turned = direction.conj() * field
        return direction * (along * turned.real + 1j * across * turned.imag)

    rng = np.random.default_rng(4)
    vectors = [traces.draw(rng) for _ in range(400)]
    found = np.mean([traces.seen_by(vector)(covariance(vector)) for vector in vectors], axis=0)
    phase = np.mean((across / abs(truth()) ** 2)[mask])
    total = np.sum(np.broadcast_to(along + across, SHAPE)[mask])
    wanted = np.array([phase, along, total / np.sum(abs(truth()[mask]) ** 2)])
    np.testing.assert_allclose(found[:3], wanted, rtol=1e-9)
    assert found[3:].mean() == pytest.approx(total / mask.size, rel=0.1)


def test_ring_power_of_white_noise_is_its_variance() -> None:
    rings = Rings(SHAPE)
    spectra = [rings.spectrum(complex_normal(seed)) for seed in range(100)]
    powers = [rings.cross_power(spectrum, spectrum) for spectrum in spectra]
    np.testing.assert_allclose(np.mean(powers, axis=0)[1:], 2, rtol=0.15)


def test_rings_are_those_of_the_frc() -> None:
    image, noise = complex_normal(1), complex_normal(2)
    rings, curve = Rings(SHAPE), fourier_ring_correlation(image, image + noise)
    np.testing.assert_array_equal(rings.frequency, curve.frequency)
    first, second = rings.spectrum(image), rings.spectrum(image + noise)
    powers = rings.cross_power(first, first) * rings.cross_power(second, second)
    np.testing.assert_allclose(rings.cross_power(first, second) / np.sqrt(powers), curve.frc)


def test_expected_frc_is_the_mean_over_noisy_estimates() -> None:
    rings, variance = Rings(SHAPE), 2 * 0.15**2
    spectrum = rings.spectrum(truth())
    signal = rings.cross_power(spectrum, spectrum)
    noisy: list[np.ndarray[Any, Any]] = [truth() + 0.15 * complex_normal(seed) for seed in range(100, 300)]
    found = np.mean([fourier_ring_correlation(truth(), image).frc for image in noisy], axis=0)
    np.testing.assert_allclose(found[1:], np.sqrt(signal / (signal + variance))[1:], atol=0.03)


def test_the_phase_of_a_pixel_near_zero_does_not_count_and_its_complex_error_does() -> None:
    region, error = region_of(holes=False), complex_normal(2)
    plain = Traces(truth(), region)
    vector = plain.draw(np.random.default_rng(6))
    elsewhere = vector.copy()
    elsewhere[3, 4] = 0
    wanted = plain.seen_by(elsewhere)(error)[0] * region.pixels / (region.pixels - 1)
    for value in (0, 1e-9, 1e-3j):
        obj = truth()
        obj[3, 4] = value
        traces = Traces(obj, region)
        assert traces.seen_by(vector)(error)[0] == pytest.approx(wanted)
        assert abs(traces.draw(np.random.default_rng(7))[3, 4]) == pytest.approx(2**0.5)
