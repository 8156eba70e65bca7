"""Overlap metrics and acceptance bound."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from fly64_dose_overlap.config import ViewParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.study.overlap import (
    geometry_acceptance_bound,
    group_based_overlap,
    group_to_group_overlap,
    image_based_overlap,
    measure_overlap,
    metric_groups,
)

D = 38.4
POSITIONS = arrays(
    np.float64, st.tuples(st.integers(4, 30), st.just(2)), elements=st.floats(0, 200, width=32)
)


def sampling(gridsize: int, s_img: float = 1.0, n_groups: int | None = None) -> ViewParams:
    return ViewParams.model_validate({"gridsize": gridsize, "s_img": s_img, "n_groups": n_groups})


def square(side_px: float) -> np.ndarray:
    return np.array([[0, 0], [0, side_px], [side_px, 0], [side_px, side_px]], dtype=np.float64)


def on_a_line(*x_px: float) -> np.ndarray:
    return np.array([[0.0, x] for x in x_px])


def scan(n_frames: int, extent_px: float = 100.0) -> np.ndarray:
    return np.random.default_rng(n_frames).uniform(0, extent_px, (n_frames, 2))


class TestMetric1:
    def test_two_squares(self) -> None:
        assert group_based_overlap(np.stack([square(10), square(50)]), D, 3) == pytest.approx(
            0.314390, abs=1e-6
        )

    def test_every_member_is_a_centre(self) -> None:
        # One frame far from a cluster of three: with the cluster's frames as
        # centres too, two of their three neighbours overlap fully.
        group = on_a_line(0, 0, 0, 100)[None]
        assert group_based_overlap(group, D, 3) == pytest.approx(3 / 4 * 2 / 3)

    def test_divides_by_the_neighbours_that_exist(self) -> None:
        assert group_based_overlap(square(0)[None], D, 6) == pytest.approx(1.0)

    def test_only_the_nearest_count(self) -> None:
        assert group_based_overlap(square(10)[None], D, 2) == pytest.approx(0.672214, abs=1e-6)


class TestMetric2:
    def test_duplicates_count_once(self) -> None:
        assert image_based_overlap(on_a_line(0, 20, 40, 20, 40), D, 2) == pytest.approx(0.245462, abs=1e-6)

    def test_no_tolerance_on_duplicates(self) -> None:
        assert image_based_overlap(on_a_line(0, 1e-7), D, 6) == pytest.approx(1.0, abs=1e-6)

    def test_one_unique_position_gives_zero(self) -> None:
        assert image_based_overlap(np.zeros((5, 2)), D, 6) == 0.0

    @settings(max_examples=50)
    @given(POSITIONS, st.integers(1, 8), st.randoms(use_true_random=False))
    def test_order_of_frames_is_irrelevant(self, positions_px: np.ndarray, count: int, random: Any) -> None:
        order = list(range(len(positions_px)))
        random.shuffle(order)
        one = image_based_overlap(positions_px, D, count)
        assert image_based_overlap(positions_px[order], D, count) == pytest.approx(one, abs=1e-9)

    def test_falls_when_the_scan_is_spread(self) -> None:
        values = [image_based_overlap(scale * scan(50), D, 6) for scale in (0.5, 1, 2, 4)]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[-1]


class TestMetric3:
    def test_lonely_groups_stay_in_the_mean(self) -> None:
        assert group_to_group_overlap(on_a_line(0, 30, 100), D) == pytest.approx(0.079136, abs=1e-6)

    def test_no_overlap_and_full_overlap(self) -> None:
        assert group_to_group_overlap(on_a_line(0, 50, 100), D) == 0.0
        assert group_to_group_overlap(np.ones((4, 2)), D) == pytest.approx(1.0)

    def test_a_neighbour_is_strictly_nearer_than_the_diameter(self) -> None:
        # At distance 10 = D the third is no neighbour and does not dilute the mean.
        alone = group_to_group_overlap(on_a_line(0, 5), 10.0)
        assert group_to_group_overlap(on_a_line(5, 0, -5), 10.0) == pytest.approx(alone)

    def test_equals_all_pairs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        centres = scan(80)
        distance = np.linalg.norm(centres[:, None] - centres[None], axis=-1) / D
        np.fill_diagonal(distance, 2.0)
        near = distance < 1
        ratio = np.where(near, distance, 1.0)
        lens = 2 / np.pi * (np.arccos(ratio) - ratio * np.sqrt(1 - ratio**2))
        expected = np.mean(lens.sum(axis=1) / np.maximum(near.sum(axis=1), 1))
        monkeypatch.setattr("fly64_dose_overlap.study.overlap.BLOCK_PAIRS", 100)
        assert group_to_group_overlap(centres, D) == pytest.approx(expected)


class TestMetricGroups:
    @pytest.mark.parametrize(("frames", "groups"), [(12, 15), (12, 12), (12, 5), (4, 9), (50, 400)])
    def test_exactly_as_many_as_asked_for(self, frames: int, groups: int) -> None:
        found = metric_groups(scan(frames), sampling(2, n_groups=groups))
        assert found.shape == (groups, 4)
        assert np.all(np.diff(np.sort(found, axis=1), axis=1) > 0)
        assert found.min() >= 0
        assert found.max() < frames

    def test_first_round_is_a_frame_and_its_nearest(self) -> None:
        positions_px = scan(30)
        found = metric_groups(positions_px, sampling(2))
        distance = np.linalg.norm(positions_px[:, None] - positions_px[None], axis=-1)
        np.testing.assert_array_equal(np.sort(found), np.sort(np.argsort(distance, axis=1)[:, :4]))

    def test_few_groups_are_spread_over_the_scan(self) -> None:
        assert metric_groups(scan(100), sampling(2, n_groups=4))[:, 0].tolist() == [0, 25, 50, 75]

    def test_further_rounds_differ(self) -> None:
        found = np.sort(metric_groups(scan(20), sampling(2, n_groups=100)), axis=1)
        for frame in range(20):
            assert len(np.unique(found[frame::20], axis=0)) >= 4

    def test_fewer_frames_than_a_group_needs(self) -> None:
        with pytest.raises(StudyError, match="a group needs 4 frames, found 3"):
            metric_groups(scan(3), sampling(2))


class TestMeasureOverlap:
    def test_keys_and_values_for_single_frames(self) -> None:
        measured = measure_overlap(scan(20), sampling(1, 0.8, 40), probe_diameter_px=D)
        assert list(measured) == [
            "metrics_version",
            "gridsize",
            "s_img",
            "n_groups",
            "neighbor_count",
            "probe_diameter_px",
            "rng_seed_subsample",
            "metric_1_group_based_avg",
            "metric_2_image_based_avg",
            "metric_3_group_to_group_avg",
            "n_images_total",
            "n_images_subsampled",
            "n_unique_images",
            "n_groups_actual",
            "geometry_acceptance_bound",
            "effective_min_acceptance",
        ]
        assert measured["metrics_version"] == "1.0"
        assert measured["metric_1_group_based_avg"] is None
        assert (measured["n_images_total"], measured["n_images_subsampled"]) == (20, 16)
        assert (measured["n_groups"], measured["n_groups_actual"]) == (40, 16)
        assert json.loads(json.dumps(measured)) == measured

    def test_groups_of_four(self) -> None:
        measured = measure_overlap(scan(12), sampling(2, 1.0, 15), probe_diameter_px=D)
        assert measured["n_groups_actual"] == 15
        for name in ("metric_1_group_based_avg", "metric_2_image_based_avg", "metric_3_group_to_group_avg"):
            assert 0 < measured[name] < 1

    def test_single_frames_compare_with_single_frames(self) -> None:
        measured = measure_overlap(on_a_line(0, 30, 100), sampling(1), probe_diameter_px=D)
        assert measured["metric_3_group_to_group_avg"] == pytest.approx(0.079136, abs=1e-6)

    @settings(max_examples=40, deadline=None)
    @given(POSITIONS, st.sampled_from([1, 2]), st.floats(1, 100))
    def test_metrics_are_fractions(self, positions_px: np.ndarray, gridsize: int, diameter_px: float) -> None:
        measured = measure_overlap(positions_px, sampling(gridsize), probe_diameter_px=diameter_px)
        found = [value for key, value in measured.items() if key.startswith("metric_") and value is not None]
        assert all(0 <= value <= 1 for value in found)
        assert 0 <= measured["geometry_acceptance_bound"] <= 0.1
        assert measured["effective_min_acceptance"] > 0

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 2**31), st.sampled_from([1, 2]), st.floats(-500, 500), st.floats(-500, 500))
    def test_translation_changes_nothing(self, seed: int, gridsize: int, dy: float, dx: float) -> None:
        positions_px = np.random.default_rng(seed).uniform(0, 100, (25, 2))
        one = measure_overlap(positions_px, sampling(gridsize, 0.8), probe_diameter_px=D)
        two = measure_overlap(positions_px + np.array([dy, dx]), sampling(gridsize, 0.8), probe_diameter_px=D)
        assert two == pytest.approx(one, abs=1e-9)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 2**31), st.sampled_from([1, 2]))
    def test_order_is_irrelevant_with_one_group_per_frame(self, seed: int, gridsize: int) -> None:
        rng = np.random.default_rng(seed)
        positions_px = rng.uniform(0, 100, (25, 2))
        one = measure_overlap(positions_px, sampling(gridsize), probe_diameter_px=D)
        two = measure_overlap(rng.permutation(positions_px), sampling(gridsize), probe_diameter_px=D)
        assert two == pytest.approx(one, abs=1e-9)

    def test_leaves_its_input_and_the_global_generator_alone(self) -> None:
        positions_px = scan(30)
        positions_px.flags.writeable = False
        before = np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
        one = measure_overlap(positions_px, sampling(2, 0.5), probe_diameter_px=D)
        assert measure_overlap(positions_px, sampling(2, 0.5), probe_diameter_px=D) == one
        np.testing.assert_array_equal(np.random.get_state(legacy=False)["state"]["key"], before)  # noqa: NPY002

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"gridsize": 3}, "gridsize\n.*input_value=3"),
            ({"gridsize": 0}, "gridsize\n.*input_value=0"),
            ({"gridsize": 1, "s_img": 0.0}, "s_img\n.*greater than 0"),
            ({"gridsize": 1, "s_img": 1.01}, "s_img\n.*less than or equal to 1"),
            ({"gridsize": 1, "s_img": float("nan")}, "s_img\n"),
            ({"gridsize": 1, "n_groups": 0}, "n_groups\n.*greater than or equal to 1"),
        ],
    )
    def test_refuses_a_bad_sampling(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ValidationError, match=message):
            sampling(**arguments)

    def test_refuses_bad_geometry(self) -> None:
        with pytest.raises(StudyError, match="probe_diameter_px must be > 0, got -1"):
            measure_overlap(scan(9), sampling(1), probe_diameter_px=-1.0)
        with pytest.raises(StudyError, match="metric_neighbor_count must be >= 1, got 0"):
            measure_overlap(scan(9), sampling(1), probe_diameter_px=D, neighbor_count=0)
        with pytest.raises(StudyError, match="keeps none of 9 frames"):
            measure_overlap(scan(9), sampling(1, 0.1), probe_diameter_px=D)
        with pytest.raises(StudyError, match=r"must be \(frame, 2\) with at least one frame, got \(0, 2\)"):
            measure_overlap(np.zeros((0, 2)), sampling(1), probe_diameter_px=D)
        with pytest.raises(StudyError, match="must be finite, found 1 of 2"):
            measure_overlap(on_a_line(0, np.nan), sampling(1), probe_diameter_px=D)


class TestAcceptance:
    def test_diagonal(self) -> None:
        diagonal = np.repeat(np.linspace(0, 50, 50)[:, None], 2, axis=1)
        assert geometry_acceptance_bound(diagonal, D) == pytest.approx(0.0431735, abs=1e-7)

    def test_fly64_half(self) -> None:
        corners = np.zeros((5088, 2))
        corners[1] = (168, 336)
        assert geometry_acceptance_bound(corners, D) == pytest.approx(0.00958, abs=1e-5)

    def test_is_a_tenth_at_most(self) -> None:
        assert geometry_acceptance_bound(square(1e4), D) == 0.10

    def test_no_area_still_leaves_a_floor(self) -> None:
        measured = measure_overlap(on_a_line(0, 1, 2, 3), sampling(1), probe_diameter_px=D)
        assert measured["geometry_acceptance_bound"] == 0.0
        assert 0 < measured["effective_min_acceptance"] < 1e-3
