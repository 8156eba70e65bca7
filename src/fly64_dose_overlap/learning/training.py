"""Where a training puts what it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Metrics = dict[str, float]
Monitor = Callable[[NDArray[np.complex64], NDArray[np.int64]], Metrics]
"""Returns scores of an image of a scan where some of its frames lie; they steer nothing."""


@dataclass(frozen=True)
class Training:
    """Where a training puts what it makes, and who watches it.

    Attributes
    ----------
    bundle : Path
        File of the trained model, to create or replace.
    curves : Path, optional
        Folder of the curves, written by dvclive.
    checkpoints : Path, optional
        Folder of the states that a repeated call goes on from; it must be this training's own, and
        is left for the caller to clear.
    monitor : callable, optional
        Returns scores of an image where some frames of the training scan lie, to be logged;
        they steer nothing.
    """

    seed: int
    bundle: Path
    curves: Path | None = None
    checkpoints: Path | None = None
    monitor: Monitor | None = None
