"""What is wrong with an instrument is named, one thing at a time."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import fly64_dose_overlap as fdo


@cache
def case() -> tuple[fdo.Scan, NDArray[np.complex64]]:
    return fdo.simulate(1e4, seed=1, field_px=60)


def measured(scan: fdo.Scan, truth: NDArray[np.complex64], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return counts of a scan as it really is."""
    model, obj = scan.model, torch.from_numpy(truth)
    expected = torch.cat([model.expected(obj, frames) for frames in model.batches()]).numpy()
    return rng.poisson(expected).astype(np.float32)


def lacking_modes(scan: fdo.Scan) -> tuple[fdo.Scan, fdo.Scan]:
    grid = np.arange(scan.side) - scan.side // 2
    others = [scan.probe[0] * grid, scan.probe[0] * grid[:, None]]
    power = (np.abs(scan.probe) ** 2).sum()
    modes = [scan.probe[0] * 0.7**0.5]
    modes += [each * np.sqrt(0.15 * power / (np.abs(each) ** 2).sum()) for each in others]
    return replace(scan, probe=np.stack(modes).astype(np.complex64)), scan


def out_of_focus(scan: fdo.Scan) -> tuple[fdo.Scan, fdo.Scan]:
    other = fdo.simulate(1e4, seed=1, field_px=20, defocus_um=1.3 * 910)[0].probe
    return scan, replace(scan, probe=other)


def drifting(scan: fdo.Scan) -> tuple[fdo.Scan, fdo.Scan]:
    drift = np.linspace(-0.5, 0.5, len(scan))[:, None] * [1, 1]
    inside = np.clip(scan.positions_px + drift, scan.side // 2, np.array(scan.object_shape) - scan.side // 2)
    return replace(scan, positions_px=inside), scan


def fading(scan: fdo.Scan) -> tuple[fdo.Scan, fdo.Scan]:
    return replace(scan, flux=np.linspace(1.05, 0.95, len(scan))), scan


FAULTS = {"modes": lacking_modes, "focus": out_of_focus, "positions": drifting, "flux": fading}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FAULTS))
def test_each_fault_is_named(name: str) -> None:
    scan, truth = case()
    real, told = FAULTS[name](scan)
    found = fdo.diagnose(replace(told, counts=measured(real, truth, np.random.default_rng(0))))
    assert found.fault == name
    assert "refine." in str(found)


@pytest.mark.slow
def test_a_dead_pixel_is_named() -> None:
    counts = case()[0].counts[:].copy()
    counts[:, 30, 33] = 0
    with pytest.warns(UserWarning, match="count no photon"):
        found = fdo.diagnose(replace(case()[0], counts=counts))
    assert found.fault == "dead pixels"
    assert found.dead.tolist() == [[30, 33]]
    assert str(found).endswith("base.mend.bad_pixels: [[30, 33]]")


@pytest.mark.slow
def test_of_a_scan_that_is_right_nothing_is_named() -> None:
    scan, _ = fdo.simulate(1e4, seed=1, field_px=30, frame_side_px=32, defocus_um=200)
    found = fdo.diagnose(scan)
    assert found.fault is None
    assert str(found) == "nothing is surely wrong with probe, positions, flux and pixels"
