"""Cut a scan into a training and a test half that share no object pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.errors import StudyError

AXIS = "y"
"""Axis that the scan is cut across."""


@dataclass(frozen=True, eq=False)
class Split:
    """The two halves of a scan, each the numbers of its frames, (selected,), ascending."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]
    dropped: int
    """Frames in the gap, in neither half."""
    cut_px: float
    """Where the scan is cut, in the middle of the gap, object pixels."""
    guard_gap_px: float
    """Width of the strip without frames, object pixels."""


def closed_gap_px(frame_side_px: int) -> int:
    """Return the smallest gap that keeps the halves' windows apart wherever the cut lies.

    The window of a frame at y reaches from row floor(y) - N/2 to ceil(y) + N/2 - 1. Two
    frames share no row if floor(y_test) - ceil(y_train) >= N; with fractions on both
    sides that takes a distance of N + 1, while N would do for whole numbers only.

    Examples
    --------
    >>> closed_gap_px(64)
    65
    """
    return frame_side_px + 1


def split_scan(positions_px: NDArray[np.float64], *, fraction: float, guard_gap_px: float) -> Split:
    """Cut a scan across y, with a gap between the halves.

    The cut lies at a fraction of the *range* of y, not of the frames. Training frames lie
    below it, strictly, and test frames at or above it, by half the gap or more.

    Parameters
    ----------
    positions_px : (frame, 2) float64, object pixels
    fraction : float, 0 < fraction < 1
    guard_gap_px : float, >= 0, object pixels
        0 keeps every frame; `closed_gap_px` is the least that keeps windows apart.

    Raises
    ------
    StudyError
        If an argument is out of range or a half would hold no frame.
    """
    if not 0 < fraction < 1:
        raise StudyError("expose.split_fraction", f"must be between 0 and 1, got {fraction}")
    if not 0 <= guard_gap_px < float("inf"):
        raise StudyError("expose.guard_gap_px", f"must be at least 0, got {guard_gap_px}")
    y_px = positions_px[:, 0]
    low, high = float(y_px.min()), float(y_px.max())
    cut_px = low + fraction * (high - low)
    below, above = cut_px - guard_gap_px / 2, cut_px + guard_gap_px / 2
    train, test = np.flatnonzero(y_px < below), np.flatnonzero(y_px >= above)
    for name, half, limit in (("training", train, f"< {below:g}"), ("test", test, f">= {above:g}")):
        if half.size == 0:
            hint = "use expose.split: none, a smaller expose.guard_gap_px or a larger scan"
            if low == high:
                hint = "the scan is cut across y and needs frames at two heights"
            raise StudyError(
                "expose",
                f"the {name} half is empty: none of {len(y_px)} frames has y {limit} px"
                f" (y from {low:g} to {high:g}, cut at {cut_px:g}, guard gap {guard_gap_px:g} px)",
                hint,
            )
    return Split(train, test, len(y_px) - train.size - test.size, cut_px, float(guard_gap_px))
