"""The joint iterations that a network refines, and the coarse part of its correction."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_scan
from fly64_dose_overlap.arrays import FrameArray
from fly64_dose_overlap.learning.correction import CorrectionTask
from fly64_dose_overlap.learning.corrector import correct_image, input_planes
from fly64_dose_overlap.learning.estimate import Estimate, grouped_scan
from fly64_dose_overlap.methods.base import Learned, Training
from fly64_dose_overlap.methods.posterior import Graduated, weight_of
from fly64_dose_overlap.methods.refined import JointStart
from fly64_dose_overlap.seeding import generator

SCAN = tiny_scan.scan()
GROUPED = grouped_scan(SCAN, torch.device("cpu"))


def start(iterations: int, counts: FrameArray = SCAN.counts, fraction: float = 1.0) -> Estimate:
    return JointStart(iterations, 0.4)(GROUPED, counts, fraction=fraction, label="test")


def test_the_images_are_those_of_graduated_map() -> None:
    objects = [obj.numpy().copy() for obj in islice(Graduated(weight_of(0.4, SCAN), 10)(SCAN), 10)]
    found = start(10)
    np.testing.assert_array_equal(found.early, objects[3])
    np.testing.assert_array_equal(found.late, objects[9])
    np.testing.assert_array_equal(found.fluence, SCAN.illumination())


def test_a_part_of_the_photons_gives_about_the_same_object() -> None:
    half = SCAN.thin(0.5, generator(0, "test"))
    found, whole = start(20, half.counts, 0.5), start(20)
    lit = GROUPED.fluence > 0.3 * GROUPED.fluence.max()
    assert np.abs(found.late - whole.late)[lit].mean() < 0.3 * np.abs(whole.late - 1)[lit].mean()
    np.testing.assert_array_equal(found.fluence, 0.5 * GROUPED.fluence)


@pytest.mark.parametrize("iterations", [0, 1])
def test_few_iterations_have_both_images(iterations: int) -> None:
    found = start(iterations)
    np.testing.assert_array_equal(found.early, found.late)
    assert bool((found.late == 1).all()) == (iterations == 0)


def test_same_counts_same_bytes() -> None:
    assert start(4).late.tobytes() == start(4).late.tobytes()


@pytest.mark.parametrize("coarse_photons", [None, 10.0])
def test_coarse_correction_fades_in_images_as_in_training(
    coarse_photons: float | None, tmp_path: Path
) -> None:
    made = tiny_scan.method("refined", coarse_photons=coarse_photons)
    assert isinstance(made, Learned)
    joint = JointStart(made.settings.iterations, made.settings.weight)

    def task(coarse: float | None) -> Any:
        return CorrectionTask("refined", made.settings, SCAN, joint, Training(1, tmp_path / "unused"), coarse)

    own = task(coarse_photons)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in own.network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=draws)
    own.save(tmp_path / "bundle", {})
    made.load(tmp_path / "bundle")
    (state,) = made.run(SCAN, 1)
    planes = input_planes(joint(GROUPED, SCAN.counts, fraction=1.0, label="start"))
    wanted = {each: correct_image(own.network, planes, each) for each in (None, 10.0)}
    np.testing.assert_array_equal(state.obj.numpy(), wanted[coarse_photons])
    assert np.abs(wanted[None] - wanted[10.0]).max() > 1e-3

    losses: list[float] = []
    for each in (own, task(None)):
        each.start_epoch(0)
        losses.append(each.loss(own.network, np.random.default_rng(1)).item())
    assert (losses[0] == losses[1]) == (coarse_photons is None)


def test_the_setting_reaches_the_model(tmp_path: Path) -> None:

    made = tiny_scan.method("refined", epochs=1, steps_per_epoch=1, coarse_photons=7.0, weight=0.3)
    assert isinstance(made, Learned)
    made.train(SCAN, Training(1, tmp_path / "bundle"))
    made.load(tmp_path / "bundle")
    info = vars(made)["_info"]
    assert (info.coarse_photons, info.start) == (7.0, {"iterations": 5, "weight": 0.3})
