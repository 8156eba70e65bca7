"""Maximum likelihood and maximum a posteriori."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import tiny_scan
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.methods import posterior
from fly64_dose_overlap.methods.posterior import (
    BACKGROUNDS,
    SPREAD,
    Graduated,
    Posterior,
    distance_from_mean,
    total_variation,
    weight_of,
)
from fly64_dose_overlap.physics.likelihood import poisson_deviance, scan_deviance, scan_likelihood
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.scores.align import align_to
from fly64_dose_overlap.scores.region import scan_region
from fly64_dose_overlap.scores.scores import score

TRUTH = torch.from_numpy(tiny_scan.truth())


def last_of(solver: Posterior, scan: Scan, iterations: int) -> Tensor:
    return list(islice(solver(scan), iterations))[-1]


def complex_error(obj: Tensor, scan: Scan | None = None) -> float:
    scan, truth = scan or tiny_scan.scan(), tiny_scan.truth()
    region = scan_region(scan.illumination(), scan.positions_px, 0.1)
    aligned = align_to(truth, obj.numpy(), region, upsampling=10)
    return score(truth, aligned.field, region)["complex_nrmse"]


def double() -> tuple[ScanModel, NDArray[np.float32]]:
    """Return the model in double precision, and the counts."""
    scan = tiny_scan.scan()
    probe = torch.from_numpy(scan.probe).to(torch.complex128)
    return ScanModel(probe, scan.positions_px, scan.object_shape), scan.counts[:]


def perturbed(seed: int) -> Tensor:
    noise = np.random.default_rng(seed).normal(0, 0.1, (*TRUTH.shape, 2))
    return torch.view_as_complex(torch.from_numpy(noise))


def test_gradient_of_the_likelihood_is_its_slope() -> None:
    model, counts = double()
    obj, change = TRUTH + perturbed(1), perturbed(2)
    gradient = scan_likelihood(model, counts, obj)[1]
    # Steps long enough for rounding, and a formula of fourth order for them.
    step = 1e-3
    values = {k: scan_likelihood(model, counts, obj + k * step * change)[0] for k in (-2, -1, 1, 2)}
    slope = (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * step)
    assert float(torch.vdot(gradient.ravel(), change.ravel()).real) == pytest.approx(slope, rel=1e-7)


def test_deviance_of_a_scan_is_that_of_all_its_frames() -> None:
    model, counts = double()
    obj = TRUTH + perturbed(1)
    whole = poisson_deviance(model.expected(obj, slice(0, model.frames)), torch.from_numpy(counts))
    assert scan_deviance(model, counts, obj) == pytest.approx(float(whole), rel=1e-12)


@pytest.mark.parametrize("prior", [total_variation, distance_from_mean])
def test_gradient_of_the_prior_is_its_slope(prior: Callable[[Tensor], tuple[float, Tensor]]) -> None:
    obj, change = TRUTH + perturbed(1), perturbed(2)
    gradient = prior(obj)[1]
    step = 1e-6
    slope = (prior(obj + step * change)[0] - prior(obj - step * change)[0]) / (2 * step)
    assert float(torch.vdot(gradient.ravel(), change.ravel()).real) == pytest.approx(slope, rel=1e-6)


def test_total_variation_of_a_step_is_its_height_times_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posterior, "EDGE_CONTRAST", 1e-9)
    obj = torch.ones(6, 8, dtype=torch.complex128)
    obj[:, 4:] += 2j
    assert total_variation(obj)[0] == pytest.approx(12, rel=1e-6)
    assert total_variation(torch.ones(6, 8, dtype=torch.complex128))[0] == 0


def test_distance_from_the_mean_is_the_variance_over_that_of_the_prior() -> None:
    obj = TRUTH + perturbed(1)
    variance = float(torch.view_as_real(obj).var(dim=(0, 1), correction=0).sum())
    assert distance_from_mean(obj)[0] == pytest.approx(obj.numel() * variance / (2 * SPREAD**2))
    assert distance_from_mean(obj + 1j)[0] == pytest.approx(distance_from_mean(obj)[0])


@pytest.mark.parametrize(("modes", "iterations"), [(1, 150), (2, 75)])
def test_likelihood_finds_the_object_without_noise(modes: int, iterations: int) -> None:
    """Where float32 ends it; line searches of further iterations would find nothing, for long."""
    scan = tiny_scan.scan()
    if modes == 2:
        ramp = np.linspace(-1, 1, scan.side)[:, None]
        second = 0.5 * np.rot90(scan.probe[0]) * ramp
        scan = replace(scan, probe=np.stack([scan.probe[0], second]).astype(np.complex64))
    exact = torch.cat([scan.model.expected(TRUTH, frames) for frames in scan.model.batches()])
    found = last_of(Posterior(background=1e-7), replace(scan, counts=exact.numpy()), iterations)
    assert complex_error(found, scan) < 1e-4


def test_each_iteration_comes_nearer_to_the_minimum() -> None:
    scan = tiny_scan.scan()
    values = [scan_likelihood(scan.model, scan.counts, obj)[0] for obj in islice(Posterior()(scan), 12)]
    assert all(later < earlier for earlier, later in pairwise(values))


def test_prior_makes_a_noisy_object_smoother_and_better() -> None:
    fit = tiny_scan.scan().thin(0.1, np.random.default_rng(0))
    plain, smooth = (last_of(Posterior(weight=weight), fit, 40) for weight in (0.0, 3.0))
    assert total_variation(smooth)[0] < 0.7 * total_variation(plain)[0]
    assert complex_error(smooth) < complex_error(plain)


def test_it_goes_on_from_a_start() -> None:
    scan, start = tiny_scan.scan(), TRUTH.clone()
    first = last_of(Posterior(start=start), scan, 1)
    assert complex_error(first) < complex_error(last_of(Posterior(), scan, 1))
    assert torch.equal(start, TRUTH)


def test_graduated_goes_on_with_a_smaller_background_from_where_it_stands() -> None:
    scan, start = tiny_scan.scan(), None
    for (background, _), iterations in zip(BACKGROUNDS, (2, 2, 8), strict=True):
        start = last_of(Posterior(3.0, start, background), scan, iterations)
    found = list(islice(Graduated(3.0, 10)(scan), 12))
    assert start is not None
    assert torch.equal(found[-1], start)
    assert complex_error(found[-1]) < complex_error(found[1])


def test_same_scan_same_bytes() -> None:
    first, second = (last_of(Posterior(weight=1.0), tiny_scan.scan(), 5) for _ in range(2))
    assert torch.equal(first, second)


def test_counts_that_are_not_finite_end_it() -> None:
    counts = tiny_scan.scan().counts[:].copy()
    counts[3, 0, 0] = np.inf
    with pytest.raises(StudyError, match=r"^L-BFGS: what it minimises is (inf|nan) in iteration 1"):
        last_of(Posterior(), replace(tiny_scan.scan(), counts=counts), 1)


def test_weight_of_the_prior_grows_as_the_root_of_the_dose() -> None:
    scan = tiny_scan.scan()
    part = scan.thin(0.25, np.random.default_rng(0))
    assert weight_of(0.4, part) == pytest.approx(0.5 * weight_of(0.4, scan), rel=1e-5)
