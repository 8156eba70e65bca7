"""What the physics-informed arms hand to their bundles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fly64_dose_overlap.learning.apply import load_imager
from fly64_dose_overlap.learning.physics_informed import PhysicsInformed, Refiner
from fly64_dose_overlap.methods.joint import JointStart
from fly64_dose_overlap.methods.problem import load_problem

import tiny_scan
from fly64_dose_overlap.learning.bundle import load_bundle
from fly64_dose_overlap.learning.corrector import correct_image, input_planes


@pytest.mark.parametrize("coarse_photons", [None, 10.0])
def test_coarse_correction_fades_in_images_as_in_training(
    coarse_photons: float | None, tmp_path: Path
) -> None:
    dataset = tiny_scan.scan_dataset()
    arm = Refiner(tiny_scan.train_params(joint_coarse_photons=coarse_photons), dataset, torch.device("cpu"))
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in arm.network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=draws)
    arm.save(tmp_path / "bundle", {})

    network, info = load_bundle(tmp_path / "bundle", "joint")
    assert info.coarse_photons == coarse_photons
    start = JointStart(info.start_iterations, info.start_weight)
    imager = load_imager(dataset, network, info, start, where=tmp_path, device="cpu")
    counts = load_problem(dataset).counts
    planes = input_planes(start(imager.scan, counts, fraction=1.0, label="start"))
    wanted = {each: correct_image(arm.network, planes, each) for each in (None, 10.0)}
    np.testing.assert_array_equal(imager.images(counts, 1.0)[0], wanted[coarse_photons])
    assert np.abs(wanted[None] - wanted[10.0]).max() > 1e-3

    other = Refiner(tiny_scan.train_params(), dataset, torch.device("cpu"))
    losses: list[float] = []
    for each in (arm, other):
        each.start_epoch(0)
        losses.append(each.loss(arm.network, np.random.default_rng(1)).item())
    assert (losses[0] == losses[1]) == (coarse_photons is None)


def test_the_network_of_groups_corrects_coarse_detail_at_any_dose(tmp_path: Path) -> None:
    config = tiny_scan.train_params(joint_coarse_photons=10.0)
    PhysicsInformed(config, tiny_scan.scan_dataset(), torch.device("cpu")).save(tmp_path / "bundle", {})
    assert load_bundle(tmp_path / "bundle")[1].coarse_photons is None
