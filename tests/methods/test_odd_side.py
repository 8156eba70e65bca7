"""Frames of an odd side, which a detector may well have: every method works on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tiny_scan
from fly64_dose_overlap.methods.base import Learned, Training
from fly64_dose_overlap.methods.held_out import HeldOut
from fly64_dose_overlap.methods.registry import method_names
from fly64_dose_overlap.methods.run import run_method

SCAN = tiny_scan.scan_of_side(31).frames(np.arange(81).reshape(9, 9)[:6, :6].ravel()).grouped()
"""Frames of a corner of the tiny scan, each a group."""
NAMES = method_names()
FEW: dict[str, dict[str, Any]] = {
    "supervised": {"epochs": 2, "steps_per_epoch": 20, "frames_per_step": 24, "learning_rate": 0.005},
    "network": {"epochs": 1, "steps_per_epoch": 1, "likelihood_epochs": 2},
    "refined": {"epochs": 1, "steps_per_epoch": 1},
}


def error(obj: NDArray[np.complex64]) -> float:
    """Return how far an object is from the truth where light falls, up to a factor, relatively."""
    light = SCAN.illumination()
    lit = light > 0.1 * light.max()
    found, truth = obj[lit], tiny_scan.truth()[lit]
    factor = np.vdot(found, truth) / np.vdot(found, found)
    return float(np.linalg.norm(factor * found - truth) / np.linalg.norm(truth))


def test_every_method_comes_nearer_to_the_truth_than_the_empty_object(tmp_path: Path) -> None:
    empty = error(np.ones_like(tiny_scan.truth()))
    for name in NAMES:
        made = tiny_scan.method(name, **FEW.get(name, {"epochs": 2}))
        if isinstance(made, Learned):
            truth = tiny_scan.truth() if made.needs_truth else None
            made.trained(SCAN, Training(1, tmp_path / name), truth)
            made.load(tmp_path / name)
        found = [reconstruction.obj for reconstruction, _ in run_method(made, SCAN, HeldOut(0.1, 2, seed=1))]
        assert error(found[-1]) < empty, name
