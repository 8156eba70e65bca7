"""Losses between expected intensity and counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import spool
from fly64_dose_overlap.physics.likelihood import (
    BACKGROUND_PHOTONS,
    amplitude_error,
    poisson_deviance,
    scan_deviance,
    scan_likelihood,
)
from fly64_dose_overlap.physics.model import ScanModel


def counts_of(rate: float, size: int = 200) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).poisson(rate, (size, size)).astype(np.float64))


def test_losses_vanish_at_the_saturated_model() -> None:
    counts = counts_of(20, 10)
    assert float(poisson_deviance(counts, counts)) == pytest.approx(0, abs=1e-12)
    assert float(amplitude_error(counts, counts)) == 0
    assert float(poisson_deviance(counts + 1, counts)) > 0
    assert float(poisson_deviance(0.9 * counts, counts)) > 0


def test_deviance_is_that_of_counts_and_rate_with_a_background() -> None:
    counts, rate = torch.tensor([[0.0, 3.0]]).double(), torch.tensor([[0.7, 2.0]]).double()
    terms = [
        (r + 0.1) - (n + 0.1) + (n + 0.1) * np.log((n + 0.1) / (r + 0.1)) for r, n in ((0.7, 0), (2.0, 3))
    ]
    assert float(poisson_deviance(rate, counts)) == pytest.approx(sum(terms), rel=1e-7)


@pytest.mark.parametrize("background", [0.02, BACKGROUND_PHOTONS, 1.0])
@pytest.mark.parametrize("rate", [0.05, 1.0, 30.0, 1000.0])
def test_deviance_is_least_at_the_truth_whatever_the_background(rate: float, background: float) -> None:
    """Added to the expected photons alone, a background would favour a darker object."""
    counts = counts_of(rate)
    trials = {
        factor: float(poisson_deviance(torch.full_like(counts, rate * factor), counts, background))
        for factor in (0.8, 1.0, 1.25)
    }
    assert min(trials, key=lambda factor: trials[factor]) == 1.0
    if background == BACKGROUND_PHOTONS:
        assert 0.1 < trials[1.0] < 1.5
    if rate > 10:
        assert trials[1.0] == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("loss", [poisson_deviance, amplitude_error])
def test_pixels_without_photons_are_finite(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    expected = torch.zeros(4, 4, requires_grad=True)
    value = loss(expected, torch.zeros(4, 4))
    gradient = torch.autograd.grad(value, expected)[0]
    assert bool(torch.isfinite(value))
    assert bool(torch.isfinite(gradient).all())


def test_amplitude_error_is_the_mean_distance_of_amplitudes() -> None:
    expected, counts = torch.tensor([[8.9, 0.0]]), torch.tensor([[4.0, 0.0]])
    assert float(amplitude_error(expected, counts, 0.1)) == pytest.approx((9**0.5 - 4.1**0.5) / 2)


# Of a whole scan

SHAPE = (30, 34)
FRAMES = 40
"""More than fit into one batch."""


def complex_normal(*shape: int, seed: int) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(size=(*shape, 2))
    return torch.view_as_complex(torch.from_numpy(values))


def a_scan() -> tuple[ScanModel, torch.Tensor, NDArray[np.float32]]:
    """Return a model, an object, and counts of another one."""
    positions = np.random.default_rng(3).uniform(6, 24, (FRAMES, 2))
    model = ScanModel(complex_normal(2, 9, 9, seed=1), positions, SHAPE)
    counts = model.expected(complex_normal(*SHAPE, seed=4), slice(0, FRAMES)).numpy()
    return model, complex_normal(*SHAPE, seed=2), np.random.default_rng(0).poisson(counts).astype(np.float32)


def test_the_likelihood_of_a_scan_is_that_of_all_its_frames() -> None:
    model, obj, counts = a_scan()
    obj.requires_grad_()
    expected = model.expected(obj, slice(0, FRAMES))
    deviance = poisson_deviance(expected, torch.from_numpy(counts).double())
    half = deviance * counts.size / 2
    (wanted,) = torch.autograd.grad(half, obj)
    value, gradient = scan_likelihood(model, counts, obj.detach())
    # Counts and their background are in single precision.
    assert value == pytest.approx(half.item(), rel=1e-6)
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-5)
    assert scan_deviance(model, counts, obj.detach()) == pytest.approx(deviance.item(), rel=1e-6)


def test_its_gradient_agrees_with_finite_differences() -> None:
    model, obj, counts = a_scan()
    direction, step = complex_normal(*SHAPE, seed=5), 1e-5
    ahead, behind = (scan_likelihood(model, counts, obj + sign * step * direction)[0] for sign in (1, -1))
    slope = torch.vdot(scan_likelihood(model, counts, obj)[1].ravel(), direction.ravel()).real.item()
    assert (ahead - behind) / (2 * step) == pytest.approx(slope, rel=1e-6)


def test_counts_on_disk_are_as_good() -> None:
    model, obj, counts = a_scan()
    stored = spool(counts.shape, counts.dtype, [counts])
    assert scan_likelihood(model, stored, obj)[0] == scan_likelihood(model, counts, obj)[0]
    assert scan_deviance(model, stored, obj) == scan_deviance(model, counts, obj)
