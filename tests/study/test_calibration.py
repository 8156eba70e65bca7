"""Errors of the probe and the positions that reconstructions are given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import factories
import tiny_scan
from fly64_dose_overlap.config import CalibrationParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.methods.searches import with_modes
from fly64_dose_overlap.provenance import steps
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.study.calibration import propagate, with_calibration_errors
from fly64_dose_overlap.study.probe import zone_plate_probe


def params(**changes: Any) -> CalibrationParams:
    return factories.study_params().calibration.model_copy(update=changes)


def scan_with(**changes: Any) -> Scan:
    return with_calibration_errors(tiny_scan.scan(), params(**changes), where="view")


def test_no_error_changes_nothing() -> None:
    assert scan_with() is tiny_scan.scan()


def test_frames_stay_and_the_errors_are_recorded() -> None:
    true, told = tiny_scan.scan(), scan_with(position_error_px=0.5)
    assert told.counts is true.counts
    assert told.object_shape == true.object_shape
    assert steps(told.record)[-1] == "calibration"
    assert told.record["data_transformations"][-1]["parameters"]["position_error_px"] == 0.5


def test_photon_scale_is_the_power_of_the_probe() -> None:
    true, told = tiny_scan.scan(), scan_with(photon_scale_error=0.2)
    ratio = np.sum(np.abs(told.probe) ** 2) / np.sum(np.abs(true.probe) ** 2)
    assert ratio == pytest.approx(1.2, rel=1e-6)
    np.testing.assert_array_equal(told.positions_px, true.positions_px)


def test_positions_err_by_the_deviation_and_keep_their_windows_inside() -> None:
    true, told = tiny_scan.scan(), scan_with(position_error_px=0.5)
    assert np.std(told.positions_px - true.positions_px) == pytest.approx(0.5, rel=0.2)
    for side in (true.side, true.side - 1):
        smaller = replace(
            true, counts=np.asarray(true.counts)[:, :side, :side], probe=true.probe[:, :side, :side]
        )
        errors = params(position_error_px=90.0)
        far = with_calibration_errors(smaller, errors, where="view").positions_px
        lowest = np.array([side // 2] * 2)
        np.testing.assert_array_equal(far.min(axis=0), lowest)
        np.testing.assert_array_equal(far.max(axis=0), np.array(true.object_shape) - side + lowest)


def test_the_seed_decides_the_positions() -> None:
    first, again, other = (scan_with(position_error_px=0.5, seed=seed).positions_px for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_defocus_keeps_the_power_and_can_be_undone() -> None:
    probe = tiny_scan.scan().probe.astype(np.complex128)
    away = propagate(probe, 50e-6, 1.4e-10, 57e-9)
    assert np.sum(np.abs(away) ** 2) == pytest.approx(np.sum(np.abs(probe) ** 2))
    assert np.abs(away - probe).max() > 0.01 * np.abs(probe).max()
    np.testing.assert_allclose(propagate(away, -50e-6, 1.4e-10, 57e-9), probe, atol=1e-9)


def test_defocus_error_adds_to_the_defocus_of_the_zone_plate() -> None:
    params_of_base = factories.study_params().base
    told = scan_with(defocus_error_um=30.0).probe

    def likeness(defocus_um: float) -> float:
        expected = zone_plate_probe(tiny_scan.SIDE, defocus_um * 1e-6)
        return float(np.abs(np.vdot(expected, told)) / np.linalg.norm(told))

    here = params_of_base.defocus_um
    assert likeness(here + 30) > 0.9999
    assert likeness(here) < 0.999
    assert likeness(here + 60) < 0.999


def test_defocus_without_a_known_pixel_is_refused() -> None:
    bare = replace(tiny_scan.scan(), optics=None)
    with pytest.raises(
        StudyError, match=r"^view: calibration\.defocus_error_um needs energy_ev and object_pixel_m"
    ):
        with_calibration_errors(bare, params(defocus_error_um=1.0), where="view")


def test_an_astigmatic_probe_is_further_along_one_axis() -> None:
    true, told = tiny_scan.scan(), scan_with(astigmatism_um=300.0)
    assert true.optics is not None
    waves = np.fft.fftfreq(true.side, true.optics.object_pixel_m) ** 2
    apart = np.fft.fft2(told.probe[0]) * np.fft.fft2(true.probe[0]).conj()
    expected = np.exp(-1j * np.pi * true.optics.wavelength_m * 150e-6 * (waves[:, None] - waves))
    np.testing.assert_allclose(apart, np.abs(apart) * expected, atol=1e-4 * np.abs(apart).max())


def test_modes_are_the_strongest_at_the_power_of_all() -> None:
    three = with_modes(tiny_scan.scan(), 3)
    told = with_calibration_errors(three, params(modes=1), where="view")
    assert told.probe.shape == (1, three.side, three.side)
    assert np.sum(np.abs(told.probe) ** 2) == pytest.approx(np.sum(np.abs(three.probe) ** 2), rel=1e-5)
    overlap = np.abs(np.vdot(told.probe[0], three.probe[0])) / np.linalg.norm(told.probe)
    assert overlap == pytest.approx(np.linalg.norm(three.probe[0]), rel=1e-5)
    assert with_calibration_errors(three, params(modes=3), where="view").probe.shape == three.probe.shape


def test_light_that_frames_are_said_to_have_errs_by_the_deviation() -> None:
    true, told = tiny_scan.scan(), scan_with(flux_error=0.1)
    assert told.flux is not None
    assert np.std(np.log(told.flux)) == pytest.approx(0.1, rel=0.2)
    np.testing.assert_array_equal(told.probe, true.probe)
    np.testing.assert_array_equal(told.flux, scan_with(flux_error=0.1).flux)
