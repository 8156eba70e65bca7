"""The zone-plate probe against diffraction theory and the measured beam."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special
from scipy.interpolate import CubicSpline

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.study.probe import ZonePlate, zone_plate_probe

DEFOCUS_M = 850e-6
# Radii, in pixels at N = 64, that hold these parts of the power: the main mode of the
# beam measured at the Velociprobe.
POWER_FRACTIONS = (0.5, 0.8, 0.9, 0.95)
MEASURED_RADII_PX = (11.9, 14.9, 16.9, 18.6)
UNIFORM = ZonePlate(central_stop_m=0.0, apodisation=math.inf)


def intensity_of(field: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    return np.abs(field.astype(np.complex128)) ** 2


def radii_px(intensity: NDArray[np.float64]) -> NDArray[np.float64]:
    side = intensity.shape[0]
    return np.hypot(*(np.indices(intensity.shape) - side // 2))


def power_radii_px(intensity: NDArray[np.float64]) -> NDArray[np.float64]:
    radius = radii_px(intensity).ravel()
    order = np.argsort(radius, kind="stable")
    power = np.cumsum(intensity.ravel()[order]) / intensity.sum()
    return np.interp(POWER_FRACTIONS, power, radius[order])


def test_the_central_crop_of_the_detector_sets_the_object_pixel() -> None:
    optics = ZonePlate()
    assert optics.object_pixel_m(64) == pytest.approx(57.2e-9, rel=2e-3)
    assert optics.object_pixel_m(128) == pytest.approx(28.6e-9, rel=2e-3)
    focal_length_m = optics.diameter_m * optics.outermost_zone_m / optics.wavelength_m
    assert focal_length_m == pytest.approx(63.88e-3, rel=1e-3)


@pytest.mark.parametrize("frame_side_px", [32, 64, 128])
def test_power_is_one(frame_side_px: int) -> None:
    probe = zone_plate_probe(frame_side_px, DEFOCUS_M)
    assert probe.shape == (frame_side_px, frame_side_px)
    assert probe.dtype == np.complex64
    assert intensity_of(probe).sum() == pytest.approx(1, abs=1e-5)


def test_a_uniform_full_pupil_focuses_to_the_airy_pattern() -> None:
    side = 256
    probe = zone_plate_probe(side, 0.0, UNIFORM)
    line = probe[side // 2, side // 2 :].real.astype(np.float64)
    distance_m = np.arange(side // 2) * UNIFORM.object_pixel_m(side)
    zero_m = CubicSpline(distance_m, line).roots(extrapolate=False)[0]
    # 1.22 wavelength * focal length / diameter = 1.22 outermost zones.
    assert zero_m == pytest.approx(1.2197 * UNIFORM.outermost_zone_m, rel=0.005)
    argument = 2 * math.pi * UNIFORM.cutoff_per_m * distance_m[1:]
    np.testing.assert_allclose(line[1:] / line[0], 2 * special.j1(argument) / argument, atol=2e-3)


def test_the_far_field_of_the_probe_is_the_pupil() -> None:
    side = 128
    optics = ZonePlate()
    far_field = np.fft.fftshift(np.fft.fft2(zone_plate_probe(side, DEFOCUS_M), norm="ortho"))
    power = intensity_of(far_field)
    assert power.sum() == pytest.approx(1, abs=1e-5)
    frequency = radii_px(power) / (side * optics.object_pixel_m(side))
    rim = optics.cutoff_per_m
    assert power[frequency < 0.9 * rim / 3].sum() < 0.01
    assert power[frequency > 1.1 * rim].sum() < 0.01
    near_stop = power[(frequency > 0.40 * rim) & (frequency < 0.50 * rim)].mean()
    near_rim = power[(frequency > 0.80 * rim) & (frequency < 0.90 * rim)].mean()
    expected = math.exp(-2 * (0.85**2 - 0.45**2) / optics.apodisation**2)
    assert near_rim / near_stop == pytest.approx(expected, rel=0.2)


def test_the_power_radii_are_those_of_the_measured_beam() -> None:
    found = power_radii_px(intensity_of(zone_plate_probe(64, DEFOCUS_M)))
    np.testing.assert_allclose(found, MEASURED_RADII_PX, rtol=0.05)


def test_the_beam_is_an_annulus_about_a_dark_hole() -> None:
    intensity = intensity_of(zone_plate_probe(64, DEFOCUS_M))
    radius = radii_px(intensity)
    ring = intensity[(radius >= 9) & (radius < 14)].mean()
    # The pixels about the axis hold the Poisson spot of the central stop.
    hole = intensity[(radius >= 2) & (radius < 6)].mean()
    outside = intensity[radius >= 24].mean()
    assert hole < 0.35 * ring
    assert outside < 0.02 * ring


def test_a_wider_detector_samples_the_same_beam_more_finely() -> None:
    coarse = power_radii_px(intensity_of(zone_plate_probe(64, DEFOCUS_M)))
    fine = power_radii_px(intensity_of(zone_plate_probe(128, DEFOCUS_M)))
    # The wider band adds the pupil's outermost part, hence a little light outside.
    np.testing.assert_allclose(fine / 2, coarse, rtol=0.06)


def test_the_beam_does_not_depend_on_how_far_the_grid_extends(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = zone_plate_probe(64, DEFOCUS_M)
    monkeypatch.setattr("fly64_dose_overlap.study.probe.PADDING", 8)
    wider = zone_plate_probe(64, DEFOCUS_M)
    assert abs(np.vdot(probe, wider)) > 0.9995


def test_planes_at_equal_distances_before_and_behind_the_focus_are_conjugate() -> None:
    np.testing.assert_allclose(
        zone_plate_probe(64, -DEFOCUS_M), zone_plate_probe(64, DEFOCUS_M).conj(), atol=1e-6
    )


@pytest.mark.parametrize("frame_side_px", [6, 65])
def test_an_odd_or_tiny_frame_is_refused(frame_side_px: int) -> None:
    with pytest.raises(StudyError, match=f"frame_side_px: must be even and at least 8, got {frame_side_px}"):
        zone_plate_probe(frame_side_px, DEFOCUS_M)


def test_a_frame_in_the_shadow_of_the_stop_is_refused() -> None:
    with pytest.raises(StudyError, match="frame_side_px: 16 detector pixels lie in the shadow"):
        zone_plate_probe(16, DEFOCUS_M)


def test_a_beam_wider_than_the_frame_is_refused() -> None:
    with pytest.raises(StudyError, match=r"defocus_um: 2000 um spreads the beam over 98 px .* below 1300 um"):
        zone_plate_probe(64, 2e-3)


def test_impossible_optics_are_refused() -> None:
    with pytest.raises(StudyError, match=r"ZonePlate.diameter_m: must be positive, got 0"):
        ZonePlate(diameter_m=0.0)
    with pytest.raises(StudyError, match=r"ZonePlate.central_stop_m: must be below the diameter"):
        ZonePlate(central_stop_m=2e-4)
