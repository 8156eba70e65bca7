"""The joint iterations that a network refines."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from fly64_dose_overlap.learning.scan import Estimate, load_scan
from fly64_dose_overlap.methods.joint import JointStart
from fly64_dose_overlap.methods.problem import load_problem
from fly64_dose_overlap.physics.counts import Counts

import tiny_scan
from fly64_dose_overlap.methods.posterior import Graduated, weight_of
from fly64_dose_overlap.seeding import generator

SCAN = load_scan(tiny_scan.scan_dataset(), torch.device("cpu"))


def start(iterations: int, counts: Counts = SCAN.counts, fraction: float = 1.0) -> Estimate:
    return JointStart(iterations, 0.4)(SCAN, counts, fraction=fraction, label="test")


def test_the_images_are_those_of_graduated_map() -> None:
    problem = load_problem(tiny_scan.scan_dataset())
    solver = Graduated(weight_of(0.4, problem), 10)
    objects = [obj.numpy().copy() for obj in islice(solver(problem, 0), 10)]
    found = start(10)
    np.testing.assert_array_equal(found.early, objects[3])
    np.testing.assert_array_equal(found.late, objects[9])
    np.testing.assert_array_equal(found.fluence, SCAN.fluence)


def test_a_part_of_the_photons_gives_about_the_same_object() -> None:
    problem = load_problem(tiny_scan.scan_dataset())
    half, _ = problem.split_photons(0.5, generator(0, "test"))
    found, whole = start(20, half.counts, 0.5), start(20)
    lit = SCAN.fluence > 0.3 * SCAN.fluence.max()
    assert np.abs(found.late - whole.late)[lit].mean() < 0.3 * np.abs(whole.late - 1)[lit].mean()
    np.testing.assert_array_equal(found.fluence, 0.5 * SCAN.fluence)


@pytest.mark.parametrize("iterations", [0, 1])
def test_few_iterations_have_both_images(iterations: int) -> None:
    found = start(iterations)
    np.testing.assert_array_equal(found.early, found.late)
    assert bool((found.late == 1).all()) == (iterations == 0)


def test_same_counts_same_bytes() -> None:
    assert start(4).late.tobytes() == start(4).late.tobytes()
