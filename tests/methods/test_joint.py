"""Probe and positions that are wrong are found with the object."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fly64_dose_overlap as fdo
from fly64_dose_overlap.errors import StudyError

SMALL: dict[str, Any] = {"seed": 1, "field_px": 80}
QUICK: dict[str, Any] = {"seed": 1, "field_px": 30, "frame_side_px": 32, "defocus_um": 200}
KNOWN: dict[str, Any] = {"probe": False, "position_px": None}


@cache
def case() -> tuple[fdo.Scan, NDArray[np.complex64]]:
    return fdo.simulate(1e4, **SMALL)


def defocused() -> NDArray[np.complex64]:
    """Return the probe as it would be 30 % further from the focus, with the power of the right one."""
    scan, other = case()[0], fdo.simulate(1e4, defocus_um=1.3 * 910, **SMALL)[0].probe
    gain = np.sqrt((np.abs(scan.probe) ** 2).sum() / (np.abs(other) ** 2).sum())
    return (gain * other).astype(np.complex64)


def phase_db(result: fdo.Result) -> float:
    """Return the score against the truth of the right scan."""
    found = fdo.score(replace(result, scan=case()[0]), case()[1]).phase_psnr_db
    assert found is not None
    return found


def test_with_nothing_to_find_probe_and_positions_stay() -> None:
    scan, truth = fdo.simulate(1e4, **QUICK)
    found = fdo.reconstruct(scan, "joint", epochs=60, **KNOWN)
    np.testing.assert_array_equal(found.probe, scan.probe)
    np.testing.assert_array_equal(found.positions_px, scan.positions_px)
    assert (
        fdo.score(found, truth).complex_nrmse
        < 1.2 * fdo.score(fdo.reconstruct(scan, "map"), truth).complex_nrmse
    )


@pytest.mark.slow
def test_a_defocused_probe_is_found() -> None:
    scan, _ = case()
    wrong = replace(scan, probe=defocused())
    found = fdo.reconstruct(wrong, "joint", position_px=None)
    known = phase_db(fdo.reconstruct(scan, "map"))
    assert phase_db(fdo.reconstruct(wrong, "map")) < known - 10
    assert phase_db(found) > known - 0.5
    power = (np.abs(found.probe) ** 2).sum(), (np.abs(scan.probe) ** 2).sum()
    assert power[0] == pytest.approx(power[1], rel=1e-4)


@pytest.mark.slow
def test_positions_that_are_wrong_are_found() -> None:
    scan, _ = case()
    error = np.random.default_rng(0).normal(size=scan.positions_px.shape)
    low, high = scan.positions_px.min(axis=0), scan.positions_px.max(axis=0)
    inner = ((scan.positions_px > low + 8) & (scan.positions_px < high - 8)).all(axis=1)
    wrong = replace(scan, positions_px=np.clip(scan.positions_px + error, low, high))
    found = fdo.reconstruct(wrong, "joint", probe=False)
    left = (found.positions_px - scan.positions_px)[inner]
    assert (left - left.mean(axis=0)).std() < 0.35
    assert phase_db(found) > phase_db(fdo.reconstruct(wrong, "map")) + 5
    np.testing.assert_array_equal(found.probe, scan.probe)


def test_modes_are_orthogonal_and_the_strongest_first() -> None:
    scan, _ = fdo.simulate(1e4, **QUICK)
    second = 0.3 * np.roll(scan.probe, 3, axis=1)
    two = replace(scan, probe=np.concatenate([second, scan.probe]).astype(np.complex64))
    found = fdo.reconstruct(two, "joint", epochs=20, position_px=None).probe
    powers = (np.abs(found) ** 2).sum(axis=(1, 2))
    assert powers[0] > powers[1]
    assert abs((found[0].conj() * found[1]).sum()) < 1e-3 * np.sqrt(powers.prod())


def test_held_out_photons_are_explained_by_what_was_found() -> None:
    """The epoch is chosen with the probe of that epoch, and not with the wrong one."""
    scan, _ = fdo.simulate(1e5, **QUICK)
    further: dict[str, Any] = {**QUICK, "defocus_um": 260}
    other = fdo.simulate(1e5, **further)[0].probe
    found = fdo.reconstruct(replace(scan, probe=other), "joint", epochs=60, position_px=None)
    assert found.loss[-1] < 0.7 * found.loss[0]
    assert found.others["joint_held_out"].settings["epochs"] > 30


def test_settings_out_of_range_are_refused() -> None:
    wrong: dict[str, Any]
    for wrong in ({"epochs": 0}, {"position_px": 0.0}, {"probe": 1}):
        with pytest.raises(StudyError, match=f"{next(iter(wrong))}: "):
            fdo.reconstruct(fdo.simulate(1e4, **QUICK)[0], "joint", **wrong)
