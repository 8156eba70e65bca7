"""The forward model of groups of frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import tiny_scan
from fly64_dose_overlap.physics.groups import GroupModel, group_geometry, support_side_px
from fly64_dose_overlap.physics.likelihood import amplitude_error, poisson_deviance
from fly64_dose_overlap.physics.propagation import to_detector

SIDE, SUPPORT, CANVAS = 16, 12, 32
MODES = 2
CORNERS = np.random.default_rng(4).integers(0, CANVAS - SIDE, (2, 3, 2))
EMPTY = torch.ones(2, CANVAS, CANVAS, dtype=torch.complex128)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=shape) + 1j * rng.normal(size=shape))


def model_of(support: int = SUPPORT, side: int = SIDE) -> GroupModel:
    return GroupModel(draw(2, 3, MODES, side, side, seed=9), CORNERS, support, CANVAS)


@pytest.mark.parametrize(("side", "support"), [(SIDE, SUPPORT), (SIDE, SIDE), (15, SUPPORT), (15, 15)])
def test_numpy_twin_agrees(side: int, support: int) -> None:
    objects, probes = draw(2, CANVAS, CANVAS).numpy(), draw(2, 3, MODES, side, side, seed=9).numpy()
    expected = np.zeros((2, 3, side, side))
    margin = (side - support) // 2
    inside = slice(margin, margin + support)
    for group, frame, mode in np.ndindex(2, 3, MODES):
        top, left = CORNERS[group, frame]
        patch = np.ones((side, side), np.complex128)
        patch[inside, inside] = objects[group, top : top + support, left : left + support]
        field = np.fft.fft2(probes[group, frame, mode] * patch, norm="ortho")
        expected[group, frame] += np.abs(field) ** 2
    model = GroupModel(torch.from_numpy(probes), CORNERS, support, CANVAS)
    found = model.expected(torch.from_numpy(objects)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * expected.max())


def test_the_frames_of_a_scan_are_those_of_the_scans_model() -> None:
    scan = tiny_scan.scan()
    assert scan.groups is not None
    obj, some = torch.from_numpy(tiny_scan.truth()), slice(0, 5)
    geometry = group_geometry(scan.positions_px, scan.groups, scan.side)
    members = scan.groups[some]
    probes = scan.model.probes(members.ravel().astype(np.int64)).unflatten(0, members.shape)
    side = geometry.canvas_side
    wide = torch.nn.functional.pad(obj, (0, side, 0, side))
    canvases = torch.stack(
        [wide[top : top + side, left : left + side] for top, left in geometry.origins_px[some].tolist()]
    )
    model = GroupModel(probes, geometry.corners_px[some], scan.side, side)
    wanted = scan.model.expected(obj, slice(0, len(scan)))[torch.from_numpy(members)]
    torch.testing.assert_close(model.expected(canvases), wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("support", [SUPPORT, SIDE])
def test_back_projection_is_the_adjoint_of_the_linear_part(support: int) -> None:
    model = model_of(support)
    canvases, fields = draw(2, CANVAS, CANVAS), draw(2, 3, MODES, SIDE, SIDE, seed=1)
    linear = model.far_field(canvases) - model.far_field(torch.zeros_like(canvases))
    forward = torch.vdot(fields.ravel(), linear.ravel())
    backward = torch.vdot(model.back_project(fields).ravel(), canvases.ravel())
    torch.testing.assert_close(forward, backward, rtol=1e-10, atol=0)


def test_a_global_phase_is_not_seen() -> None:
    model = model_of(SIDE)
    objects = draw(2, CANVAS, CANVAS)
    turned = model.expected(objects * np.exp(1.1j))
    torch.testing.assert_close(turned, model.expected(objects), rtol=1e-10, atol=1e-10)


def test_photons_are_those_of_the_exit_wave() -> None:
    photons = model_of(SIDE).expected(EMPTY)
    each = draw(2, 3, MODES, SIDE, SIDE, seed=9).abs().square().sum(dim=(2, 3, 4))
    torch.testing.assert_close(photons.sum(dim=(-2, -1)), each)


def test_the_far_field_of_an_empty_object_is_that_of_the_probe() -> None:
    expected = to_detector(draw(2, 3, MODES, SIDE, SIDE, seed=9))
    torch.testing.assert_close(model_of().far_field(EMPTY), expected, rtol=0, atol=1e-12)


def test_illumination_is_the_power_of_the_support_at_its_place() -> None:
    model = model_of()
    expected = np.zeros((2, CANVAS, CANVAS))
    power = model.support.abs().square().sum(dim=2).numpy()
    for group, frame in np.ndindex(2, 3):
        top, left = CORNERS[group, frame]
        expected[group, top : top + SUPPORT, left : left + SUPPORT] += power[group, frame]
    np.testing.assert_allclose(model.illumination.numpy(), expected, rtol=1e-12)


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
    assert geometry.corners_px.dtype == np.int64
    assert geometry.canvas_side % 8 == 0
    assert geometry.corners_px.min() >= 0
    needed = geometry.corners_px.max() + SUPPORT
    assert needed <= geometry.canvas_side < needed + 9
    middles = geometry.origins_px[:, None] + geometry.corners_px + SUPPORT // 2
    np.testing.assert_array_equal(middles, np.rint(positions_px[groups]))


@pytest.mark.parametrize("support", [SUPPORT, SIDE])
def test_the_object_at_the_position_lies_under_the_middle_of_the_patch(support: int) -> None:
    """A point at object[y, x] is seen by the probe's pixel [N/2, N/2] alone."""
    y, x = 33, 41
    obj = torch.zeros(64, 72, dtype=torch.complex128)
    obj[y, x] = 1
    geometry = group_geometry(np.array([[y, x], [y - 3, x + 2]], np.float64), np.array([[0, 1]]), support)
    (top, left), side = geometry.origins_px[0], geometry.canvas_side
    canvas = obj[top : top + side, left : left + side]
    probes = draw(1, 2, 1, SIDE, SIDE, seed=3)
    model = GroupModel(probes, geometry.corners_px, support, side)
    patches = model.patches(canvas[None])[0]
    middle, margin = SIDE // 2, (SIDE - support) // 2
    for patch, (row, column) in zip(patches, ((middle, middle), (middle + 3, middle - 2)), strict=True):
        expected = torch.zeros_like(patch)
        expected[row - margin, column - margin] = 1
        torch.testing.assert_close(patch, expected, rtol=0, atol=1e-12)
    inside = (..., middle - margin, middle - margin)
    assert torch.equal(model.support[inside], probes[..., middle, middle])


# Support


def test_support_is_the_smallest_square_with_the_power_of_all_modes() -> None:
    probe = np.zeros((2, 32, 32), np.complex64)
    probe[0, 10:22, 10:22] = 1
    assert support_side_px(probe, 0.995) == 12
    assert support_side_px(probe, 64 / 144) == 8
    probe[1, 0, 0] = 2
    assert support_side_px(probe, 0.995) == 32


def test_support_is_at_most_the_frame() -> None:
    assert support_side_px(np.ones((1, 10, 10), np.complex64), 1.0) == 10
