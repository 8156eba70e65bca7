"""The unitary Fourier transform to the far field and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fly64_dose_overlap.physics.model import centring
from fly64_dose_overlap.physics.propagation import from_detector, intensity, to_detector


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=shape) + 1j * rng.normal(size=shape))


def test_energy_is_kept() -> None:
    wave = draw(3, 16, 16)
    photons = intensity(to_detector(wave)).sum(dim=(-2, -1))
    torch.testing.assert_close(photons, wave.abs().square().sum(dim=(-2, -1)), rtol=1e-12, atol=0)


def test_from_detector_is_inverse_and_adjoint() -> None:
    wave, field = draw(16, 16, seed=1), draw(16, 16, seed=2)
    torch.testing.assert_close(from_detector(to_detector(wave)), wave, rtol=1e-12, atol=1e-12)
    forward = torch.vdot(field.ravel(), to_detector(wave).ravel())
    backward = torch.vdot(from_detector(field).ravel(), wave.ravel())
    torch.testing.assert_close(forward, backward, rtol=1e-10, atol=0)


@pytest.mark.parametrize("width", [1, 5, 12])
def test_square_aperture_gives_a_squared_sinc(width: int) -> None:
    side = 32
    aperture = torch.zeros(side, side, dtype=torch.complex128)
    aperture[10 : 10 + width, 7 : 7 + width] = 1
    frequency = np.arange(side) - side // 2
    # The sinc of a sampled aperture: the Dirichlet kernel.
    numerator = np.sin(np.pi * frequency * width / side)
    denominator = np.sin(np.pi * frequency / side)
    ratio = np.divide(numerator, denominator, out=np.full(side, float(width)), where=frequency != 0)
    expected = np.outer(ratio**2, ratio**2) / side**2
    seen = intensity(to_detector(aperture * centring(side, aperture)))
    np.testing.assert_allclose(seen, expected, atol=1e-12)


def test_phase_and_shift_do_not_change_the_intensity() -> None:
    wave = draw(16, 16)
    seen = intensity(to_detector(wave))
    torch.testing.assert_close(intensity(to_detector(wave * np.exp(0.7j))), seen, rtol=1e-12, atol=1e-12)
    rolled = torch.roll(wave, (3, 5), dims=(-2, -1))
    torch.testing.assert_close(intensity(to_detector(rolled)), seen, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("side", [8, 7])
def test_centring_moves_the_zero_frequency_to_the_middle(side: int) -> None:
    wave = draw(2, side, side)
    field = to_detector(wave * centring(side, wave))
    turned = torch.fft.fftshift(to_detector(wave), dim=(-2, -1))
    torch.testing.assert_close(field, turned, rtol=1e-12, atol=1e-12)
