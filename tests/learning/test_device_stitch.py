"""Stitching on a device: the results of the stitcher on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fly64_dose_overlap.learning import device_stitch
from fly64_dose_overlap.learning.device_stitch import DeviceStitcher
from fly64_dose_overlap.learning.stitch import Stitcher

SIDE = 12
SHAPE = (40, 44)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pixels_at_once", [device_stitch.PIXELS_AT_ONCE, 3 * SIDE**2])
def test_both_stitchers_give_the_same(
    device: str, pixels_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of canvases anywhere: over each other, over the edge, off the grid, and alone."""
    monkeypatch.setattr(device_stitch, "PIXELS_AT_ONCE", pixels_at_once)
    rng = np.random.default_rng(3)
    origins_px = np.concatenate([rng.integers(-6, 26, (60, 2)), [[60, 60], [30, 38]]])
    layers = rng.normal(size=(2, 62, SIDE, SIDE)) + 1j * rng.normal(size=(2, 62, SIDE, SIDE))
    weights = rng.uniform(0.2, 1, (62, SIDE, SIDE))
    on_disk = Stitcher(origins_px, SIDE, layers=2)
    on_device = DeviceStitcher(origins_px, SIDE, layers=2)
    for part in (slice(0, 40), slice(40, 62)):
        on_disk.add([*layers[:, part]], weights[part])
        moved = [torch.from_numpy(layer).to(device) for layer in layers[:, part]]
        on_device.add(moved, torch.from_numpy(weights[part]).to(device))
    expected, found = on_disk.merge(SHAPE), on_device.merge(SHAPE)
    assert np.any(expected == 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_canvases_that_are_missing_are_noticed() -> None:
    with pytest.raises(RuntimeError, match="0 of 2 canvases were added"):
        DeviceStitcher(np.zeros((2, 2), int), SIDE).merge(SHAPE)
