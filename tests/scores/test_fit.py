"""Misfit of frames beside what noise alone leaves."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import tiny_scan
from fly64_dose_overlap.physics.detector import Detector
from fly64_dose_overlap.physics.fit import Fit, fit
from fly64_dose_overlap.physics.likelihood import BACKGROUND_PHOTONS, scan_deviance
from fly64_dose_overlap.physics.model import ScanModel

TRUTH = torch.from_numpy(tiny_scan.truth())
SIDE = tiny_scan.SIDE


def model(detector: Detector | None = None, share: float = 1.0) -> ScanModel:
    scan = tiny_scan.scan()
    return ScanModel(
        torch.from_numpy(scan.probe) * share**0.5, scan.positions_px, scan.object_shape, detector
    )


@cache
def of_truth() -> Fit:
    return fit(model(), tiny_scan.scan().counts, TRUTH, np.random.default_rng(1))


def test_the_truth_lies_on_every_floor() -> None:
    found = of_truth()
    assert found.photons == float(tiny_scan.scan().counts[:].sum())
    assert found.deviance == pytest.approx(found.deviance_floor, rel=0.01)
    assert found.r_factor == pytest.approx(found.r_floor, rel=0.01)
    assert found.chi_square == pytest.approx(1, abs=0.02)
    assert abs(found.divergence) < 1e-3
    assert np.median(found.by_frame) == pytest.approx(1, abs=0.05)
    assert found.by_pixel.mean() == pytest.approx(1, abs=0.1)


def test_its_figures_are_those_of_the_passes() -> None:
    scan, found = tiny_scan.scan(), of_truth()
    deviance = scan_deviance(model(), scan.counts, TRUTH, BACKGROUND_PHOTONS)
    assert found.deviance == pytest.approx(deviance, rel=1e-4)
    roots, expected = np.sqrt(scan.counts[:]), np.sqrt(model().expected(TRUTH, slice(0, len(scan))).numpy())
    assert found.r_factor == pytest.approx(np.abs(roots - expected).sum() / roots.sum(), rel=1e-5)
    dark = fit(model(), scan.counts, 0 * TRUTH, np.random.default_rng(1))
    assert (dark.r_factor, dark.r_floor, dark.chi_square) == (1, 0, 0)


def test_the_divergence_is_that_of_the_rates() -> None:
    """Of expected photons that are wrong by a factor: log(1 / factor) + factor - 1, for each true one."""
    found = fit(model(share=0.8), tiny_scan.scan().counts, TRUTH, np.random.default_rng(1))
    assert found.divergence == pytest.approx(np.log(1 / 0.8) - 0.2, rel=0.05)


def test_a_frame_and_a_pixel_that_are_wrong_stand_out() -> None:
    counts = np.array(tiny_scan.scan().counts[:])
    counts[7] *= 2
    counts[:, 3, 4] += 30
    found = fit(model(), counts, TRUTH, np.random.default_rng(1))
    assert int(found.by_frame.argmax()) == 7
    assert np.unravel_index(found.by_pixel.argmax(), found.by_pixel.shape) == (3, 4)
    mask = np.ones((SIDE, SIDE), bool)
    mask[3, 4] = False
    other = np.where(mask, counts, 1e6).astype(np.float32)
    blind, same = (
        fit(model(Detector(mask)), each, TRUTH, np.random.default_rng(1)) for each in (counts, other)
    )
    assert blind.r_factor == same.r_factor
    assert blind.by_pixel[3, 4] == 0
    assert blind.photons == counts.sum() - counts[:, 3, 4].sum()
    assert blind.chi_square < found.chi_square


def test_a_background_that_is_known_is_no_misfit() -> None:
    background = np.full((SIDE, SIDE), 0.5, np.float32)
    scan = tiny_scan.scan()
    dark = np.random.default_rng(5).poisson(0.5, scan.counts.shape).astype(np.float32)
    counts = scan.counts[:] + dark
    known, ignored = (
        fit(model(Detector(background=each)), counts, TRUTH, np.random.default_rng(1))
        for each in (background, None)
    )
    assert known.chi_square == pytest.approx(1, abs=0.02)
    assert ignored.chi_square > 1.5
    assert known.divergence < 1e-3 < ignored.divergence


def test_its_floor_is_drawn_from_a_seed() -> None:
    again = fit(model(), tiny_scan.scan().counts, TRUTH, np.random.default_rng(1))
    assert again.deviance_floor == of_truth().deviance_floor
    other = fit(model(), tiny_scan.scan().counts, TRUTH, np.random.default_rng(2))
    assert other.deviance_floor != of_truth().deviance_floor
    assert replace(other, deviance_floor=0.0).deviance == of_truth().deviance
