"""A method run on a scan: the grid that it sees, and what is kept of its results."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny_scan
from fly64_dose_overlap import provenance
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.methods.base import Method
from fly64_dose_overlap.methods.held_out import HeldOut
from fly64_dose_overlap.methods.run import run_method
from fly64_dose_overlap.methods.state import State
from fly64_dose_overlap.scan import Scan

STOP = HeldOut(seed=4)


class Refining(Method):
    """Stands in for a method that refines probe and positions too."""

    name = "refining"
    label = "Refining"
    kind = "iterative"

    def __init__(self, *, refines: bool = True, value: complex = 2j) -> None:
        super().__init__()
        self.seen: list[Scan] = []
        self._refines = refines
        self._value = value

    def run(self, scan: Scan, seed: int) -> Iterator[State]:
        assert torch.get_num_threads() == 1
        self.seen.append(scan)
        obj = torch.full(scan.object_shape, self._value, dtype=torch.complex64)
        if not self._refines:
            yield State(obj)
            return
        yield State(0 * obj)
        yield State(obj, torch.from_numpy(1j * scan.probe), scan.positions_px + 0.25)


class OfOneMode(Refining):
    """Stands in for a method that takes a single mode of a probe."""

    single_mode = True


def wide_scan() -> Scan:
    """Return the tiny scan on a grid with wide margins."""
    scan = tiny_scan.scan()
    return replace(scan, positions_px=scan.positions_px + np.array([7, 30]), object_shape=(120, 150))


def test_the_method_sees_what_the_scan_reaches_and_the_object_is_put_back() -> None:
    scan, method = wide_scan(), Refining(refines=False)
    ((found, timing),) = run_method(method, scan, STOP)
    (seen,) = method.seen
    reached, (rows, columns) = scan.cropped()
    assert seen.object_shape == reached.object_shape
    assert seen.object_shape[0] < 100
    np.testing.assert_array_equal(seen.positions_px, reached.positions_px)
    inside = np.zeros(scan.object_shape, bool)
    inside[rows, columns] = True
    assert np.all(found.obj[inside] == 2j)
    assert np.all(found.obj[~inside] == 1)
    assert found.obj.shape == scan.object_shape
    np.testing.assert_array_equal(found.positions_px, scan.positions_px)
    np.testing.assert_array_equal(found.probe, scan.probe)
    assert timing.seconds > 0


def test_refined_probe_and_positions_are_kept_on_the_grid_of_the_scan() -> None:
    scan = wide_scan()
    ((found, _),) = run_method(Refining(), scan, STOP)
    np.testing.assert_array_equal(found.probe, 1j * scan.probe)
    np.testing.assert_allclose(found.positions_px, scan.positions_px + 0.25, rtol=1e-12)
    assert np.abs(found.obj).min() > 0, "the last state counts"


def test_a_method_of_one_mode_is_given_the_strongest_and_says_what_it_ignores() -> None:
    one = tiny_scan.scan()
    weak = 0.5 * one.probe[:, ::-1]
    weak -= one.probe * np.vdot(one.probe, weak) / np.vdot(one.probe, one.probe)
    both = replace(one, probe=np.concatenate([one.probe, weak]).astype(np.complex64))
    power = np.sum(np.abs(both.probe) ** 2, axis=(1, 2))
    part = f"{power[1] / power.sum():.0%}"
    method = OfOneMode(refines=False)
    with pytest.warns(UserWarning, match=f"^Refining takes one mode of 2: {part} of the probe's power is ig"):
        ((found, _),) = run_method(method, both, STOP)
    (seen,) = method.seen
    assert seen.probe.shape == found.probe.shape == one.probe.shape
    np.testing.assert_allclose(np.sum(np.abs(seen.probe) ** 2), power.sum(), rtol=1e-5)
    np.testing.assert_allclose(
        seen.probe * (power[0] / power.sum()) ** 0.5, one.probe, atol=1e-4 * power[0] ** 0.5
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(run_method(OfOneMode(refines=False), one, STOP))
        list(run_method(Refining(refines=False), both, STOP))


def test_a_result_says_how_it_was_made() -> None:
    ((found, _),) = run_method(Refining(), wide_scan(), STOP)
    assert (found.method, found.label, found.kind) == ("refining", "Refining", "iterative")
    assert found.settings == {"seed": 4}
    assert provenance.steps(found.record)[-1] == "reconstruct"
    assert found.record["data_transformations"][-1]["operation"] == "Refining"
    assert found.record["data_transformations"][-1]["parameters"] == {"seed": 4}


def test_a_crop_changes_nothing_of_an_iteration() -> None:
    """But the last digits, since Fourier transforms are of other sizes only where there is a prior."""
    ((fixed, _), (_, _)) = run_method(tiny_scan.method("ml", epochs=4), wide_scan(), STOP)
    ((small, _), (_, _)) = run_method(tiny_scan.method("ml", epochs=4), tiny_scan.scan(), STOP)
    (_, inner), (_, outer) = tiny_scan.scan().cropped(), wide_scan().cropped()
    np.testing.assert_allclose(fixed.obj[outer], small.obj[inner], atol=1e-3)


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(run_method(Refining(), wide_scan(), STOP))
        assert torch.get_num_threads() == 2
        with pytest.raises(StudyError, match=r"^Refining: the object is not finite"):
            list(run_method(Refining(value=complex("nan")), wide_scan(), STOP))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
