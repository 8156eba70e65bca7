"""The forward model of a whole scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tiny_scan
from fly64_dose_overlap.physics import model as module
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.physics.propagation import intensity
from fly64_dose_overlap.study.dose import Simulation

SHAPE = (20, 26)
ALL = slice(0, 5)
SIDES = pytest.mark.parametrize("side", [8, 7])


def complex_normal(*shape: int, seed: int) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(size=(*shape, 2))
    return torch.view_as_complex(torch.from_numpy(values))


def model_of(side: int = 8, **changes: Any) -> ScanModel:
    """Return five frames of two modes: two reach the object's far edge, two have whole positions."""
    positions = np.array([[4.0, 4.0], [6.3, 9.75], [16.0, 22.0], [15.2, 21.9], [7.5, 12.0]])
    settings: dict[str, Any] = {
        "probe": complex_normal(2, side, side, seed=1),
        "positions_px": positions,
        "object_shape": SHAPE,
    }
    return ScanModel(**{**settings, **changes})


def numpy_twin(
    probe: NDArray[np.complex128], positions_px: NDArray[np.float64], obj: NDArray[np.complex128]
) -> NDArray[np.float64]:
    """Return the expected photons of all frames, written anew and slowly."""
    side = probe.shape[-1]
    expected = np.zeros((len(positions_px), side, side))
    frequency = np.fft.fftfreq(side)
    for frame, position in enumerate(positions_px):
        whole = np.floor(position + 0.5).astype(int)
        top, left = whole - side // 2
        (dy, dx), window = position - whole, obj[top : top + side, left : left + side]
        ramp = np.exp(-2j * np.pi * (dy * frequency[:, None] + dx * frequency))
        for mode in probe:
            wave = np.fft.ifft2(np.fft.fft2(mode) * ramp) * window
            expected[frame] += np.abs(np.fft.fftshift(np.fft.fft2(wave, norm="ortho"))) ** 2
    return expected


@SIDES
def test_numpy_twin_agrees(side: int) -> None:
    model, obj = model_of(side), complex_normal(*SHAPE, seed=2)
    positions = np.array([[4.0, 4.0], [6.3, 9.75], [16.0, 22.0], [15.2, 21.9], [7.75, 12.0]])
    model = model_of(side, positions_px=positions)
    twin = numpy_twin(model.probe.numpy(), positions, obj.numpy())
    np.testing.assert_allclose(model.expected(obj, ALL).numpy(), twin, rtol=0, atol=1e-12 * twin.max())


@SIDES
def test_back_projection_is_the_adjoint_of_the_far_field(side: int) -> None:
    model = model_of(side)
    obj, far_field = complex_normal(*SHAPE, seed=2), complex_normal(5, 2, side, side, seed=3)
    onto = model.blank(torch.complex128)
    model.back_project(far_field, ALL, onto)
    forward = torch.vdot(far_field.ravel(), model.far_field(obj, ALL).ravel())
    backward = torch.vdot(onto.ravel(), obj.ravel())
    torch.testing.assert_close(forward, backward, rtol=1e-10, atol=0)


def test_back_projection_stays_within_reach_of_the_frames() -> None:
    model, far_field = model_of(), complex_normal(2, 2, 8, 8, seed=3)
    frames = slice(1, 3)
    rows, columns = model.reach(frames)
    whole = model.blank(torch.complex128)
    model.back_project(far_field, frames, whole)
    assert whole[rows, columns].any()
    whole[rows, columns] = 0
    assert not whole.any()


def test_patches_and_their_gradient_are_adjoint() -> None:
    model, obj = model_of(), complex_normal(*SHAPE, seed=2).requires_grad_()
    weights = complex_normal(5, 8, 8, seed=4)
    torch.vdot(weights.ravel(), model.patches(obj, ALL).ravel()).real.backward()
    onto = model.blank(weights.dtype)
    model.place(weights, ALL, onto)
    torch.testing.assert_close(obj.grad, onto)


@SIDES
def test_photons_are_those_of_the_exit_wave(side: int) -> None:
    """Parseval: the far field keeps the energy."""
    model, obj = model_of(side), complex_normal(*SHAPE, seed=2)
    leaving = intensity(model.exit_waves(obj, ALL)).sum(dim=(1, 2, 3))
    torch.testing.assert_close(model.expected(obj, ALL).sum(dim=(1, 2)), leaving, rtol=1e-12, atol=0)


@SIDES
def test_an_empty_object_lets_every_photon_of_the_probe_pass(side: int) -> None:
    model = model_of(side)
    photons = model.expected(torch.ones(SHAPE, dtype=torch.complex128), ALL).sum(dim=(1, 2))
    torch.testing.assert_close(photons, model.probe.abs().square().sum().expand(5), rtol=1e-12, atol=0)


def test_a_global_phase_is_not_seen() -> None:
    model, obj = model_of(), complex_normal(*SHAPE, seed=2)
    turned = model.expected(obj * np.exp(1.1j), ALL)
    torch.testing.assert_close(turned, model.expected(obj, ALL), rtol=1e-10, atol=1e-10)


def test_modes_add_up_incoherently() -> None:
    model = model_of()
    obj = complex_normal(*SHAPE, seed=2)
    single = [model_of(probe=model.probe[i : i + 1]).expected(obj, ALL) for i in range(2)]
    torch.testing.assert_close(model.expected(obj, ALL), single[0] + single[1])


@SIDES
def test_an_unscattered_plane_wave_meets_the_middle_of_the_frame(side: int) -> None:
    model = model_of(side, probe=torch.ones(1, side, side, dtype=torch.complex128))
    expected = model.expected(torch.ones(SHAPE, dtype=torch.complex128), ALL)
    wanted = torch.zeros_like(expected)
    wanted[:, side // 2, side // 2] = side**2
    torch.testing.assert_close(expected, wanted)


@SIDES
def test_the_object_at_the_position_lies_under_the_middle_of_the_patch(side: int) -> None:
    obj = torch.zeros(SHAPE, dtype=torch.complex128)
    obj[9, 11] = 1
    model = model_of(side, positions_px=np.array([[9.0, 11.0], [7.0, 12.0]]))
    patches = model.patches(obj, slice(0, 2))
    assert patches[0, side // 2, side // 2] == 1
    assert patches[1, side // 2 + 2, side // 2 - 1] == 1
    assert patches.sum() == 2


# A finely sampled oracle

FINE = 8
POSITIONS = np.array([[40.0, 44.0], [41.125, 43.75], [39.375, 45.5], [42.875, 40.25]])
"""Multiples of a fine pixel."""


def fine_probe(side: int, step: float) -> NDArray[np.complex128]:
    """Return two modes, limited in space and frequency, at every ``step`` of a pixel."""
    line = np.arange(round(side / step)) * step - side // 2
    y, x = line[:, None], line
    mode = np.exp(-(y**2 + x**2) / 50 + 0.02j * (y**2 + x**2) + 0.3j * y - 0.2j * x)
    return np.stack([mode, 0.1 * (y + 2j * x) * mode])


def fine_object(side: int) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Return an object without frequencies above half of Nyquist, and its interpolation."""
    spectrum = np.zeros((side, side), np.complex128)
    band = np.arange(-side // 4 + 1, side // 4)
    spectrum[np.ix_(band, band)] = complex_normal(len(band), len(band), seed=6).numpy()
    padded = np.zeros((FINE * side, FINE * side), np.complex128)
    padded[np.ix_(band, band)] = spectrum[np.ix_(band, band)] * FINE**2
    return np.fft.ifft2(spectrum), np.fft.ifft2(padded)


@pytest.mark.parametrize("side", [64, 63])
def test_frames_are_those_of_an_object_moved_on_a_grid_eight_times_finer(side: int) -> None:
    coarse, fine = fine_object(88)
    probe = fine_probe(side, 1 / FINE)
    model = ScanModel(torch.from_numpy(fine_probe(side, 1.0)), POSITIONS, coarse.shape)
    found = model.expected(torch.from_numpy(coarse), slice(0, len(POSITIONS))).numpy()
    middle = FINE * side // 2 - side // 2
    for (y, x), frame in zip((FINE * (POSITIONS - side // 2)).astype(int), found, strict=True):
        # A window that leaves the object comes in again on its other side, where no probe is.
        rows, columns = (np.arange(start, start + FINE * side) % len(fine) for start in (y, x))
        field = np.fft.fftshift(np.fft.fft2(probe * fine[np.ix_(rows, columns)]), axes=(1, 2))
        field = field[:, middle : middle + side, middle : middle + side] / (FINE**2 * side)
        expected = (np.abs(field) ** 2).sum(axis=0)
        np.testing.assert_allclose(frame, expected, rtol=0, atol=1e-7 * expected.max())


# Agreement


def test_expected_counts_are_those_of_the_simulation() -> None:
    base, scan = tiny_scan.base_set(), tiny_scan.scan()
    simulation = Simulation(base)
    obj = torch.from_numpy(base.obj)
    for frames in simulation.blocks():
        wanted = torch.from_numpy(simulation.expected(frames)).float()
        torch.testing.assert_close(scan.model.expected(obj, frames), wanted, rtol=1e-4, atol=1e-4)


def test_illumination_is_that_of_the_models_probes() -> None:
    scan = tiny_scan.scan()
    model, frames = scan.model, slice(0, len(scan))
    lit = model.blank(torch.float32)
    model.place(intensity(model.probes(frames)).sum(dim=1), frames, lit)
    np.testing.assert_allclose(scan.illumination(), lit.numpy(), rtol=1e-4, atol=1e-5 * float(lit.max()))


def test_probes_that_are_not_kept_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = model_of()
    monkeypatch.setattr(module, "KEPT_PROBES_BYTES", 0)
    made = model_of()
    for frames in (slice(1, 4), np.array([4, 0])):
        assert torch.equal(kept.probes(frames), made.probes(frames))


def test_batches_cover_a_part_in_order() -> None:
    model = model_of(positions_px=np.full((100, 2), 8.0))
    assert list(model.batches()) == [slice(0, 32), slice(32, 64), slice(64, 96), slice(96, 100)]
    assert list(model.batches(slice(30, 70))) == [slice(30, 62), slice(62, 70)]


def test_window_outside_the_object_is_refused() -> None:
    with pytest.raises(ValueError, match=r"8 px window lies outside the object \(20, 26\)"):
        model_of(positions_px=np.array([[17.1, 4.0]]))
