"""Bilinear patches and their adjoint."""

from __future__ import annotations

import numpy as np
import torch

from fly64_dose_overlap.physics.patches import PatchSampler, to_complex, to_planes


def corners(canvases: int = 2, frames: int = 3) -> torch.Tensor:
    """Return corners of which some patches hang over the canvas's edge."""
    return torch.from_numpy(np.random.default_rng(1).uniform(-2, 10, (canvases, frames, 2)))


def planes_of(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_planes_and_complex_are_the_same_image() -> None:
    planes = planes_of(3, 2, 5, 4)
    assert torch.equal(to_planes(to_complex(planes)), planes)
    assert torch.equal(to_complex(planes).imag, planes[:, 1])


def test_place_is_the_adjoint_of_extract() -> None:
    sampler = PatchSampler(corners(), 8, 16)
    canvases = planes_of(2, 2, 16, 16)
    patches = torch.view_as_complex(planes_of(2, 3, 8, 8, 2, seed=1))
    forward = torch.view_as_real(sampler.extract(canvases)).ravel() @ torch.view_as_real(patches).ravel()
    backward = canvases.ravel() @ sampler.place(patches).ravel()
    torch.testing.assert_close(forward, backward, rtol=1e-10, atol=0)


def test_real_patches_are_placed_like_complex_ones() -> None:
    sampler = PatchSampler(corners(), 8, 16)
    patches = planes_of(2, 3, 8, 8)
    placed = sampler.place(torch.complex(patches, torch.zeros_like(patches)))
    torch.testing.assert_close(sampler.place_real(patches), placed[:, 0], rtol=0, atol=1e-14)
    assert not placed[:, 1].any()


def test_whole_corners_cut_y_before_x() -> None:
    canvas = planes_of(1, 2, 16, 16)
    patch = PatchSampler(torch.tensor([[[2.0, 5.0]]], dtype=torch.float64), 8, 16).extract(canvas)
    torch.testing.assert_close(patch[0, 0], to_complex(canvas[0, :, 2:10, 5:13]), rtol=0, atol=1e-12)


def test_fractions_are_bilinear() -> None:
    y, x = torch.meshgrid(*[torch.arange(16, dtype=torch.float64)] * 2, indexing="ij")
    canvas = torch.stack((3 * y + x, x * y))[None]
    patch = PatchSampler(torch.tensor([[[2.25, 5.5]]], dtype=torch.float64), 8, 16).extract(canvas)[0, 0]
    y, x = y[:8, :8] + 2.25, x[:8, :8] + 5.5
    torch.testing.assert_close(patch, torch.complex(3 * y + x, x * y), rtol=1e-12, atol=1e-12)


def test_outside_the_canvas_there_is_nothing() -> None:
    sampler = PatchSampler(torch.tensor([[[-4.0, 12.0]]]), 8, 16)
    patch = sampler.extract(torch.ones(1, 2, 16, 16))[0, 0].real
    assert torch.all(patch[4:, :4] == 1)
    assert patch.sum() == 16
    torch.testing.assert_close(sampler.place_real(torch.ones(1, 1, 8, 8)).sum(), torch.tensor(16.0))
