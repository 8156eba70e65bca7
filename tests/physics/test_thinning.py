"""Photons divided into independent sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fly64_dose_overlap.arrays import spool
from fly64_dose_overlap.physics import thinning
from fly64_dose_overlap.physics.thinning import divide, thin

PHOTONS = np.random.default_rng(0).poisson(3.0, (20, 8, 8)).astype(np.float32)


@pytest.fixture(params=["memory", "disk"])
def counts(request: pytest.FixtureRequest) -> Any:
    return spool(PHOTONS.shape, PHOTONS.dtype, [PHOTONS]) if request.param == "disk" else PHOTONS


@pytest.mark.parametrize("frames_per_block", [1, 7, 20, 100])
def test_photons_divided_block_by_block_are_those_divided_at_once(
    counts: Any, frames_per_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thinning, "FRAMES_PER_BLOCK", frames_per_block)
    first, second = divide(counts, 0.4, np.random.default_rng(5))
    wanted = thin(PHOTONS, 0.4, np.random.default_rng(5))
    np.testing.assert_array_equal(first[:], wanted)
    np.testing.assert_array_equal(second[:], PHOTONS - wanted)


def test_no_photon_is_lost_or_made() -> None:
    kept = thin(PHOTONS, 0.4, np.random.default_rng(5))
    assert kept.dtype == np.float32
    assert np.all((kept >= 0) & (kept <= PHOTONS) & (kept == np.rint(kept)))
    for fraction, expected in ((0.0, np.zeros_like(PHOTONS)), (1.0, PHOTONS)):
        np.testing.assert_array_equal(thin(PHOTONS, fraction, np.random.default_rng(5)), expected)
