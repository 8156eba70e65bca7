"""Stops that held-out photons decide."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
import torch
from fly64_dose_overlap.methods.methods import best_between, search
from fly64_dose_overlap.methods.problem import Problem, load_problem
from torch import Tensor

import tiny_scan
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.methods.held_out import (
    BACKGROUND_PHOTONS,
    Course,
    HeldOut,
    follow,
    snapshots,
)
from fly64_dose_overlap.methods.posterior import Posterior, weight_of
from fly64_dose_overlap.physics.likelihood import scan_deviance

TRUTH = torch.from_numpy(tiny_scan.scan_dataset().obj)


def problem() -> Problem:
    return load_problem(tiny_scan.scan_dataset())


def mixtures(*shares: float) -> Iterator[Tensor]:
    """Yield the truth mixed with an empty object; a share of 1 is the truth."""
    for share in shares:
        yield 1 + share * (TRUTH - 1)


def broken(epochs: int) -> Iterator[Tensor]:
    """Yield objects that are not finite."""
    for _ in range(epochs):
        yield TRUTH * torch.nan


def test_a_method_that_explains_nothing_is_named() -> None:
    with pytest.raises(StudyError, match=r"^ml, held-out: the deviance .* is nan after each of 2 epochs"):
        follow(broken(2), problem(), epochs=2, patience=5, label="ml, held-out")


def test_an_object_that_is_not_finite_names_its_epoch() -> None:
    with pytest.raises(StudyError, match=r"^ml: the object is not finite after epoch 3$"):
        snapshots(lambda problem, seed: broken(3), problem(), 1, {3}, label="ml")


def test_photons_are_divided_and_none_is_lost() -> None:
    posed = problem()
    fit, validation = HeldOut(0.1, 3, seed=7).split(posed)
    assert torch.equal(fit.counts[:] + validation.counts[:], posed.counts[:])
    assert float(validation.counts[:].sum() / posed.counts[:].sum()) == pytest.approx(0.1, rel=0.01)
    powers = [float(part.probe.abs().square().sum()) for part in (fit, validation, posed)]
    assert powers[0] / powers[2] == pytest.approx(0.9, rel=1e-5)
    assert powers[1] / powers[2] == pytest.approx(0.1, rel=1e-5)
    again = HeldOut(0.1, 9, seed=7).split(posed)[1]
    assert torch.equal(again.counts[:], validation.counts[:])
    assert not torch.equal(HeldOut(0.1, 3, seed=8).split(posed)[1].counts[:], validation.counts[:])


def test_the_epoch_nearest_to_the_truth_is_found() -> None:
    validation = HeldOut(0.5, 9, seed=1).split(problem())[1]
    course = follow(mixtures(0.0, 0.5, 1.0, 1.5, 2.0), validation, epochs=5, patience=9, label="test")
    assert course.epoch == 3
    assert torch.equal(course.last, next(mixtures(2.0)))
    assert len(course.deviances) == 5
    lowest = scan_deviance(validation.model(), validation.counts, TRUTH, BACKGROUND_PHOTONS)
    assert min(course.deviances) == course.deviances[2] == lowest


def test_patience_ends_the_run() -> None:
    validation = HeldOut(0.5, 2, seed=1).split(problem())[1]
    objects = mixtures(1.0, 1.5, 2.0, 2.5)
    course = follow(objects, validation, epochs=4, patience=2, label="test")
    assert (course.epoch, len(course.deviances)) == (1, 3)
    assert len(list(objects)) == 1


def test_fitting_noise_is_noticed() -> None:
    posed = problem().split_photons(0.02, np.random.default_rng(0))[0]
    held = HeldOut(0.2, 8, seed=1)
    fit, validation = held.split(posed)
    course = follow(Posterior()(fit, 0), validation, epochs=60, patience=8, label="test")
    assert course.epoch < 40
    last = list(islice(Posterior()(fit, 0), 60))[-1]
    later = scan_deviance(validation.model(), validation.counts, last, BACKGROUND_PHOTONS)
    assert later > min(course.deviances)


def test_an_object_too_smooth_is_not_preferred_to_the_truth() -> None:
    validation = HeldOut(0.1, 9, seed=1).split(problem())[1]
    blurred = TRUTH.clone()
    blurred[1:-1, 1:-1] = (TRUTH[:-2, 1:-1] + TRUTH[2:, 1:-1] + TRUTH[1:-1, :-2] + TRUTH[1:-1, 2:]) / 4
    course = follow(iter([blurred, TRUTH]), validation, epochs=2, patience=9, label="test")
    assert course.epoch == 2


def test_snapshots_are_those_of_one_run() -> None:
    posed = problem()
    kept = snapshots(Posterior(), posed, 0, {2, 5}, label="test")
    run = [obj.clone() for obj in islice(Posterior()(posed, 0), 5)]
    assert sorted(kept) == [2, 5]
    assert torch.equal(kept[2], run[1])
    assert torch.equal(kept[5], run[4])


@pytest.mark.parametrize("optimum", [0.05, 0.4, 1.0, 3.3])
def test_search_brackets_the_optimum(optimum: float) -> None:
    def attempt(weight: float) -> Course:
        deviance = 1 + np.log(weight / optimum) ** 2
        return Course(1, (deviance,), TRUTH)

    found = search(attempt, 0.4)
    deviances = {weight: course.deviances[-1] for weight, course in found.items()}
    assert best_between(deviances) == pytest.approx(optimum, rel=1e-6)
    assert len(found) <= 7


def test_weight_of_the_prior_grows_as_the_root_of_the_dose() -> None:
    posed = problem()
    part = posed.split_photons(0.25, np.random.default_rng(0))[0]
    assert weight_of(0.4, part) == pytest.approx(0.5 * weight_of(0.4, posed), rel=1e-5)
