"""A real scan, small enough to train on in a test: object, probe, counts and groups."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import factories
from fly64_dose_overlap.files.dataset import BaseSet
from fly64_dose_overlap.methods.base import Method
from fly64_dose_overlap.methods.registry import make_method
from fly64_dose_overlap.scan import HC_EV_M, Optics, Scan
from fly64_dose_overlap.study.base import make_synthetic_base
from fly64_dose_overlap.study.dose import Simulation, draw_counts
from fly64_dose_overlap.study.gauge import in_standard_gauge
from fly64_dose_overlap.study.grouping import make_groups

SIDE = 32
FIELD_PX = 64.0
STEP_PX = 8.0
DOSE = 10000

TRAINING: dict[str, Any] = {
    "epochs": 3,
    "steps_per_epoch": 3,
    "frames_per_step": 8,
    "patience": 9,
    "validation_fraction": 0.4,
    "device": "cpu",
    "precision": "32-true",
    "width": 4,
}
"""Settings of a training of a few steps."""
SETTINGS: dict[str, dict[str, Any]] = {
    "network": {**TRAINING, "crop_px": 64, "iterations": 2, "likelihood_epochs": 3},
    "refined": {**TRAINING, "crop_px": 64, "iterations": 5},
    "supervised": TRAINING,
}


@cache
def base_set() -> BaseSet:
    """Return a 100 x 100 object and 81 positions, at the dose; do not change its arrays."""
    shape = {"frame_side_px": SIDE, "field_px": FIELD_PX, "step_px": STEP_PX}
    base = make_synthetic_base(factories.study_params().base.model_copy(update=shape))
    return Simulation(in_standard_gauge(base)).with_dose(DOSE)[0]


def truth() -> NDArray[np.complex64]:
    """Return the object of the scan."""
    return base_set().obj


@cache
def scan(gridsize: int = 2) -> Scan:
    """Return 81 frames, in 40 groups if of four; do not change its arrays."""
    base = base_set()
    n_groups = 40 if gridsize > 1 else None
    rows, columns = base.obj.shape
    physics = base.record["physics_parameters"]
    return Scan(
        counts=np.concatenate(list(draw_counts(base, seed=1, dose=DOSE))).astype(np.float32),
        probe=base.probe,
        positions_px=base.positions_px,
        object_shape=(rows, columns),
        groups=make_groups(base.positions_px, gridsize=gridsize, n_groups=n_groups, neighbor_count=7, seed=1),
        optics=Optics(HC_EV_M / physics["energy_ev"], physics["object_pixel_m"]),
        record=base.record,
    )


@cache
def scan_of_side(side: int) -> Scan:
    """Return the scan as a detector of other pixels counts it, the middle of its probe kept; as `scan`."""
    whole = scan()
    first = SIDE // 2 - side // 2
    probe = whole.probe[:, first : first + side, first : first + side].copy()
    if probe.shape == whole.probe.shape:
        return whole
    empty = replace(whole, counts=np.zeros((len(whole), side, side), np.float32), probe=probe)
    expected = empty.model.expected(torch.from_numpy(truth()), slice(0, len(whole))).numpy()
    return replace(empty, counts=np.random.default_rng(1).poisson(expected).astype(np.float32))


def method(name: str, **changes: Any) -> Method:
    """Return a method with the repository's settings, a few steps long if it is learned, some changed."""
    settings = factories.study_params().methods[name]
    return make_method(name, {**settings, **SETTINGS.get(name, {}), **changes})
