"""Counts of a detector whose pixels share charge, made counts of photons."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import fly64_dose_overlap as fdo
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.study.dispersion import Dispersion, dispersion
from fly64_dose_overlap.study.whitening import noise_covariance, rounded, whitened

UNITS = 4.4
"""Of the detector, that a photon makes on average."""
NOISE_UNITS = (UNITS**2 + UNITS - 1) / UNITS
"""Mean square of the units of a photon over their mean: 1 and Poisson numbers."""


@cache
def photons(per_frame: float = 3000.0) -> fdo.Scan:
    """Return a scan with a disc of light: beside it, few photons."""
    like, truth = fdo.simulate(1e4, seed=1, object_kind="texture")
    radius = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(64)]))
    probe = np.fft.fftshift(np.fft.ifft2((radius < 0.17) * np.exp(600j * radius**2)))[None]
    probe = (probe * np.sqrt(per_frame / np.sum(np.abs(probe) ** 2))).astype(np.complex64)
    model = ScanModel(torch.from_numpy(probe), like.positions_px, like.object_shape)
    expected = model.expected(torch.from_numpy(truth), slice(0, len(like))).numpy()
    return replace(like, probe=probe, counts=np.random.default_rng(1).poisson(expected).astype(np.float32))


@cache
def detected() -> fdo.Scan:
    """Return what a detector makes of them: each unit lands near the photon, now more, now fewer."""
    rng = np.random.default_rng(0)
    counts = photons().counts[:].astype(int)
    places = np.repeat(np.argwhere(counts), counts[counts > 0], axis=0).astype(float)
    places[:, 1:] += rng.uniform(-0.5, 0.5, (len(places), 2))
    units = np.repeat(places, 1 + rng.poisson(UNITS - 1, len(places)), axis=0)
    units[:, 1:] += rng.normal(0, 0.5, (len(units), 2))
    frame, y, x = np.rint(units).astype(int).T
    inside = (y >= 0) & (y < 64) & (x >= 0) & (x < 64)
    found = np.zeros(counts.shape, np.float32)
    np.add.at(found, (frame[inside], y[inside], x[inside]), 1)
    return replace(photons(), counts=found)


def scatter(scan: fdo.Scan) -> Dispersion:
    found = dispersion(scan)
    assert found is not None
    return found


def shared_by_halves(scan: fdo.Scan) -> float:
    """Return the covariance of two halves of the photons over their mean, which noise adds nothing to."""
    one, other = (half.counts[:] for half in scan.divide(0.5, np.random.default_rng(5)))
    mean = scan.counts[:].mean(axis=0)
    product = ((one - one.mean(axis=0)) * (other - other.mean(axis=0))).mean(axis=0)
    return float(product[mean > 0.05].sum() / mean[mean > 0.05].sum())


def test_the_noise_of_photons_is_theirs_alone() -> None:
    found = noise_covariance(photons(), "mine.npz")
    assert found[2, 2] == pytest.approx(1, abs=0.1)
    found[2, 2] = 0
    assert np.abs(found).max() < 0.05


def test_the_units_of_a_photon_are_found() -> None:
    found = noise_covariance(detected(), "mine.npz")
    assert found.sum() == pytest.approx(NOISE_UNITS, rel=0.1)
    np.testing.assert_array_equal(found, found[::-1, ::-1])


def test_a_frame_is_not_compared_with_itself() -> None:
    twice = photons().frames(np.repeat(np.arange(0, len(photons()), 2), 2))
    counts = np.random.default_rng(3).poisson(twice.counts[:]).astype(np.float32)
    assert noise_covariance(replace(twice, counts=counts), "mine.npz")[2, 2] == pytest.approx(1, abs=0.15)


def test_whitened_counts_scatter_as_photons_do_and_their_halves_share_no_noise() -> None:
    """The table of docs/own-data.md."""
    found = whitened(detected(), "mine.npz")
    after, units = found.scan, found.units
    divided = replace(detected(), counts=np.rint(detected().counts[:] / units))
    table = Path("docs/own-data.md").read_text()
    for name, scan in (
        ("the photons themselves", photons()),
        ("units of the detector", detected()),
        ("divided by the units of a photon", divided),
        ("`base.noise: whiten`", after),
    ):
        found = scatter(scan)
        row = f"| {name} | {found.fano:.2f} | {found.neighbours:.2f} | {shared_by_halves(scan):.2f} |"
        assert row in table
        assert (found.doubt == "") == (scan in (photons(), after))
    # A photon that makes now more and now fewer units tells less than one.
    told = photons().photons_per_frame * UNITS / NOISE_UNITS
    assert after.photons_per_frame == pytest.approx(told, rel=0.1)


def test_pixels_that_do_not_count_say_nothing_and_stay_out() -> None:
    mask = np.ones((64, 64), bool)
    mask[20:24, 30:40] = False
    counts = np.where(mask, detected().counts[:], 5000)
    hot = whitened(replace(detected(), counts=counts, mask=mask), "mine.npz").scan
    plain = whitened(detected(), "mine.npz").scan
    assert not hot.counts[:][:, ~mask].any()
    assert hot.mask is not None
    np.testing.assert_array_equal(hot.mask, mask)
    away = [scan.counts[:][:, 40:].sum() for scan in (hot, plain)]
    assert away[0] == pytest.approx(away[1], rel=0.02)


def test_a_background_is_in_photons_afterwards() -> None:
    background = np.full((64, 64), UNITS, np.float32)
    found = whitened(replace(detected(), background=background), "mine.npz")
    scan, units = found.scan, found.units
    assert scan.background is not None
    np.testing.assert_allclose(scan.background, UNITS / units, rtol=1e-5)


def test_counts_of_photons_are_not_whitened() -> None:
    """An object that changes passes for noise, and much of the light would be lost."""
    for scan in (photons(), fdo.simulate(1e3, seed=1)[0], fdo.simulate(1e6, seed=1)[0]):
        with pytest.raises(
            StudyError, match=r"^mine.npz: counts scatter as photons do .*; state base.noise: c"
        ):
            whitened(scan, "mine.npz")


def test_noise_that_cannot_be_told_from_the_object_is_refused() -> None:
    scan = fdo.simulate(1e4, seed=1, field_px=64, step_px=8)[0]
    units = replace(scan, counts=4 * scan.counts[:])
    with pytest.raises(StudyError, match=r"^mine.npz: .*noise.* object; state base.noise: counts and base"):
        whitened(units, "mine.npz")
    same = replace(detected(), counts=np.repeat(detected().counts[:1], len(detected()), axis=0))
    for still in (same, detected().frames(np.zeros(1, int))):
        with pytest.raises(StudyError, match=r"has frames that do not change|too few to measure"):
            whitened(still, "mine.npz")
    dark = replace(scan, counts=np.zeros_like(scan.counts[:]))
    with pytest.raises(StudyError, match="has 0 lit pixels that count in every frame, too few to measure"):
        whitened(dark, "mine.npz")


def test_rounding_keeps_light_where_it_is() -> None:
    smooth = np.random.default_rng(1).gamma(2.0, 0.7, (20, 64, 64)).astype(np.float32)
    found = rounded(smooth)
    assert found.min() >= 0
    np.testing.assert_array_equal(found, np.rint(found))
    apart = (found - smooth).reshape(20, 8, 8, 8, 8).sum(axis=(2, 4))
    # Independent rounding would be 2.3 apart in 64 pixels.
    assert apart.std() < 1.2
    assert abs(apart.mean()) < 0.1
