"""A real scan, small enough to train on in a test: object, probe, counts and groups."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

import factories
from fly64_dose_overlap.config import TrainParams
from fly64_dose_overlap.files.dataset import Dataset
from fly64_dose_overlap.study.base import make_synthetic_base
from fly64_dose_overlap.study.dose import dose_factor, draw_counts, with_dose
from fly64_dose_overlap.study.grouping import make_groups

SIDE = 32
FIELD_PX = 64.0
STEP_PX = 8.0
DOSE = 10000
TRAINING: dict[str, Any] = {
    "start_iterations": 2,
    "joint_iterations": 5,
    "width": 4,
    "epochs": 3,
    "joint_epochs": 2,
    "supervised_epochs": 3,
    "steps_per_epoch": 3,
    "crop_px": 64,
    "frames_per_step": 8,
    "patience": 9,
    "validation_fraction": 0.4,
    "threads": 1,
    "device": "cpu",
    "precision": "32-true",
}


@cache
def scan_dataset(gridsize: int = 2) -> Dataset:
    """Return 81 frames of a 100 x 100 object, in 40 groups if of four; do not change its arrays."""
    n_groups = 40 if gridsize > 1 else None
    shape = {"frame_side_px": SIDE, "field_px": FIELD_PX, "step_px": STEP_PX}
    base = make_synthetic_base(factories.study_params().base.model_copy(update=shape))
    base = with_dose(base, dose_factor(base, DOSE))
    counts = np.concatenate(list(draw_counts(base, seed=1, dose=DOSE)))
    return Dataset(
        amplitude=np.sqrt(counts).astype(np.float32),
        obj=base.obj,
        probe=base.probe,
        positions_px=base.positions_px,
        scan_index=base.scan_index,
        record=base.record,
        groups=make_groups(base.positions_px, gridsize=gridsize, n_groups=n_groups, neighbor_count=7, seed=1),
    )


def train_params(**changes: Any) -> TrainParams:
    """Return a training of a few steps, with some values changed."""
    return factories.study_params().train.model_copy(update={**TRAINING, **changes})
