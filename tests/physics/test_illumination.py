"""Shifted probes, and the photons that fall on the object."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.physics.illumination import (
    fluence_summary,
    illumination,
    shifted_probes,
    whole_and_rest,
)

RNG = np.random.default_rng(5)
PROBE = RNG.normal(size=(2, 8, 8)) + 1j * RNG.normal(size=(2, 8, 8))
SHIFTS = np.array([[0.0, 0.0], [0.25, -0.5], [-0.4, 0.1], [0.5, 0.5]])


def power(field: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    return (np.abs(field) ** 2).sum(axis=(-2, -1))


@given(arrays(np.float64, (3, 2), elements=st.floats(-50, 50)), st.integers(7, 8))
def test_whole_and_rest_make_up_the_position(positions_px: NDArray[np.float64], side: int) -> None:
    corners, shifts = whole_and_rest(positions_px, side)
    np.testing.assert_allclose(corners + side // 2 + shifts, positions_px, rtol=0, atol=1e-12)
    assert np.abs(shifts).max() <= 0.5


@pytest.mark.parametrize("side", [8, 7])
def test_shifts_keep_the_power_and_the_type(side: int) -> None:
    probe = PROBE[:, :side, :side]
    found = shifted_probes(probe, SHIFTS)
    assert found.shape == (4, 2, side, side)
    assert found.dtype == np.complex128
    np.testing.assert_allclose(power(found), np.tile(power(probe), (4, 1)), rtol=1e-12)
    assert shifted_probes(probe.astype(np.complex64), SHIFTS).dtype == np.complex64


def test_whole_shifts_roll_the_probe() -> None:
    (found,) = shifted_probes(PROBE, np.array([[2.0, -3.0]]))
    np.testing.assert_allclose(found, np.roll(PROBE, (2, -3), axis=(1, 2)), atol=1e-12)


@pytest.mark.parametrize("side", [32, 31])
def test_a_band_limited_probe_is_read_between_its_pixels(side: int) -> None:
    y, x = np.mgrid[:side, :side] - side // 2

    def probe_at(y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.complex128]:
        return np.exp(-(y**2 + x**2) / 12 + 0.5j * y - 0.3j * x)

    found = shifted_probes(probe_at(y, x)[None], SHIFTS)[:, 0]
    for (dy, dx), moved in zip(SHIFTS, found, strict=True):
        np.testing.assert_allclose(moved, probe_at(y - dy, x - dx), atol=1e-7)


def test_two_half_shifts_make_a_whole_one_but_for_the_nyquist_frequency() -> None:
    spectrum = np.fft.fft2(PROBE)
    spectrum[:, 4] = spectrum[:, :, 4] = 0
    probe = np.fft.ifft2(spectrum)
    (half,) = shifted_probes(probe, np.array([[0.5, 0.5]]))
    (whole,) = shifted_probes(half, np.array([[0.5, 0.5]]))
    np.testing.assert_allclose(whole, np.roll(probe, (1, 1), axis=(1, 2)), atol=1e-12)


def test_illumination_is_the_sum_of_the_modes_of_the_probes_at_their_places() -> None:
    positions_px = np.array([[10, 12], [11, 12], [20, 17]], dtype=np.float64)
    expected = np.zeros((30, 40))
    for y, x in positions_px.astype(int):
        expected[y - 4 : y + 4, x - 4 : x + 4] += (np.abs(PROBE) ** 2).sum(axis=0)
    np.testing.assert_allclose(illumination(PROBE, positions_px, (30, 40)), expected, atol=1e-9)


def test_fractions_shift_the_probe() -> None:
    found = illumination(PROBE, np.array([[10.25, 12.0]]), (30, 40))
    (moved,) = shifted_probes(PROBE, np.array([[0.25, 0.0]]))
    np.testing.assert_allclose(found[6:14, 8:16], (np.abs(moved) ** 2).sum(axis=0), atol=1e-9)


@settings(max_examples=20)
@given(arrays(np.float64, (6, 2), elements=st.floats(8, 22)))
def test_photons_are_conserved(positions_px: NDArray[np.float64]) -> None:
    total = illumination(PROBE, positions_px, (32, 32)).sum()
    assert total == pytest.approx(6 * np.sum(np.abs(PROBE) ** 2))


def test_blocks_of_frames_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    positions_px = RNG.uniform(4, 26, (9, 2))
    whole = illumination(PROBE, positions_px, (30, 30))
    monkeypatch.setattr("fly64_dose_overlap.physics.illumination.FRAMES_PER_BLOCK", 4)
    np.testing.assert_array_equal(illumination(PROBE, positions_px, (30, 30)), whole)


def test_uniform_scan_gets_dose_per_step_squared() -> None:
    axis = np.arange(20.0, 80.0, 2.0)
    positions_px = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    dose = 1000.0
    probe = PROBE * np.sqrt(dose / np.sum(np.abs(PROBE) ** 2))
    summary = fluence_summary(illumination(probe, positions_px, (100, 100)), positions_px)
    assert summary["photons_per_pixel_median"] == pytest.approx(dose / 4, rel=0.3)
    assert summary["photons_per_pixel_mean"] == pytest.approx(dose / 4, rel=0.1)
    assert summary["photons_per_pixel_max"] >= summary["photons_per_pixel_median"]
    assert summary["covered_fraction"] == 1.0


def test_holes_are_not_covered() -> None:
    corners = np.array([[10, 10], [10, 50], [50, 10], [50, 50]], dtype=np.float64)
    fluence = illumination(np.ones((1, 8, 8), np.complex128), corners, (60, 60))
    summary = fluence_summary(fluence, corners)
    assert summary["covered_fraction"] == pytest.approx(4 * 20 / 41**2, rel=0.3)
    assert summary["photons_per_pixel_max"] == pytest.approx(1.0)
    assert summary["photons_per_pixel_median"] == pytest.approx(0.0, abs=1e-9)


def test_light_beyond_the_edge_of_the_object_is_lost() -> None:
    inside = illumination(np.ones((1, 4, 4), np.complex128), np.array([[0.0, 0.0], [9.0, 9.0]]), (10, 10))
    assert inside.sum() == pytest.approx(4 + 9)


def test_refuses_positions_outside_the_object() -> None:
    with pytest.raises(StudyError, match=r"1 of 2 positions lie outside the object of \(30, 40\)"):
        illumination(PROBE, np.array([[10.0, 10.0], [10.0, 39.5]]), (30, 40))
