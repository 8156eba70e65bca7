"""Maximum a posteriori: the search for the weight of its prior, and what it gives."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

import tiny_scan
from fly64_dose_overlap.methods.held_out import Course, HeldOut
from fly64_dose_overlap.methods.map import FIRST_WEIGHT, MOST_WEIGHTS, best_between, search
from fly64_dose_overlap.methods.posterior import Graduated, weight_of
from fly64_dose_overlap.methods.state import State
from fly64_dose_overlap.physics.likelihood import scan_deviance

STOP = HeldOut(0.1, 3, seed=7)
EMPTY = State(torch.ones(2, 2, dtype=torch.complex64))


@pytest.mark.parametrize("optimum", [0.05, 0.4, 1.0, 3.3])
def test_search_brackets_the_optimum(optimum: float) -> None:
    tried: list[float] = []

    def attempt(weight: float) -> Course:
        tried.append(weight)
        return Course(1, (1 + np.log(weight / optimum) ** 2,), EMPTY)

    first = attempt(0.4)
    found = search(attempt, 0.4, first)
    assert found[0.4] is first
    assert sorted(found) == sorted(tried), "no weight is followed twice"
    deviances = {weight: course.deviances[-1] for weight, course in found.items()}
    assert best_between(deviances) == pytest.approx(optimum, rel=1e-6)
    assert len(found) <= 7


def test_a_search_without_an_end_stops() -> None:
    def attempt(weight: float) -> Course:
        return Course(1, (weight,), EMPTY)

    found = search(attempt, 1.0, attempt(1.0))
    assert len(found) == MOST_WEIGHTS
    assert best_between({weight: course.deviances[-1] for weight, course in found.items()}) == min(found)


def test_its_states_are_those_of_the_first_weight() -> None:
    scan = tiny_scan.scan()
    states = list(islice(tiny_scan.method("map", epochs=4).run(scan, 1), 5))
    objects = list(islice(Graduated(weight_of(FIRST_WEIGHT, scan), 4)(scan), 5))
    assert torch.equal(states[-1].obj, objects[-1])


def test_one_result_has_the_weight_that_held_out_photons_choose() -> None:
    scan = tiny_scan.scan()
    (found,) = tiny_scan.method("map", epochs=12).results(scan, STOP)
    assert (found.name, found.label, found.kind) == ("map", "MAP", "iterative")
    settings = found.settings
    assert (settings["epochs"], settings["further_epochs"]) == (12, 4)
    assert (settings["held_out_fraction"], settings["seed"]) == (0.1, 7)
    deviances = {float(key): value for key, value in settings["held_out_deviance_by_weight"].items()}
    assert FIRST_WEIGHT in deviances
    assert len(deviances) >= 3
    assert settings["relative_weight"] == pytest.approx(best_between(deviances), rel=1e-5)
    assert min(found.loss) == found.loss[settings["held_out_epoch"] - 1]
    empty = torch.ones(scan.object_shape, dtype=torch.complex64)
    deviance = scan_deviance(scan.model, scan.counts, found.state.obj)
    assert deviance < 0.5 * scan_deviance(scan.model, scan.counts, empty)
    assert found.timing.seconds > 0


def test_same_scan_same_bytes() -> None:
    (first,), (second,) = (tiny_scan.method("map", epochs=3).results(tiny_scan.scan(), STOP) for _ in "ab")
    assert torch.equal(first.state.obj, second.state.obj)
    assert (first.settings, first.loss) == (second.settings, second.loss)
