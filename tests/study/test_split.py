"""The cut across y and the gap that keeps the halves' windows apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.study.split import closed_gap_px, split_scan


def scan(*y: float) -> NDArray[np.float64]:
    return np.array([(value, 50.0) for value in y])


def object_rows(y: float, side: int) -> set[int]:
    """Return the object rows that have a weight in a bilinear patch at y."""
    start = y - side // 2
    return {row for k in range(side) for row in (math.floor(start + k), math.ceil(start + k))}


def test_the_cut_is_a_fraction_of_the_range_and_ties_go_to_test() -> None:
    split = split_scan(scan(9, 0, 1, 2, 2.4, 2.5, 10), fraction=0.25, guard_gap_px=0)
    assert split.cut_px == 2.5
    assert split.train.tolist() == [1, 2, 3, 4]
    assert split.test.tolist() == [0, 5, 6]
    assert split.dropped == 0


def test_frames_in_the_gap_go_to_neither_half() -> None:
    split = split_scan(scan(0, 3.9, 4, 5, 6, 5.9, 10), fraction=0.5, guard_gap_px=2)
    assert split.train.tolist() == [0, 1]
    assert split.test.tolist() == [4, 6]
    assert split.dropped == 3
    assert split.guard_gap_px == 2


# Coordinates on a binary grid keep sums and differences exact, so the test is sharp.
ON_GRID = st.integers(40 * 64, 140 * 64).map(lambda step: step / 64)


@given(
    y=st.lists(ON_GRID, min_size=2, max_size=60),
    side=st.integers(2, 33),
    fraction=st.floats(0.1, 0.9),
)
def test_no_object_pixel_is_shared(y: list[float], side: int, fraction: float) -> None:
    y = [40.0, *y, 140.0]
    gap_px = closed_gap_px(side)
    assume(40 + 100 * fraction - gap_px / 2 > 40)
    assume(40 + 100 * fraction + gap_px / 2 <= 140)
    split = split_scan(scan(*y), fraction=fraction, guard_gap_px=gap_px)
    train = set[int]().union(*(object_rows(y[frame], side) for frame in split.train))
    test = set[int]().union(*(object_rows(y[frame], side) for frame in split.test))
    assert not train & test
    assert len(split.train) + len(split.test) + split.dropped == len(y)


def test_a_gap_of_one_frame_side_is_not_enough() -> None:
    side = 8
    y = [41, 45.75, 46.25, 54.5, 55.25, 60]

    def shared(gap_px: float) -> set[int]:
        split = split_scan(scan(*y), fraction=0.5, guard_gap_px=gap_px)
        last, first = y[split.train[-1]], y[split.test[0]]
        return object_rows(last, side) & object_rows(first, side)

    assert shared(side) == {50}
    assert shared(closed_gap_px(side)) == set()


def test_halves_are_disjoint_and_in_order() -> None:
    y = np.random.default_rng(5).uniform(0, 100, 200)
    split = split_scan(np.column_stack([y, y]), fraction=0.5, guard_gap_px=0)
    assert (np.diff(split.train) > 0).all()
    assert (np.diff(split.test) > 0).all()
    assert not set(split.train) & set(split.test)
    assert len(split.train) + len(split.test) == 200


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        (
            0.1,
            r"expose: the training half is empty: none of 5 frames has y < -1 px \(y from 0 to 10, cut",
        ),
        (
            0.9,
            r"expose: the test half is empty: none of 5 frames has y >= 11 px .*; use expose.split: none",
        ),
    ],
)
def test_an_empty_half_is_refused(fraction: float, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        split_scan(scan(0, 1, 2, 3, 10), fraction=fraction, guard_gap_px=4)


def test_positions_on_one_line_cannot_be_split() -> None:
    advice = "; the scan is cut across y and needs frames at two heights$"
    for gap_px in (0, 5):
        with pytest.raises(StudyError, match=rf"training half is empty.*{advice}"):
            split_scan(scan(3, 3, 3), fraction=0.5, guard_gap_px=gap_px)


@pytest.mark.parametrize("fraction", [0.0, 1.0, math.nan])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(StudyError, match=r"expose.split_fraction: must be between 0 and 1, got"):
        split_scan(scan(0, 1), fraction=fraction, guard_gap_px=0)


@pytest.mark.parametrize("gap_px", [-1.0, math.inf, math.nan])
def test_a_gap_out_of_range_is_refused(gap_px: float) -> None:
    with pytest.raises(StudyError, match=r"expose.guard_gap_px: must be at least 0, got"):
        split_scan(scan(0, 1), fraction=0.5, guard_gap_px=gap_px)
