"""Counts that are read in parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fly64_dose_overlap.arrays import spool
from fly64_dose_overlap.physics import counts as module
from fly64_dose_overlap.physics.counts import Counts, FrameCounts, Remainder, StoredCounts
from fly64_dose_overlap.physics.propagation import uncentre
from fly64_dose_overlap.physics.thinning import divide, thin

PHOTONS = np.random.default_rng(0).poisson(3.0, (20, 8, 8)).astype(np.float32)
INDICES = [slice(2, 9), slice(None), torch.tensor([4, 4, 0]), torch.tensor([[1, 19], [7, 2], [0, 0]])]


def on_disk(array: Any) -> Any:
    return spool(array.shape, array.dtype, [array])


@pytest.fixture(params=["memory", "disk"])
def frames(request: pytest.FixtureRequest) -> Any:
    amplitude = np.sqrt(PHOTONS)
    return on_disk(amplitude) if request.param == "disk" else amplitude


@pytest.mark.parametrize("index", INDICES)
def test_frames_are_whole_photons_with_the_zero_frequency_in_the_corner(frames: Any, index: Any) -> None:
    counts: Counts = FrameCounts(frames)
    assert (counts.shape, len(counts)) == ((20, 8, 8), 20)
    assert torch.equal(counts[index], uncentre(torch.from_numpy(PHOTONS))[index])


def test_a_tensor_is_counts() -> None:
    assert isinstance(torch.zeros(2, 3, 3), Counts)
    assert isinstance(StoredCounts(PHOTONS), Counts)


@pytest.mark.parametrize("index", INDICES)
def test_a_remainder_is_the_difference(index: Any) -> None:
    whole, part = torch.from_numpy(PHOTONS), torch.from_numpy(PHOTONS // 3)
    left: Counts = Remainder(whole, StoredCounts(on_disk(PHOTONS // 3)))
    assert (left.shape, len(left)) == ((20, 8, 8), 20)
    assert torch.equal(left[index], (whole - part)[index])


@pytest.mark.parametrize("frames_per_block", [1, 7, 20, 100])
def test_photons_divided_block_by_block_are_those_divided_at_once(
    frames: Any, frames_per_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRAMES_PER_BLOCK", frames_per_block)
    whole = FrameCounts(frames)
    seen, rest = divide(whole, 0.4, np.random.default_rng(5), spool)
    wanted = thin(whole[:], 0.4, np.random.default_rng(5))
    assert torch.equal(seen[:], wanted)
    assert torch.equal(rest[:], whole[:] - wanted)
