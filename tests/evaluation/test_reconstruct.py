"""Reconstructions of a test half."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_scan
from fly64_dose_overlap.data.contract import Dataset
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.evaluation.reconstruct import FLAT, GROUP_START, NETWORK, Reconstructions, reconstruct
from fly64_dose_overlap.networks.bundle import BundleInfo
from fly64_dose_overlap.networks.corrector import Corrector, build_corrector

WHERE = Path("test.npz")
INFO = BundleInfo(4, 2, 32, 28, 2, 1e4, {}, {})


def trained() -> Corrector:
    network = build_corrector(4, seed=0)
    draws = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=draws)
    return network


def reconstructions(dataset: Dataset, **changes: Any) -> Reconstructions:
    return reconstruct(dataset, trained(), replace(INFO, **changes), where=WHERE, device="cpu")


def test_every_method_fills_the_grid_of_the_object() -> None:
    found = reconstructions(tiny_scan.scan_dataset())
    assert list(found) == [NETWORK, GROUP_START, FLAT]
    for image in found.values():
        assert image.shape == (100, 100)
        assert image.dtype == np.complex64
    assert np.all(found[FLAT] == 1)
    assert not np.array_equal(found[NETWORK], found[GROUP_START])


def test_the_truth_changes_no_byte() -> None:
    dataset = tiny_scan.scan_dataset()
    rng = np.random.default_rng(0)
    noise = (rng.normal(size=(100, 100)) + 1j * rng.normal(size=(100, 100))).astype(np.complex64)
    first, second = reconstructions(dataset), reconstructions(replace(dataset, obj=noise))
    for name, image in first.items():
        assert image.tobytes() == second[name].tobytes()


def test_geometry_and_iterations_are_those_of_the_bundle() -> None:
    dataset = tiny_scan.scan_dataset()
    first = reconstructions(dataset)[GROUP_START]
    assert not np.array_equal(first, reconstructions(dataset, support_side_px=24)[GROUP_START])
    assert np.all(reconstructions(dataset, start_iterations=0)[GROUP_START] == 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_side_px": 64}, r"^test\.npz: frames are 32 px wide, the network was trained on 64 px$"),
        (
            {"gridsize": 1},
            r"^test\.npz: holds groups of 4 frames, the network was trained on groups of 1; "
            r"train on this view: dvc repro train$",
        ),
    ],
)
def test_a_bundle_of_other_frames_or_groups_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        reconstructions(tiny_scan.scan_dataset(), **changes)


def test_a_dataset_without_groups_is_refused() -> None:
    with pytest.raises(StudyError, match="holds groups of 0 frames, the network was trained on groups of 4"):
        reconstructions(replace(tiny_scan.scan_dataset(), groups=None))
