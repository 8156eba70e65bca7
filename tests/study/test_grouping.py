"""Subsampling and K-choose-C grouping."""

from __future__ import annotations

import warnings
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.study.geometry import nearest_neighbours
from fly64_dose_overlap.study.grouping import make_groups, subsample, subset_of_rank


def scan(n_frames: int) -> np.ndarray:
    return np.random.default_rng(n_frames).uniform(0, 100, (n_frames, 2))


def group(positions_px: np.ndarray, **changes: Any) -> np.ndarray:
    arguments: dict[str, Any] = {"gridsize": 2, "n_groups": None, "neighbor_count": 7, "seed": 123}
    return make_groups(positions_px, **{**arguments, **changes})


class TestSubsample:
    @pytest.mark.parametrize(
        ("n_frames", "s_img", "kept"),
        [
            (100, 0.5, 50),
            (50, 0.8, 40),
            (20, 0.8, 16),
            (20, 0.6, 12),
            (100, 0.29, 29),
            (7, 0.5, 3),
            (9, 1.0, 9),
        ],
    )
    def test_keeps_the_floor(self, n_frames: int, s_img: float, kept: int) -> None:
        frames = subsample(n_frames, s_img, 456)
        assert len(frames) == kept
        assert np.all(np.diff(frames) > 0)
        assert frames[0] >= 0
        assert frames[-1] < n_frames

    def test_seed_decides(self) -> None:
        np.testing.assert_array_equal(subsample(100, 0.5, 1), subsample(100, 0.5, 1))
        assert not np.array_equal(subsample(100, 0.5, 1), subsample(100, 0.5, 2))

    @given(st.integers(20, 300), st.floats(0.1, 1), st.floats(0.1, 1))
    def test_smaller_fractions_keep_subsets(self, n_frames: int, one: float, two: float) -> None:
        fewer, more = (subsample(n_frames, s_img, 3) for s_img in sorted((one, two)))
        assert set(fewer) <= set(more)

    @pytest.mark.parametrize("s_img", [0.0, -0.5, 1.0001])
    def test_refuses_a_fraction_out_of_range(self, s_img: float) -> None:
        with pytest.raises(StudyError, match=r"s_img must be in \(0, 1\]"):
            subsample(10, s_img, 1)

    def test_refuses_to_keep_nothing(self) -> None:
        with pytest.raises(StudyError, match=r"s_img=0\.05 keeps none of 10 frames; keep a larger part"):
            subsample(10, 0.05, 1)


class TestSubsetOfRank:
    @pytest.mark.parametrize(("pool", "size"), [(7, 4), (4, 4), (8, 1), (6, 3), (9, 2)])
    def test_lists_each_subset_once(self, pool: int, size: int) -> None:
        found = subset_of_rank(np.arange(comb(pool, size)), size)
        assert {tuple(sorted(row)) for row in found.tolist()} == set(combinations(range(pool), size))

    def test_no_ranks(self) -> None:
        assert subset_of_rank(np.arange(0), 4).shape == (0, 4)


class TestGroups:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(4, 60), st.integers(4, 12), st.integers(1, 300), st.integers(0, 2**40))
    def test_groups_are_subsets_of_a_neighbourhood(
        self, frames: int, pool: int, wanted: int, seed: int
    ) -> None:
        positions_px = scan(frames)
        found = group(positions_px, n_groups=wanted, neighbor_count=pool, seed=seed, enable_oversampling=True)
        assert found.shape == (wanted, 4)
        assert found.dtype == np.int32
        assert np.all(np.diff(found, axis=1) > 0)
        near, _ = nearest_neighbours(positions_px, pool)
        hoods = np.zeros((frames, frames), dtype=int)
        np.put_along_axis(hoods, near, 1, axis=1)
        assert np.all(hoods[:, found].sum(axis=2).max(axis=0) == 4)

    def test_one_group_per_frame_by_default(self) -> None:
        assert group(scan(50)).shape == (50, 4)

    def test_smallest_pool_holds_the_seed_and_its_nearest(self) -> None:
        positions_px = scan(30)
        expected = np.sort(nearest_neighbours(positions_px, 4)[0], axis=1)
        np.testing.assert_array_equal(group(positions_px, neighbor_count=4), expected)

    def test_seeds_are_not_repeated_up_to_one_group_per_frame(self) -> None:
        # Clusters of four far apart: the group tells its seed's cluster.
        corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float64)
        positions_px = (corners + 100 * np.arange(20)[:, None, None]).reshape(-1, 2)
        found = group(positions_px, neighbor_count=4)
        assert np.bincount(found[:, 0] // 4).tolist() == [4] * 20

    def test_seed_decides(self) -> None:
        positions_px = scan(50)
        np.testing.assert_array_equal(group(positions_px), group(positions_px))
        assert not np.array_equal(group(positions_px), group(positions_px, seed=124))

    def test_fewer_frames_than_the_pool(self) -> None:
        found = group(scan(5), n_groups=25, enable_oversampling=True)
        assert {tuple(row) for row in found.tolist()} == set(combinations(range(5), 4))

    @pytest.mark.parametrize(("pool", "subsets"), [(4, 1), (5, 5), (6, 15), (7, 35), (8, 70)])
    def test_all_subsets_before_any_repeat(self, pool: int, subsets: int) -> None:
        # Far-apart clusters of ``pool`` frames: seeds of one cluster share a neighbourhood.
        offsets = np.random.default_rng(0).uniform(0, 1, (pool, 2))
        positions_px = (offsets + 1000 * np.arange(3)[:, None, None]).reshape(-1, 2)
        full = group(positions_px, n_groups=3 * pool * subsets, neighbor_count=pool, enable_oversampling=True)
        _, times = np.unique(full, axis=0, return_counts=True)
        assert times.tolist() == [pool] * (3 * subsets)

    def test_beyond_the_pool_subsets_repeat(self) -> None:
        found = group(scan(4), n_groups=11, enable_oversampling=True)
        assert found.tolist() == [[0, 1, 2, 3]] * 11

    def test_oversampling_needs_consent(self) -> None:
        with pytest.raises(StudyError, match=r"OVERSAMPLING-001.*enable_oversampling"):
            group(scan(20), n_groups=21)
        assert group(scan(20), n_groups=20).shape == (20, 4)

    def test_pool_smaller_than_a_group(self) -> None:
        with pytest.raises(
            StudyError, match=r"neighbor_count=3 < C=4: a pool of 3 frames .*OVERSAMPLING-001"
        ):
            group(scan(20), neighbor_count=3)

    def test_too_few_frames(self) -> None:
        with pytest.raises(StudyError, match="a group needs 4 frames, found 3"):
            group(scan(3))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"gridsize": 3}, "gridsize must be 1 or 2, got 3"),
            ({"n_groups": 0}, "n_groups must be >= 1, got 0"),
        ],
    )
    def test_refuses_bad_arguments(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(StudyError, match=message):
            group(scan(20), **changes)

    def test_global_generator_is_left_alone(self) -> None:
        before = np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
        group(scan(20))
        np.testing.assert_array_equal(np.random.get_state(legacy=False)["state"]["key"], before)  # noqa: NPY002


class TestSingleFrames:
    def test_all_frames(self) -> None:
        assert group(scan(12), gridsize=1).tolist() == [[frame] for frame in range(12)]

    def test_distinct_seeds(self) -> None:
        found = group(scan(40), gridsize=1, n_groups=10)
        assert found.shape == (10, 1)
        assert len(np.unique(found)) == 10

    @pytest.mark.parametrize("enable_oversampling", [True, False])
    def test_larger_request_is_cut_with_a_warning(self, enable_oversampling: bool) -> None:
        with pytest.warns(UserWarning, match="40 groups of one frame wanted from 16 frames; making 16"):
            found = group(scan(16), gridsize=1, n_groups=40, enable_oversampling=enable_oversampling)
        assert found[:, 0].tolist() == list(range(16))

    def test_pool_is_irrelevant(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert group(scan(1), gridsize=1, neighbor_count=1).tolist() == [[0]]
