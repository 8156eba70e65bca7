"""Small valid data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap import provenance
from fly64_dose_overlap.config import Params, load_params
from fly64_dose_overlap.files.dataset import write_scan
from fly64_dose_overlap.scan import Scan

ROOT = Path(__file__).resolve().parents[1]


def study_params(**changes: Any) -> Params:
    """Return the repository's parameters with some top-level keys changed."""
    return load_params(ROOT / "params.yaml").model_copy(update=changes)


def small_scan(
    gridsize: int = 2, *, frames: int = 6, side: int = 8, modes: int = 1
) -> tuple[Scan, NDArray[np.complex64]]:
    """Return a valid scan of a few frames with two groups, and an object; the frames are not of it."""
    rng = np.random.default_rng(3)
    members = np.arange(gridsize**2, dtype=np.int32)
    probe = np.ones((modes, side, side), np.complex64)
    probe[1:] *= 0.5j
    scan = Scan(
        counts=rng.poisson(4, (frames, side, side)).astype(np.float32),
        probe=probe,
        positions_px=rng.uniform(side, 2 * side, (frames, 2)),
        object_shape=(3 * side, 3 * side),
        groups=np.stack([members, members + 1]),
        record=provenance.new_record("test"),
    )
    return scan, np.exp(1j * rng.uniform(-1, 1, scan.object_shape)).astype(np.complex64)


def write_small_scan(path: Path, gridsize: int = 2) -> None:
    """Write a valid scan of a few frames with its object."""
    write_scan(path, *small_scan(gridsize))


def write_views(root: Path, params: Params) -> None:
    """Write both halves of every view of every dose below ``root``."""
    for dose in params.doses:
        for name, view in params.overlap.views.items():
            for half in ("train", "test"):
                write_small_scan(root / str(dose) / name / f"{half}.npz", view.gridsize)
