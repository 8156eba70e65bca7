"""The bound is what a converged maximum likelihood estimate reaches, no more and no less."""

from __future__ import annotations

from functools import cache
from itertools import islice

import numpy as np
import pytest

import factories
from fly64_dose_overlap.config import LimitParams
from fly64_dose_overlap.files.dataset import BaseSet
from fly64_dose_overlap.methods.posterior import Posterior
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.scores.align import align_to
from fly64_dose_overlap.scores.bound import find_limit
from fly64_dose_overlap.scores.limit import Limit
from fly64_dose_overlap.scores.region import scan_region
from fly64_dose_overlap.scores.scores import phase_and_error
from fly64_dose_overlap.study.base import make_synthetic_base
from fly64_dose_overlap.study.dose import Simulation, draw_counts
from fly64_dose_overlap.study.gauge import in_standard_gauge

ITERATIONS = 80
LIMIT = LimitParams(seed=1, vectors=4, iterations=600, tolerance=1e-3)


def scan_of(base: BaseSet, dose: int) -> Scan:
    brighter, _ = Simulation(base).with_dose(dose)
    counts = np.concatenate(list(draw_counts(brighter, seed=1, dose=dose))).astype(np.float32)
    rows, columns = base.obj.shape
    return Scan(counts, brighter.probe, base.positions_px, (rows, columns))


@cache
def base_set() -> BaseSet:
    """Return an object, a probe and 81 positions; do not change its arrays."""
    shape = {"frame_side_px": 32, "field_px": 64.0, "step_px": 8.0}
    return in_standard_gauge(make_synthetic_base(factories.study_params().base.model_copy(update=shape)))


@cache
def limit_of_the_scan() -> Limit:
    """Return the limit, which one computation gives for every dose."""
    return find_limit(scan_of(base_set(), 10_000), base_set().obj, 0.1, LIMIT, dose=10_000)


@pytest.mark.parametrize(("dose", "least", "most"), [(10_000, 0.7, 1.5), (1_000_000, 0.85, 1.2)])
def test_maximum_likelihood_attains_the_bound(dose: int, least: float, most: float) -> None:
    """At 190 photons per pixel the errors are not yet small enough for the bound to be exact."""
    base, limit = base_set(), limit_of_the_scan()
    scan = scan_of(base, dose)
    assert limit.converged
    assert limit.photons_per_pixel_at(dose) > 50

    found = list(islice(Posterior(background=0.01)(scan), ITERATIONS))[-1]
    region = scan_region(scan.illumination(), scan.positions_px, 0.1)
    aligned = align_to(base.obj, found.numpy(), region, upsampling=20).field
    error = phase_and_error(base.obj, aligned, region.mask)[1][region.mask]
    ratio = float(np.mean(error**2)) / limit.mean_squared_error("phase", dose)
    assert least < ratio < most
