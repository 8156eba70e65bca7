"""Dead pixels: what a mask of them costs a method and the limit, and what is said without one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import fly64_dose_overlap as fdo

DEAD = 0.05


@pytest.mark.slow
def test_masked_dead_pixels_cost_no_more_than_the_limit_says_and_others_are_warned_of() -> None:
    scan, truth = fdo.simulate(1e4, seed=1)
    counting = np.random.default_rng(7).random((scan.side, scan.side)) > DEAD
    dead = replace(scan, counts=scan.counts[:] * counting)
    masked = replace(dead, mask=counting)
    errors, limits = [], []
    for each in (scan, masked):
        errors.append(fdo.score(fdo.reconstruct(each, "map"), truth).complex_nrmse)
        limits.append(fdo.limit(each, truth).nrmse(each.photons_per_frame))
    lost, least = errors[1] / errors[0], limits[1] / limits[0]
    assert 1 < lost < least < 1.05
    with pytest.warns(
        UserWarning, match=r"^157 detector pixels count no photon, .*: name them in base.mend.bad_pixels"
    ):
        ignored = fdo.score(fdo.reconstruct(dead, "map"), truth)
    assert ignored.complex_nrmse > 1.05 * errors[1]
