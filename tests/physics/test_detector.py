"""Masks and backgrounds: in value, gradient, information and the start of groups."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import spool
from fly64_dose_overlap.physics.detector import Detector, Pixels
from fly64_dose_overlap.physics.fisher import FisherInformation
from fly64_dose_overlap.physics.groups import GroupModel
from fly64_dose_overlap.physics.likelihood import scan_deviance, scan_likelihood
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.physics.start import group_start

SHAPE, SIDE, FRAMES = (30, 33), 12, 80
RNG = np.random.default_rng
MASK = RNG(5).random((SIDE, SIDE)) > 0.2
MASKS = RNG(6).random((FRAMES, SIDE, SIDE)) > 0.2
BACKGROUND = RNG(7).uniform(0, 3, (SIDE, SIDE)).astype(np.float32)
DETECTORS = {
    "mask": Detector(MASK),
    "mask of each frame": Detector(MASKS),
    "mask on disk": Detector(spool(MASKS.shape, MASKS.dtype, [MASKS])),
    "background": Detector(background=BACKGROUND),
    "both": Detector(MASKS, BACKGROUND),
}
BACKGROUND_PHOTONS = 0.1


def complex_normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.view_as_complex(torch.from_numpy(RNG(seed).normal(size=(*shape, 2))))


def model_of(detector: Detector | None = None, dtype: torch.dtype = torch.complex128) -> ScanModel:
    positions = RNG(3).uniform(6, 24, (FRAMES, 2))
    probe = complex_normal(2, SIDE, SIDE, seed=1).to(dtype)
    return ScanModel(probe, positions, SHAPE, detector)


def obj(dtype: torch.dtype = torch.complex128, seed: int = 2) -> torch.Tensor:
    return complex_normal(*SHAPE, seed=seed).to(dtype)


def counts_of(model: ScanModel) -> NDArray[np.float32]:
    expected = torch.cat([model.expected(obj(seed=4), frames) for frames in model.batches()])
    return RNG(0).poisson(expected.numpy()).astype(np.float32)


def mask_of(detector: Detector) -> NDArray[np.bool_]:
    return np.broadcast_to(True if detector.mask is None else detector.mask[:], MASKS.shape)


def direct(model: ScanModel, counts: NDArray[np.float32], parts: torch.Tensor) -> Any:
    """Return the sum of rate - n log rate over the pixels that count, by the definition."""
    light = model_of().expected(torch.view_as_complex(parts), slice(0, FRAMES))
    dark = 0 if model.detector.background is None else torch.from_numpy(model.detector.background)
    rate, seen = light + dark + BACKGROUND_PHOTONS, torch.from_numpy(counts) + BACKGROUND_PHOTONS
    terms = rate - seen + seen * (seen / rate).log()
    return terms[torch.from_numpy(mask_of(model.detector).copy())].sum()


@pytest.mark.parametrize("name", DETECTORS)
def test_value_and_gradient_are_those_of_the_pixels_that_count(name: str) -> None:
    model = model_of(DETECTORS[name])
    counts = counts_of(model)
    parts = torch.view_as_real(obj()).requires_grad_()
    wanted = direct(model, counts, parts)
    (slope,) = torch.autograd.grad(wanted, parts)
    wanted = float(wanted.detach())
    for dtype, tolerance in ((torch.complex128, 1e-6), (torch.complex64, 2e-5)):
        again = model_of(model.detector, dtype)
        value, gradient = scan_likelihood(again, counts, obj(dtype), BACKGROUND_PHOTONS)
        assert value == pytest.approx(wanted, rel=tolerance)
        difference = torch.view_as_real(gradient).double() - slope
        assert float(difference.norm() / slope.norm()) < tolerance
        deviance = scan_deviance(again, counts, obj(dtype), BACKGROUND_PHOTONS)
        mean = 2 * wanted / np.count_nonzero(mask_of(model.detector))
        assert deviance == pytest.approx(mean, rel=tolerance)


def test_counts_of_blind_pixels_say_nothing() -> None:
    model = model_of(Detector(MASKS), torch.complex64)
    counts = counts_of(model)
    other = np.where(MASKS, counts, 1e6).astype(np.float32)
    found = [scan_likelihood(model, each, obj(torch.complex64)) for each in (counts, other)]
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("name", DETECTORS)
def test_information_is_that_of_the_dense_matrix(name: str) -> None:
    model, counting = model_of(DETECTORS[name]), torch.from_numpy(mask_of(DETECTORS[name]).copy())
    parts, change = torch.view_as_real(obj()).requires_grad_(), obj(seed=3)

    def light(obj: torch.Tensor) -> torch.Tensor:
        return model.expected(obj, slice(0, FRAMES))[counting]

    along = (light(obj() + change) - light(obj() - change)) / 2  # exact: counts are quadratic
    expected = light(torch.view_as_complex(parts))
    (wanted,) = torch.autograd.grad((expected * (along / expected.detach())).sum(), parts)
    for dtype, tolerance in ((torch.complex128, 1e-9), (torch.complex64, 2e-4)):
        again = model_of(model.detector, dtype)
        found = FisherInformation(again, obj(dtype)).product(change.to(dtype))
        assert float((torch.view_as_real(found) - wanted).norm() / wanted.norm()) < tolerance


def test_groups_start_from_the_pixels_that_count() -> None:
    probe = complex_normal(1, SIDE, SIDE, seed=1).to(torch.complex64)
    corners = RNG(1).integers(0, 4, (1, 9, 2))
    blind = torch.from_numpy(~MASKS[:9])[None]
    pixels = Pixels(blind, torch.from_numpy(BACKGROUND))
    model = GroupModel(probe.expand(1, 9, 1, SIDE, SIDE), corners, SIDE, 16, pixels)
    truth = 1 + 0.3 * complex_normal(1, 16, 16, seed=9).to(torch.complex64)
    counts = model.expected(truth)
    found = [group_start(model, torch.where(blind, gap, counts), 5)[1] for gap in (0.0, 99.0)]
    assert torch.equal(*found)
    plain = replace(pixels, blind=None)
    unheeded = GroupModel(probe.expand(1, 9, 1, SIDE, SIDE), corners, SIDE, 16, plain)
    ignorant = group_start(unheeded, torch.where(blind, 0.0, counts), 5)[1]
    lit = model.illumination > 0.2 * model.illumination.max()
    errors = [float((each - truth)[lit].norm()) for each in (found[0], ignorant)]
    assert errors[0] < errors[1]
