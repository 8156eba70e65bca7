"""Views of a scan: frames, groups, measured metrics, provenance."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fly64_dose_overlap.config import OverlapParams, ViewParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.provenance import new_record, steps, with_step
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.study.grouping import subsample
from fly64_dose_overlap.study.overlap import image_based_overlap, measure_overlap
from fly64_dose_overlap.study.views import VIEW_MAPPING_VERSION, make_view

N = 16
DOSE = 500.0
VIEWS: dict[str, dict[str, Any]] = {
    "baseline": {"s_img": 1.0, "n_groups": None, "gridsize": 1},
    "dense": {"s_img": 0.6, "n_groups": None, "gridsize": 2},
    "sparse": {"s_img": 0.1, "n_groups": 60, "gridsize": 2},
}


def overlap_params(**changes: Any) -> OverlapParams:
    content: dict[str, Any] = {
        "neighbor_count": 7,
        "metric_neighbor_count": 6,
        "enable_oversampling": True,
        "probe_diameter_px": None,
        "seed_subsample": 456,
        "seed_grouping": 123,
        "views": VIEWS,
    }
    return OverlapParams.model_validate({**content, **changes})


def view_params(name: str, **changes: Any) -> ViewParams:
    return ViewParams.model_validate({**VIEWS[name], **changes})


@pytest.fixture(scope="module")
def scan() -> Scan:
    rng = np.random.default_rng(11)
    axis = np.arange(10.0, 70.0, 3.0)
    raster = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    y, x = np.indices((N, N)) - N / 2
    probe = np.exp(-(y * y + x * x) / 16).astype(np.complex64)
    probe *= np.float32(np.sqrt(DOSE / np.sum(np.abs(probe) ** 2)))
    return Scan(
        counts=rng.poisson(3.0, (len(raster), N, N)).astype(np.float32),
        probe=probe[None],
        object_shape=(80, 80),
        positions_px=raster + rng.normal(0, 0.3, raster.shape),
        scan_index=np.arange(len(raster)) + 1000,
        record=with_step(new_record("base"), "simulate", "draw counts"),
    )


@pytest.mark.parametrize("name", list(VIEWS))
def test_frames_stay_with_their_positions(scan: Scan, name: str) -> None:
    view, metrics = make_view(scan, view_params(name), overlap_params(), name=name)
    frames = view.scan_index - 1000
    np.testing.assert_array_equal(frames, subsample(400, VIEWS[name]["s_img"], 456))
    np.testing.assert_array_equal(view.counts[:], scan.counts[frames])
    np.testing.assert_array_equal(view.positions_px, scan.positions_px[frames])
    assert view.object_shape == scan.object_shape
    np.testing.assert_array_equal(view.probe, scan.probe)
    assert metrics["n_images_subsampled"] == len(frames)


def test_groups_index_the_kept_frames(scan: Scan) -> None:
    view, metrics = make_view(scan, view_params("sparse"), overlap_params(), name="sparse")
    assert view.groups is not None
    assert view.groups.shape == (60, 4)
    assert view.groups.max() < len(view.positions_px) == 40
    assert metrics["n_training_groups"] == metrics["n_groups_actual"] == metrics["n_groups"] == 60
    assert metrics["n_frames_in_no_group"] == 40 - len(set(view.groups.ravel().tolist()))


def test_frames_in_no_group_are_counted(scan: Scan) -> None:
    _, metrics = make_view(scan, view_params("sparse", n_groups=1), overlap_params(), name="sparse")
    assert metrics["n_frames_in_no_group"] == 36


def test_baseline_keeps_everything_one_by_one(scan: Scan) -> None:
    view, metrics = make_view(scan, view_params("baseline"), overlap_params(), name="baseline")
    assert view.groups is not None
    assert view.groups[:, 0].tolist() == list(range(400))
    assert metrics["metric_1_group_based_avg"] is None
    assert metrics["n_frames_in_no_group"] == 0


def test_overlap_is_that_of_the_kept_frames(scan: Scan) -> None:
    view, metrics = make_view(scan, view_params("dense"), overlap_params(), name="dense")
    diameter_px = metrics["probe_diameter_px"]
    assert metrics["metric_2_image_based_avg"] == image_based_overlap(view.positions_px, diameter_px, 6)
    measured = measure_overlap(
        scan.positions_px, view_params("dense"), probe_diameter_px=diameter_px, neighbor_count=6
    )
    assert measured.items() <= metrics.items()


def test_fewer_frames_mean_less_overlap_and_fluence(scan: Scan) -> None:
    found = [make_view(scan, view_params(name), overlap_params(), name=name)[1] for name in VIEWS]
    overlaps = [metrics["metric_2_image_based_avg"] for metrics in found]
    fluences = [metrics["fluence"]["photons_per_pixel_mean"] for metrics in found]
    assert overlaps == sorted(overlaps, reverse=True)
    assert fluences[0] == pytest.approx(DOSE / 9, rel=0.1)
    assert fluences[1] == pytest.approx(0.6 * fluences[0], rel=0.1)
    assert fluences[2] == pytest.approx(0.1 * fluences[0], rel=0.2)


def test_fluence_is_that_of_the_scans_dose(scan: Scan) -> None:
    brighter = replace(scan, probe=(np.sqrt(10) * scan.probe).astype(np.complex64))
    one, ten = (
        make_view(each, view_params("dense"), overlap_params(), name="dense")[1]["fluence"]
        for each in (scan, brighter)
    )
    assert ten["photons_per_pixel_mean"] == pytest.approx(10 * one["photons_per_pixel_mean"], rel=1e-4)
    assert ten["covered_fraction"] == one["covered_fraction"]


def test_diameter_and_its_source(scan: Scan) -> None:
    _, measured = make_view(scan, view_params("dense"), overlap_params(), name="dense")
    assert measured["probe_diameter_source"] == "full width at half maximum"
    assert measured["probe_diameter_px"] == pytest.approx(2 * np.sqrt(8 * np.log(2)), rel=0.03)
    _, chosen = make_view(scan, view_params("dense"), overlap_params(probe_diameter_px=9.0), name="dense")
    assert (chosen["probe_diameter_px"], chosen["probe_diameter_source"]) == (9.0, "parameter")


def test_provenance_gains_one_step(scan: Scan) -> None:
    view, metrics = make_view(scan, view_params("sparse"), overlap_params(), name="sparse")
    assert steps(view.record) == ["simulate", "overlap_view"]
    assert steps(scan.record) == ["simulate"]
    parameters = view.record["data_transformations"][-1]["parameters"]
    assert parameters.items() <= metrics.items()
    assert (parameters["view"], parameters["view_mapping_version"]) == ("sparse", VIEW_MAPPING_VERSION)
    assert (parameters["rng_seed_subsample"], parameters["rng_seed_grouping"]) == (456, 123)
    assert parameters["geometry_acceptance_bound"] <= parameters["effective_min_acceptance"]
    assert parameters["metrics_version"] == "1.0"
    assert parameters["probe_diameter_px"] > 0


def test_metrics_survive_json(scan: Scan) -> None:
    _, metrics = make_view(scan, view_params("baseline"), overlap_params(), name="baseline")
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_same_seeds_same_view(scan: Scan) -> None:
    one, two = (make_view(scan, view_params("dense"), overlap_params(), name="dense")[0] for _ in range(2))
    assert one.groups is not None
    assert two.groups is not None
    np.testing.assert_array_equal(one.groups, two.groups)
    np.testing.assert_array_equal(one.scan_index, two.scan_index)
    other, _ = make_view(scan, view_params("dense"), overlap_params(seed_subsample=1), name="dense")
    assert not np.array_equal(one.scan_index, other.scan_index)
    regrouped, _ = make_view(scan, view_params("dense"), overlap_params(seed_grouping=1), name="dense")
    np.testing.assert_array_equal(one.scan_index, regrouped.scan_index)
    assert regrouped.groups is not None
    assert not np.array_equal(one.groups, regrouped.groups)


def test_too_few_frames_for_a_group(scan: Scan) -> None:
    with pytest.raises(StudyError, match="a group needs 4 frames, found 3; keep more frames"):
        make_view(scan, view_params("sparse", s_img=0.0075), overlap_params(), name="sparse")


def test_more_groups_than_frames_needs_consent(scan: Scan) -> None:
    with pytest.raises(StudyError, match="OVERSAMPLING-001"):
        make_view(scan, view_params("sparse"), overlap_params(enable_oversampling=False), name="sparse")
