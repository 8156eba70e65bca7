"""Stops that held-out photons decide."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
import torch

import tiny_scan
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.methods.held_out import (
    BACKGROUND_PHOTONS,
    HeldOut,
    follow,
    last_state,
    snapshots,
)
from fly64_dose_overlap.methods.posterior import Posterior
from fly64_dose_overlap.methods.state import State
from fly64_dose_overlap.physics.likelihood import scan_deviance
from fly64_dose_overlap.scan import Scan

TRUTH = torch.from_numpy(tiny_scan.truth())


def mixtures(*shares: float) -> Iterator[State]:
    """Yield the truth mixed with an empty object; a share of 1 is the truth."""
    for share in shares:
        yield State(1 + share * (TRUTH - 1))


def broken(epochs: int) -> Iterator[State]:
    """Yield objects that are not finite."""
    for _ in range(epochs):
        yield State(TRUTH * torch.nan)


def likelihood(scan: Scan) -> Iterator[State]:
    return map(State, Posterior()(scan))


def test_a_method_that_explains_nothing_is_named() -> None:
    with pytest.raises(StudyError, match=r"^ml, held-out: the deviance .* is nan after each of 2 epochs"):
        follow(broken(2), tiny_scan.scan(), epochs=2, patience=5, label="ml, held-out")


def test_an_object_that_is_not_finite_names_its_epoch() -> None:
    with pytest.raises(StudyError, match=r"^ml, epoch 3: the object is not finite; do probe"):
        snapshots(broken(3), {3}, label="ml")


def test_the_last_state_must_be_finite() -> None:
    with pytest.raises(StudyError, match=r"^a label: the object is not finite; do probe and counts belong"):
        last_state(broken(1), label="a label")
    state, timing = last_state(mixtures(0.5, 1.0), label="test")
    assert torch.equal(state.obj, next(mixtures(1.0)).obj)
    assert timing.seconds > 0


def test_photons_are_divided_and_none_is_lost() -> None:
    scan = tiny_scan.scan()
    fit, validation = HeldOut(0.1, 3, seed=7).split(scan)
    np.testing.assert_array_equal(fit.counts[:] + validation.counts[:], scan.counts)
    assert float(validation.counts[:].sum() / scan.counts[:].sum()) == pytest.approx(0.1, rel=0.01)
    powers = [float((np.abs(part.probe) ** 2).sum()) for part in (fit, validation, scan)]
    assert powers[0] / powers[2] == pytest.approx(0.9, rel=1e-5)
    assert powers[1] / powers[2] == pytest.approx(0.1, rel=1e-5)
    again = HeldOut(0.1, 9, seed=7).split(scan)[1]
    np.testing.assert_array_equal(again.counts[:], validation.counts[:])
    assert not np.array_equal(HeldOut(0.1, 3, seed=8).split(scan)[1].counts[:], validation.counts[:])


def test_too_few_photons_to_choose_by_are_refused() -> None:
    message = r"^held_out_fraction: 1e-12 of the photons are 0, at least 100 are needed; raise it"
    with pytest.raises(StudyError, match=message):
        HeldOut(1e-12, 3, seed=7).split(tiny_scan.scan())


def test_the_epoch_nearest_to_the_truth_is_found() -> None:
    validation = HeldOut(0.5, 9, seed=1).split(tiny_scan.scan())[1]
    course = follow(mixtures(0.0, 0.5, 1.0, 1.5, 2.0), validation, epochs=5, patience=9, label="test")
    assert course.epoch == 3
    assert torch.equal(course.last.obj, next(mixtures(2.0)).obj)
    assert len(course.deviances) == 5
    lowest = scan_deviance(validation.model, validation.counts, TRUTH, BACKGROUND_PHOTONS)
    assert min(course.deviances) == course.deviances[2] == lowest


def test_patience_ends_the_run() -> None:
    validation = HeldOut(0.5, 2, seed=1).split(tiny_scan.scan())[1]
    objects = mixtures(1.0, 1.5, 2.0, 2.5)
    course = follow(objects, validation, epochs=4, patience=2, label="test")
    assert (course.epoch, len(course.deviances)) == (1, 3)
    assert len(list(objects)) == 1


def test_fitting_noise_is_noticed() -> None:
    scan = tiny_scan.scan().thin(0.02, np.random.default_rng(0))
    fit, validation = HeldOut(0.2, 8, seed=1).split(scan)
    course = follow(likelihood(fit), validation, epochs=60, patience=8, label="test")
    assert course.epoch < 40
    last = list(islice(Posterior()(fit), 60))[-1]
    later = scan_deviance(validation.model, validation.counts, last, BACKGROUND_PHOTONS)
    assert later > min(course.deviances)


def test_an_object_too_smooth_is_not_preferred_to_the_truth() -> None:
    validation = HeldOut(0.1, 9, seed=1).split(tiny_scan.scan())[1]
    blurred = TRUTH.clone()
    blurred[1:-1, 1:-1] = (TRUTH[:-2, 1:-1] + TRUTH[2:, 1:-1] + TRUTH[1:-1, :-2] + TRUTH[1:-1, 2:]) / 4
    course = follow(map(State, [blurred, TRUTH]), validation, epochs=2, patience=9, label="test")
    assert course.epoch == 2


def test_snapshots_are_those_of_one_run() -> None:
    scan = tiny_scan.scan()
    kept = snapshots(likelihood(scan), {2, 5}, label="test")
    run = [obj.clone() for obj in islice(Posterior()(scan), 5)]
    assert sorted(kept) == [2, 5]
    assert torch.equal(kept[2].obj, run[1])
    assert torch.equal(kept[5].obj, run[4])
