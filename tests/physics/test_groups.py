"""The forward model of groups of frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fly64_dose_overlap.physics.groups import GroupModel, group_geometry, support_side_px
from fly64_dose_overlap.physics.likelihood import amplitude_error, poisson_deviance
from fly64_dose_overlap.physics.propagation import centre

SIDE, SUPPORT, CANVAS = 16, 12, 32
CORNERS = np.random.default_rng(4).uniform(0, CANVAS - SIDE, (2, 3, 2))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=shape) + 1j * rng.normal(size=shape))


def model_of(support: int = SUPPORT) -> GroupModel:
    return GroupModel(draw(SIDE, SIDE, seed=9), CORNERS, support, CANVAS)


def bilinear(image: NDArray[np.complex128], corner: NDArray[np.float64], side: int) -> NDArray[np.complex128]:
    (y, x), (fy, fx) = np.floor(corner).astype(int), corner % 1
    cut = image[y : y + side + 1, x : x + side + 1]
    rows = (1 - fy) * cut[:-1] + fy * cut[1:]
    return (1 - fx) * rows[:, :-1] + fx * rows[:, 1:]


@pytest.mark.parametrize("support", [SUPPORT, SIDE])
def test_numpy_twin_agrees(support: int) -> None:
    objects, probe = draw(2, CANVAS, CANVAS).numpy(), draw(SIDE, SIDE, seed=9).numpy()
    expected = np.empty((2, 3, SIDE, SIDE))
    margin = (SIDE - support) // 2
    for group, frame in np.ndindex(2, 3):
        patch = np.ones((SIDE, SIDE), np.complex128)
        inside = slice(margin, margin + support)
        patch[inside, inside] = bilinear(objects[group], CORNERS[group, frame], support)
        wave = np.fft.ifftshift(probe * patch)
        expected[group, frame] = np.abs(np.fft.fftshift(np.fft.fft2(wave, norm="ortho"))) ** 2
    model = GroupModel(torch.from_numpy(probe), CORNERS, support, CANVAS)
    found = centre(model.expected(torch.from_numpy(objects)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * expected.max())


@pytest.mark.parametrize("support", [SUPPORT, SIDE])
def test_back_projection_is_the_adjoint_of_the_linear_part(support: int) -> None:
    model = model_of(support)
    canvases, fields = draw(2, CANVAS, CANVAS), draw(2, 3, SIDE, SIDE, seed=1)
    linear = model.far_field(canvases) - model.far_field(torch.zeros_like(canvases))
    forward = torch.vdot(fields.ravel(), linear.ravel()).real
    backward = torch.vdot(model.back_project(fields).ravel(), canvases.ravel()).real
    torch.testing.assert_close(forward, backward, rtol=1e-10, atol=0)


def test_a_global_phase_is_not_seen() -> None:
    model = model_of(SIDE)
    objects = draw(2, CANVAS, CANVAS)
    turned = model.expected(objects * np.exp(1.1j))
    torch.testing.assert_close(turned, model.expected(objects), rtol=1e-10, atol=1e-10)


def test_photons_are_those_of_the_exit_wave() -> None:
    model = model_of(SIDE)
    photons = model.expected(torch.ones(2, CANVAS, CANVAS, dtype=torch.complex128))
    each = draw(SIDE, SIDE, seed=9).abs().square().sum()
    torch.testing.assert_close(photons.sum(dim=(-2, -1)), each.expand(2, 3))


def test_the_far_field_of_an_empty_object_is_that_of_the_probe() -> None:
    model = model_of()
    field = model.far_field(torch.ones(2, CANVAS, CANVAS, dtype=torch.complex128))
    torch.testing.assert_close(model.empty_far_field().expand(2, 3, SIDE, SIDE), field, rtol=0, atol=1e-12)


def test_illumination_is_the_power_of_the_support_at_its_place() -> None:
    model = model_of()
    power = model.support.abs().square().sum() * 3
    torch.testing.assert_close(model.illumination.sum(dim=(-2, -1)), power.expand(2))


@pytest.mark.parametrize("loss", [poisson_deviance, amplitude_error])
def test_gradient_agrees_with_finite_differences(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    model = model_of()
    rng = np.random.default_rng(2)
    counts = torch.from_numpy(rng.poisson(3, (2, 3, SIDE, SIDE)).astype(np.float64))
    canvases = draw(2, CANVAS, CANVAS).requires_grad_()
    direction = draw(2, CANVAS, CANVAS, seed=5)
    gradient = torch.autograd.grad(loss(model.expected(canvases), counts), canvases)[0]
    slope = torch.vdot(gradient.ravel(), direction.ravel()).real
    step = 1e-6
    with torch.no_grad():
        ahead, behind = (loss(model.expected(canvases + sign * step * direction), counts) for sign in (1, -1))
    torch.testing.assert_close((ahead - behind) / (2 * step), slope, rtol=1e-6, atol=0)


# Geometry


def test_canvases_hold_all_patches_from_whole_origins() -> None:
    rng = np.random.default_rng(7)
    positions_px = rng.uniform(20, 60, (12, 2))
    groups = rng.permutation(12).reshape(4, 3)
    geometry = group_geometry(positions_px, groups, SUPPORT)
    assert geometry.origins_px.dtype == np.int64
    assert geometry.corners_px.dtype == np.float32
    assert geometry.canvas_side % 8 == 0
    assert geometry.corners_px.min() >= 0
    needed = geometry.corners_px.max() + SUPPORT
    assert needed <= geometry.canvas_side < needed + 9
    middles = geometry.origins_px[:, None] + geometry.corners_px + SUPPORT // 2
    np.testing.assert_allclose(middles, positions_px[groups], atol=1e-5)


def test_canvas_side_may_be_given() -> None:
    geometry = group_geometry(np.array([[20.0, 30.0]]), np.array([[0]]), SUPPORT, canvas_side=40)
    assert geometry.canvas_side == 40


@pytest.mark.parametrize("support", [SUPPORT, SIDE])
def test_the_object_at_the_position_lies_under_the_middle_of_the_patch(support: int) -> None:
    """A point at object[y, x] is seen by the probe's pixel [N/2, N/2] alone."""
    y, x = 33, 41
    obj = torch.zeros(64, 72, dtype=torch.complex128)
    obj[y, x] = 1
    geometry = group_geometry(np.array([[y, x], [y - 3, x + 2]], np.float64), np.array([[0, 1]]), support)
    (top, left), side = geometry.origins_px[0], geometry.canvas_side
    canvas = obj[top : top + side, left : left + side]
    probe = draw(SIDE, SIDE, seed=3)
    model = GroupModel(probe, geometry.corners_px, support, side)
    patches = model.patches(canvas[None])[0]
    middle, margin = SIDE // 2, (SIDE - support) // 2
    for patch, (row, column) in zip(patches, ((middle, middle), (middle + 3, middle - 2)), strict=True):
        expected = torch.zeros_like(patch)
        expected[row - margin, column - margin] = 1
        torch.testing.assert_close(patch, expected, rtol=0, atol=1e-12)
    assert model.support[middle - margin, middle - margin] == probe[middle, middle]


# Support


def test_support_is_the_smallest_square_with_the_power() -> None:
    probe = torch.zeros(32, 32, dtype=torch.complex64)
    probe[10:22, 10:22] = 1
    assert support_side_px(probe, 0.995) == 12
    assert support_side_px(probe, 64 / 144) == 8
    probe[0, 0] = 2
    assert support_side_px(probe, 0.995) == 32


def test_support_is_at_most_the_frame() -> None:
    assert support_side_px(torch.ones(10, 10, dtype=torch.complex64), 1.0) == 10
