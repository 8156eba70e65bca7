"""Bounds of a scan against the dense inverse of its information."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fly64_dose_overlap.config import LimitParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.physics.fisher import FisherInformation
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.scan import Scan, Unknown
from fly64_dose_overlap.scores.bound import DOSES, find_limit
from fly64_dose_overlap.scores.instrument import UnknownInstrument
from fly64_dose_overlap.scores.limit import PARTS, Limit
from fly64_dose_overlap.scores.region import scan_region
from fly64_dose_overlap.scores.traces import AlignedError, Traces
from fly64_dose_overlap.seeding import generator

THRESHOLD = 0.1
SIDE = 8


@cache
def truth() -> NDArray[np.complex64]:
    """Return a 20 x 19 object; do not change it."""
    rng = np.random.default_rng(1)
    rng.uniform(size=49 * 2)
    rng.normal(size=2 * SIDE**2)
    obj = rng.uniform(0.7, 1, (20, 19)) * np.exp(1j * rng.uniform(-0.5, 0.5, (20, 19)))
    return obj.astype(np.complex64)


@cache
def scan() -> Scan:
    """Return 49 frames of it, one photon each; do not change its arrays."""
    rng = np.random.default_rng(1)
    raster = np.stack(np.meshgrid(np.arange(7), np.arange(7), indexing="ij"), axis=-1).reshape(-1, 2)
    positions = 4.5 + raster * np.array([1.8, 1.6]) + rng.uniform(-0.4, 0.4, (49, 2))
    probe = rng.normal(size=(1, SIDE, SIDE)) + 1j * rng.normal(size=(1, SIDE, SIDE))
    return Scan(
        counts=np.zeros((49, SIDE, SIDE), np.float32),
        probe=(probe / np.linalg.norm(probe)).astype(np.complex64),
        positions_px=positions,
        object_shape=(20, 19),
    )


def bound(scan: Scan, obj: NDArray[np.complex64], **changes: Any) -> Limit:
    return find_limit(scan, obj, THRESHOLD, settings(**changes), dose=1)


def settings(**changes: Any) -> LimitParams:
    values: dict[str, Any] = {"seed": 3, "vectors": 1, "iterations": 300, "tolerance": 1e-4}
    return LimitParams(**{**values, **changes})


@cache
def limit() -> Limit:
    return bound(scan(), truth())


@cache
def quick_limit() -> Limit:
    return bound(scan(), truth(), iterations=10)


@cache
def information() -> np.ndarray[Any, Any]:
    """Return the dense information matrix of the real and imaginary parts, interleaved."""
    shape = scan().object_shape
    double = ScanModel(torch.from_numpy(scan().probe).to(torch.complex128), scan().positions_px, shape)
    model = FisherInformation(double, torch.from_numpy(truth()).to(torch.complex128))
    basis = torch.eye(2 * shape[0] * shape[1], dtype=torch.float64).reshape(-1, *shape, 2)
    rows = [torch.view_as_real(model.product(torch.view_as_complex(b))).numpy().ravel() for b in basis]
    return np.array(rows)


def errors_of_random_vector(covariance: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return what the run with this random vector estimates, from a dense covariance."""
    region = scan_region(scan().illumination(), scan().positions_px, THRESHOLD)
    box = region.rectangle
    inside = truth()[box].astype(np.complex128)
    traces, aligned = Traces(inside, region), AlignedError(inside, region.mask[box])
    vector = traces.draw(generator(3, "limit", 0))
    start = np.zeros(truth().shape, np.complex128)
    start[box] = aligned(vector)
    solved = (covariance @ start.ravel().view(np.float64)).view(np.complex128).reshape(start.shape)
    return traces.seen_by(vector)(aligned(solved[box]))


def parts(values: Mapping[Any, Any]) -> list[Any]:
    return [values[part] for part in PARTS]


def test_one_pixel_of_the_truth_at_or_near_zero_hardly_changes_the_bound() -> None:
    wanted = parts(limit().unbiased)
    for value in (0, 1e-4):
        obj = truth().copy()
        obj[10, 9] = value
        found = bound(scan(), obj)
        np.testing.assert_allclose(parts(found.unbiased), wanted, rtol=0.2)
        assert found.peak["phase"] == pytest.approx(limit().peak["phase"], rel=0.1)


def test_cramer_rao_bound_is_the_inverse_information() -> None:
    wanted = errors_of_random_vector(np.linalg.pinv(information(), rcond=1e-11, hermitian=True))
    np.testing.assert_allclose(parts(limit().unbiased), wanted[:3], rtol=0.01)
    np.testing.assert_allclose(
        limit().noise, np.maximum(wanted[3:], 0), rtol=0.02, atol=0.02 * wanted[3:].max()
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "unknown", [Unknown(probe=True), Unknown(positions_px=0.5), Unknown(flux=0.1), Unknown(True, 0.5, 0.1)]
)
def test_what_is_unknown_of_the_instrument_costs_what_a_dense_inverse_says(unknown: Unknown) -> None:
    """The object's block of the inverse of the whole information, whose gauges no alignment leaves."""
    blind = replace(scan(), unknown=unknown)
    instrument = UnknownInstrument(blind, truth())
    size = truth().size + instrument.size
    units = np.eye(2 * size).view(np.complex128).reshape(-1, size)
    dense = np.array([instrument.product(unit).view(np.float64) for unit in units])
    lit = np.diag(dense) > 1e-9 * np.diag(dense).max()
    scale = np.where(lit, 1 / np.sqrt(np.where(lit, np.diag(dense), 1)), 0)
    scaled = scale[:, None] * (dense + dense.T) / 2 * scale
    inverse = scale[:, None] * np.linalg.pinv(scaled, rcond=1e-6, hermitian=True) * scale
    objects = 2 * truth().size
    wanted = errors_of_random_vector(inverse[:objects, :objects])[:3]
    found = bound(blind, truth(), iterations=1500, tolerance=1e-6)
    np.testing.assert_allclose(parts(found.unbiased), wanted, rtol=0.03)
    assert found.unbiased["complex"] > limit().unbiased["complex"]


@pytest.mark.parametrize("index", [0, 4, 8, 12])
def test_van_trees_bound_adds_the_prior_precision(index: int) -> None:
    std = np.array([limit().prior["std_real"], limit().prior["std_imaginary"]])
    precision = np.diag(np.tile(std**-2, truth().size))
    wanted = errors_of_random_vector(np.linalg.inv(DOSES[index] * information() + precision))
    found = [values[index] for values in parts(limit().bayesian)]
    np.testing.assert_allclose(found, wanted[:3], rtol=2e-3)


def test_prior_is_the_contrast_of_the_truth() -> None:
    region = scan_region(scan().illumination(), scan().positions_px, THRESHOLD)
    inside = truth()[region.mask]
    assert limit().prior["std_real"] == pytest.approx(inside.real.std())
    assert limit().prior["std_imaginary"] == pytest.approx(inside.imag.std())
    assert limit().peak["amplitude"] == pytest.approx(np.ptp(abs(inside)))


def test_few_photons_leave_the_prior_and_many_the_unbiased_bound() -> None:
    few = limit().mean_squared_error("complex", DOSES[0], prior=True)
    inside = limit().prior["std_real"] ** 2 + limit().prior["std_imaginary"] ** 2
    power = np.mean(abs(truth()) ** 2)
    # At the least dose of the grid a pixel still gets about one photon, which tells a little.
    assert 0.75 * inside / power < few < inside / power
    for part in PARTS:
        priors = limit().bayesian[part] / (limit().unbiased[part] / np.array(DOSES))
        assert np.all(np.diff(priors) > 0)
        assert priors[-1] == pytest.approx(1, abs=0.03)


def test_bound_is_inverse_to_the_photons() -> None:
    brighter = bound(replace(scan(), probe=3 * scan().probe), truth(), iterations=10)
    dimmer = quick_limit()
    np.testing.assert_allclose(9 * np.array(parts(brighter.unbiased)), parts(dimmer.unbiased), rtol=1e-4)
    np.testing.assert_allclose(9 * np.array(brighter.noise), dimmer.noise, rtol=1e-3)
    assert brighter.kappa == pytest.approx(dimmer.kappa, rel=1e-4)
    assert brighter.photons_per_pixel == pytest.approx(9 * limit().photons_per_pixel)


def test_two_halves_of_a_probe_are_one_mode() -> None:
    halves = np.repeat(scan().probe, 2, axis=0) / np.float32(2**0.5)
    found = bound(replace(scan(), probe=halves), truth(), iterations=10)
    np.testing.assert_allclose(parts(found.unbiased), parts(quick_limit().unbiased), rtol=1e-4)


def test_running_out_of_iterations_is_recorded_and_still_a_bound() -> None:
    short = quick_limit()
    assert short.unbiased["complex"] < limit().unbiased["complex"]
    assert short.solver["unbiased"]["converged"] == [False]
    assert short.solver["unbiased"]["iterations"] == [10]
    assert limit().solver["unbiased"]["converged"] == [True]


def test_standard_error_needs_two_vectors() -> None:
    assert limit().solver["relative_standard_error"] == dict.fromkeys(PARTS)
    pair = bound(scan(), truth(), vectors=2, iterations=40, tolerance=0.01)
    assert all(0 < error < 1 for error in pair.solver["relative_standard_error"].values())


def test_the_seed_decides() -> None:
    assert bound(scan(), truth(), iterations=10) == quick_limit()
    other = bound(scan(), truth(), iterations=10, seed=4)
    assert other.unbiased["phase"] != quick_limit().unbiased["phase"]


def test_object_flat_in_one_part_is_not_known_there() -> None:
    found = bound(scan(), abs(truth()).astype(np.complex64), iterations=2)
    assert found.prior["std_imaginary"] == pytest.approx(0.1 * found.prior["std_real"], rel=0.01)
    assert found.psnr_db("phase", 1e4) is None


def test_constant_object_is_refused() -> None:
    with pytest.raises(StudyError, match="object: is constant over the scored region, so that no prior"):
        bound(scan(), np.ones_like(truth()))


def test_only_the_part_of_the_grid_that_the_scan_reaches_matters() -> None:
    wide = np.pad(truth(), ((30, 5), (11, 40)), constant_values=1)
    moved = replace(scan(), positions_px=scan().positions_px + np.array([30, 11]), object_shape=(55, 70))
    found, wanted = bound(moved, wide, iterations=10), quick_limit()
    assert replace(found, region=wanted.region) == wanted
    assert found.region["rows"] == [30 + row for row in wanted.region["rows"]]
    assert found.region["columns"] == [11 + column for column in wanted.region["columns"]]


def test_the_dose_is_that_which_was_counted_unless_it_is_given() -> None:
    seen = replace(scan(), counts=np.ones_like(scan().counts), probe=8 * scan().probe)
    found = find_limit(seen, truth(), THRESHOLD, settings(iterations=10))
    np.testing.assert_allclose(parts(found.unbiased), parts(quick_limit().unbiased), rtol=1e-5)


def test_a_background_costs_the_same_at_the_exposure_of_any_dose() -> None:
    """It is given in the photons of the scan, as the probe, and the bounds are those of one photon."""
    side = scan().side
    found: list[Limit] = []
    for photons in (100.0, 10_000.0):
        dark = np.full((side, side), 0.2 * photons / side**2, np.float32)
        counts = np.full_like(scan().counts, photons / side**2)
        probe = scan().probe * np.float32(photons**0.5)
        seen = replace(scan(), counts=counts, probe=probe, background=dark)
        found.append(find_limit(seen, truth(), THRESHOLD, settings(iterations=10)))
    np.testing.assert_allclose(parts(found[0].unbiased), parts(found[1].unbiased), rtol=1e-4)
    dearer = np.array(parts(found[0].unbiased)) / parts(quick_limit().unbiased)
    assert np.all((dearer > 1.05) & (dearer < 3))
