"""What the physics-informed arms hand to their bundles."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny_scan
from fly64_dose_overlap.networks.bundle import load_bundle
from fly64_dose_overlap.networks.corrector import INPUT_PLANES
from fly64_dose_overlap.training.physics_informed import PhysicsInformed, Refiner


@pytest.mark.parametrize("coarse_photons", [None, 10.0])
def test_a_bundle_gives_back_where_the_coarse_correction_fades(
    coarse_photons: float | None, tmp_path: Path
) -> None:
    config = tiny_scan.train_params(joint_coarse_photons=coarse_photons)
    arm = Refiner(config, tiny_scan.scan_dataset(), torch.device("cpu"))
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in arm.network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=draws)
    arm.save(tmp_path / "bundle", {})
    network, info = load_bundle(tmp_path / "bundle", "joint")
    assert info.coarse_photons == coarse_photons
    planes = torch.rand(1, INPUT_PLANES, 64, 64, generator=draws)
    with torch.no_grad():
        torch.testing.assert_close(network(planes), arm.network(planes))


def test_the_network_of_groups_corrects_coarse_detail_at_any_dose(tmp_path: Path) -> None:
    config = tiny_scan.train_params(joint_coarse_photons=10.0)
    PhysicsInformed(config, tiny_scan.scan_dataset(), torch.device("cpu")).save(tmp_path / "bundle", {})
    assert load_bundle(tmp_path / "bundle")[1].coarse_photons is None
