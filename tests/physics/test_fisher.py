"""Fisher information of the counts of a scan."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fly64_dose_overlap.physics.fisher import FisherInformation, information_of_waves
from fly64_dose_overlap.physics.model import ScanModel

SHAPE = (11, 12)
POSITIONS = np.array([[4.0, 4.0], [4.4, 6.75], [7.0, 8.0], [6.2, 7.9]])


def complex_normal(*shape: int, seed: int) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(size=(*shape, 2))
    return torch.view_as_complex(torch.from_numpy(values))


def model_of(modes: int, photons: float = 1.0) -> ScanModel:
    return ScanModel(photons**0.5 * complex_normal(modes, 8, 8, seed=1), POSITIONS, SHAPE)


def truth() -> torch.Tensor:
    return complex_normal(*SHAPE, seed=2)


def expected_counts(model: ScanModel, parts: torch.Tensor) -> torch.Tensor:
    return model.expected(torch.view_as_complex(parts), slice(0, model.frames))


def dot(first: torch.Tensor, second: torch.Tensor) -> float:
    return torch.vdot(first.ravel(), second.ravel()).real.item()


@pytest.mark.parametrize("modes", [1, 3])
@pytest.mark.parametrize("background", [0.0, 0.7])
def test_product_is_that_of_the_dense_matrix(modes: int, background: float) -> None:
    model, parts = model_of(modes), torch.view_as_real(truth())
    slopes = torch.autograd.functional.jacobian(lambda p: expected_counts(model, p), parts)
    slopes = slopes.reshape(-1, parts.numel())
    weights = 1 / (expected_counts(model, parts).ravel() + background)
    dense = slopes.T @ (weights[:, None] * slopes)
    change = complex_normal(*SHAPE, seed=3)
    found = FisherInformation(model, truth(), background=background).product(change)
    wanted = dense @ torch.view_as_real(change).ravel()
    torch.testing.assert_close(torch.view_as_real(found).ravel(), wanted, rtol=1e-9, atol=1e-9)


def test_one_mode_obeys_the_closed_formula() -> None:
    model, change = model_of(1), complex_normal(*SHAPE, seed=3)
    frames = slice(0, 4)
    field, far = model.far_field(change, frames), model.far_field(truth(), frames)
    onto = model.blank(torch.complex128)
    model.back_project(2 * (field + (far / far.abs()) ** 2 * field.conj()), frames, onto)
    found = FisherInformation(model, truth()).product(change)
    torch.testing.assert_close(found, onto, rtol=1e-9, atol=1e-9)


def test_it_is_symmetric_over_the_real_numbers() -> None:
    information = FisherInformation(model_of(2), truth())
    first, second = complex_normal(*SHAPE, seed=3), complex_normal(*SHAPE, seed=4)
    assert dot(first, information.product(second)) == pytest.approx(
        dot(information.product(first), second), rel=1e-10
    )


def test_information_about_a_change_is_its_effect_on_the_counts() -> None:
    model, change, step = model_of(2), complex_normal(*SHAPE, seed=3), 1e-6
    parts, along = torch.view_as_real(truth()), torch.view_as_real(change)
    ahead, behind = (expected_counts(model, parts + sign * step * along) for sign in (1, -1))
    slope = (ahead - behind) / (2 * step)
    wanted = (slope.square() / expected_counts(model, parts)).sum().item()
    found = dot(change, FisherInformation(model, truth()).product(change))
    assert found == pytest.approx(wanted, rel=1e-6)


def test_it_is_the_variance_of_the_score() -> None:
    """Holds for real draws: E[(d log likelihood)^2] is the information."""
    model, change = model_of(1, photons=20.0), complex_normal(*SHAPE, seed=3)
    parts, along = torch.view_as_real(truth()), torch.view_as_real(change)
    rate = expected_counts(model, parts)
    slope = (expected_counts(model, parts + along) - expected_counts(model, parts - along)) / 2
    counts = np.random.default_rng(5).poisson(rate.numpy(), (4000, *rate.shape))
    scores = ((counts / rate.numpy() - 1) * slope.numpy()).sum(axis=(1, 2, 3))
    found = dot(change, FisherInformation(model, truth()).product(change))
    assert scores.var() == pytest.approx(found, rel=0.1)


def test_no_change_of_the_object_has_negative_information() -> None:
    model = model_of(2)
    information = FisherInformation(model, truth())
    size = 2 * SHAPE[0] * SHAPE[1]
    basis = torch.eye(size, dtype=torch.float64).reshape(size, *SHAPE, 2)
    rows = [torch.view_as_real(information.product(torch.view_as_complex(b))).ravel() for b in basis]
    eigenvalues = torch.linalg.eigvalsh(torch.stack(rows))
    assert eigenvalues.min() > -1e-10 * eigenvalues.max()


def test_a_phase_common_to_the_object_changes_no_count() -> None:
    information = FisherInformation(model_of(2), truth())
    scale = information.product(truth()).abs().max()
    assert information.product(1j * truth()).abs().max() < 1e-12 * scale


def test_it_is_proportional_to_the_photons() -> None:
    change = complex_normal(*SHAPE, seed=3)
    one, many = (FisherInformation(model_of(2, photons), truth()).product(change) for photons in (1, 1e5))
    torch.testing.assert_close(many, 1e5 * one, rtol=1e-10, atol=0)


def test_dark_pixels_inform_of_nothing() -> None:
    dark = torch.zeros(SHAPE, dtype=torch.complex128)
    found = FisherInformation(model_of(1), dark).product(complex_normal(*SHAPE, seed=3))
    assert not found.any()


@pytest.mark.parametrize("modes", [1, 3])
@pytest.mark.parametrize("frequency", [0.03, 0.2])
def test_information_of_waves_is_that_of_an_empty_object(modes: int, frequency: float) -> None:
    model = ScanModel(complex_normal(modes, 8, 8, seed=1), np.array([[4.0, 4.0]]), (9, 9))
    fisher = FisherInformation(model, torch.ones(9, 9, dtype=torch.complex128))
    places = 2 * torch.pi * frequency * torch.arange(9, dtype=torch.float64)
    # Two waves a quarter of a period apart stand for the mean over all places of the crests.
    lines = [(places + shift).cos().to(torch.complex128) for shift in (0, torch.pi / 2)]
    waves = [wave.expand(9, 9).clone() for line in lines for wave in (line[:, None], line)]
    photons = float(model.probe.abs().square().sum())
    found = information_of_waves(model.probe, np.array([frequency]))[:, 0]
    for value, part in zip(found, (1, 1j), strict=True):
        expected = sum(dot(part * wave, fisher.product(part * wave)) for wave in waves) / 2
        assert 2 * photons * value == pytest.approx(expected, rel=1e-10)


def test_slow_phases_are_hardly_seen() -> None:
    found = information_of_waves(model_of(1).probe, np.array([1e-4, 2e-4]))
    assert found[0] == pytest.approx(2, rel=1e-3)
    assert found[1, 1] == pytest.approx(4 * found[1, 0], rel=1e-3)
