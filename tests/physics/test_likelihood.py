"""Losses between expected intensity and counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from fly64_dose_overlap.physics.likelihood import BACKGROUND_PHOTONS, amplitude_error, poisson_deviance


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
