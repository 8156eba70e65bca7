"""Counts of photons, and counts that are something else."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

import fly64_dose_overlap as fdo
from fly64_dose_overlap.study.dispersion import Dispersion, dispersion
from fly64_dose_overlap.study.dose import Simulation, draw_counts
from fly64_dose_overlap.study.gauge import in_standard_gauge
from fly64_dose_overlap.study.measured import scan_of
from fly64_dose_overlap.study.star_bench import make_star_bench


@cache
def case(photons: float = 1e4) -> fdo.Scan:
    return fdo.simulate(photons, seed=1)[0]


def found_in(scan: fdo.Scan, counts: NDArray[np.floating] | None = None) -> Dispersion:
    if counts is not None:
        scan = replace(scan, counts=counts.astype(np.float32))
    found = dispersion(scan)
    assert found is not None
    return found


def shared(scan: fdo.Scan) -> NDArray[np.float64]:
    """Return the counts of a detector that makes four units of a photon, some of them in neighbours."""
    rng = np.random.default_rng(1)
    photons = scan.counts[:].astype(np.int64)
    counts = 4 * photons
    for axis in (1, 2):
        for step in (1, -1):
            leaves = rng.binomial(photons, 0.2)
            counts = counts - leaves + np.roll(leaves, step, axis)
    return np.maximum(counts, 0).astype(float)


@pytest.mark.parametrize("photons", [1e2, 1e3, 1e4, 1e5, 1e6, 1e7])
def test_photons_are_not_doubted_at_any_dose(photons: float) -> None:
    assert found_in(case(photons)).doubt == ""


@pytest.mark.parametrize("view", ["sparse", "dense"])
@pytest.mark.parametrize("photons", [1e3, 1e4, 1e5])
def test_photons_of_a_strong_object_and_a_wide_probe_are_not_doubted(view: str, photons: float) -> None:
    """They have Fano factors up to 2.5, of which the object makes what is more than 1."""
    dosed, _ = Simulation(in_standard_gauge(make_star_bench(view, 1))).with_dose(photons)
    counts = np.concatenate(list(draw_counts(dosed, seed=1, dose=int(photons))))
    found = found_in(scan_of(replace(dosed, amplitude=np.sqrt(counts, dtype=np.float32))))
    assert found.doubt == ""
    assert found.tells
    assert found.fano == pytest.approx(1, abs=0.2)
    assert found.neighbours == pytest.approx(0, abs=0.2)


def test_photons_scatter_by_their_mean() -> None:
    found = found_in(case(1e3))
    assert found.fano == pytest.approx(0.95, abs=0.1)
    assert found.neighbours == pytest.approx(0, abs=0.05)
    assert found.light < 0.2


def test_units_of_a_detector_and_shared_charge_are_told() -> None:
    units = np.rint(case().counts[:] * 4.4)
    for counts, fano in ((units, 4.0), (shared(case()), 2.5)):
        found = found_in(case(), counts)
        assert found.fano == pytest.approx(fano, rel=0.2)
        assert "counts do not scatter as photons do: their Fano factor is" in found.doubt
    assert found_in(case(), shared(case())).neighbours > 2 * found_in(case(), units).neighbours


def test_frames_that_were_smoothed_share_their_noise() -> None:
    smoothed = case().counts[:].astype(float)
    for axis in (1, 2):
        smoothed = (smoothed + np.roll(smoothed, 1, axis) + np.roll(smoothed, -1, axis)) / 3
    assert "neighbours share 0." in found_in(case(), np.rint(2 * smoothed)).doubt


def test_frames_that_were_averaged_scatter_too_little() -> None:
    counts = case(1e5).counts[:].reshape(-1, 5, 64, 64).mean(axis=1)
    scan = case(1e5).frames(np.arange(0, 625, 5))
    assert "their Fano factor is 0.57 for 1" in found_in(scan, np.rint(counts)).doubt


def test_pixels_that_do_not_count_are_not_looked_at() -> None:
    counts = case().counts[:].copy()
    counts[:, 10:14] = 100 * np.random.default_rng(2).poisson(0.01, counts[:, 10:14].shape)
    mask = np.ones(counts.shape, bool)
    mask[:, 10:14] = False
    assert found_in(replace(case(), mask=mask), counts).fano == pytest.approx(0.95, abs=0.1)


def test_too_few_counts_tell_nothing() -> None:
    assert dispersion(fdo.simulate(10, seed=1, field_px=30, frame_side_px=32, defocus_um=200)[0]) is None
