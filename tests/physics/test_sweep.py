"""Likelihood and Fisher information in compiled passes, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fly64_dose_overlap import parallel
from fly64_dose_overlap.arrays import spool
from fly64_dose_overlap.physics import model as model_module
from fly64_dose_overlap.physics.fisher import FisherInformation
from fly64_dose_overlap.physics.likelihood import BACKGROUND_PHOTONS, scan_deviance, scan_likelihood
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.physics.sweep import sweep

SHAPE = (60, 66)
FRAMES = 300
"""More than one batch in each of the fixed parts."""
MODES_AND_SIDES = pytest.mark.parametrize(("modes", "side"), [(1, 16), (3, 16), (2, 15)])


def complex_normal(*shape: int, seed: int) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(size=(*shape, 2))
    return torch.view_as_complex(torch.from_numpy(values))


def model_of(modes: int, side: int, dtype: torch.dtype = torch.complex64) -> ScanModel:
    positions = np.random.default_rng(3).uniform(8, 51, (FRAMES, 2))
    probe = 0.3 * complex_normal(modes, side, side, seed=1)
    return ScanModel(probe.to(dtype), positions, SHAPE)


def counts_of(model: ScanModel) -> NDArray[np.float32]:
    obj = complex_normal(*SHAPE, seed=4).to(model.probe.dtype)
    expected = torch.cat([model.expected(obj, frames) for frames in model.batches()])
    return np.random.default_rng(0).poisson(expected.numpy()).astype(np.float32)


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@MODES_AND_SIDES
@pytest.mark.parametrize("background", [BACKGROUND_PHOTONS, 2.0])
def test_value_and_gradient_are_those_of_the_plain_path(modes: int, side: int, background: float) -> None:
    model, obj = model_of(modes, side), complex_normal(*SHAPE, seed=2).to(torch.complex64)
    counts = counts_of(model)
    double = model_of(modes, side, torch.complex128)
    wanted, slope = scan_likelihood(double, counts, obj.to(torch.complex128), background)
    value, gradient = scan_likelihood(model, counts, obj, background)
    assert value == pytest.approx(wanted, rel=1e-6)
    assert gradient.dtype == torch.complex64
    assert relative_error(gradient, slope) < 1e-5
    deviance = scan_deviance(double, counts, obj.to(torch.complex128), background)
    assert scan_deviance(model, counts, obj, background) == pytest.approx(deviance, rel=1e-6)


def test_a_value_alone_is_that_beside_a_gradient() -> None:
    model, obj = model_of(2, 16), complex_normal(*SHAPE, seed=2).to(torch.complex64)
    counts = counts_of(model)
    alone, nothing = sweep(model, counts, obj, BACKGROUND_PHOTONS, gradient=False)
    assert nothing is None
    assert sweep(model, counts, obj, BACKGROUND_PHOTONS, gradient=True)[0] == alone


@pytest.mark.parametrize("kept", [True, False])
def test_one_thread_and_two_give_the_same_bytes(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kept:
        monkeypatch.setattr(model_module, "KEPT_PROBES_BYTES", 0)
    model, obj = model_of(2, 16), complex_normal(*SHAPE, seed=2).to(torch.complex64)
    counts, change = counts_of(model), complex_normal(*SHAPE, seed=5).to(torch.complex64)
    values: list[float] = []
    images: list[tuple[bytes, bytes]] = []
    for threads in (1, 2):
        monkeypatch.setattr(parallel, "available_threads", lambda threads=threads: threads)
        value, gradient = scan_likelihood(model, counts, obj)
        product = FisherInformation(model, obj).product(change)
        values.append(value)
        images.append((gradient.numpy().tobytes(), product.numpy().tobytes()))
    assert values[0] == values[1]
    assert images[0] == images[1]


def test_counts_on_disk_give_the_same_bytes() -> None:
    model, obj = model_of(1, 16), complex_normal(*SHAPE, seed=2).to(torch.complex64)
    counts = counts_of(model)
    value, gradient = scan_likelihood(model, counts, obj)
    found = scan_likelihood(model, spool(counts.shape, counts.dtype, [counts]), obj)
    assert found[0] == value
    assert torch.equal(found[1], gradient)


@MODES_AND_SIDES
def test_information_is_that_of_the_plain_path(modes: int, side: int) -> None:
    truth, change = complex_normal(*SHAPE, seed=4), complex_normal(*SHAPE, seed=5)
    wanted = FisherInformation(model_of(modes, side, torch.complex128), truth).product(change)
    single = FisherInformation(model_of(modes, side), truth.to(torch.complex64))
    found = single.product(change.to(torch.complex64))
    assert found.dtype == torch.complex64
    assert relative_error(found, wanted) < 1e-5


def test_a_dark_object_and_frames_without_photons_are_finite() -> None:
    model = model_of(2, 16)
    dark = torch.zeros(SHAPE, dtype=torch.complex64)
    value, gradient = scan_likelihood(model, np.zeros((FRAMES, 16, 16), np.float32), dark)
    assert value == 0
    assert not gradient.any()
    assert not FisherInformation(model, dark).product(torch.ones_like(dark)).any()


def test_an_object_that_is_not_finite_is_seen_in_the_value() -> None:
    model, obj = model_of(1, 16), torch.ones(SHAPE, dtype=torch.complex64)
    obj[30, 30] = torch.nan
    assert np.isnan(scan_likelihood(model, counts_of(model), obj)[0])


def test_fewer_frames_than_parts() -> None:
    probe = complex_normal(1, 8, 8, seed=1)
    positions = np.array([[8.3, 8.0], [9.0, 10.6]])
    obj, counts = complex_normal(20, 20, seed=2), np.ones((2, 8, 8), np.float32)
    wanted = scan_likelihood(ScanModel(probe, positions, (20, 20)), counts, obj)
    single = ScanModel(probe.to(torch.complex64), positions, (20, 20))
    found = scan_likelihood(single, counts, obj.to(torch.complex64))
    assert found[0] == pytest.approx(wanted[0], rel=1e-6)
    assert relative_error(found[1], wanted[1]) < 1e-5
