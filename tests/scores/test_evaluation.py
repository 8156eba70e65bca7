"""Scores of all methods on one test half."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import factories
import tiny_scan
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.scores.evaluation import Evaluation, evaluate
from made_reconstructions import DOSE, NAMES, limit_of, reconstructions

PARAMS = factories.study_params().evaluate
SCAN, TRUTH = tiny_scan.scan(), tiny_scan.truth()


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(SCAN, TRUTH, reconstructions(), PARAMS, limit=limit_of(), dose=DOSE)


def test_headline_is_the_network_where_there_is_no_refined(evaluation: Evaluation) -> None:
    metrics = evaluation.metrics
    network = metrics["methods"]["network"]
    named = {
        f"psnr_{scores['key']}": scores["phase"]["psnr_db"]
        for name, scores in metrics["methods"].items()
        if name != "network"
    }
    assert list(metrics) == ["psnr", "ssim", "nrmse", *named, "methods", "limit", "conventions"]
    assert {name: metrics[name] for name in named} == named
    assert metrics["psnr"] == network["phase"]["psnr_db"]
    assert metrics["ssim"] == network["phase"]["ssim"]
    assert metrics["nrmse"] == network["complex_nrmse"]


def test_methods_are_ranked_as_they_are_good(evaluation: Evaluation) -> None:
    methods = evaluation.metrics["methods"]
    assert list(methods) == list(NAMES.values())
    assert list(evaluation.aligned) == list(evaluation.curves) == list(NAMES)
    psnr = [scores["phase"]["psnr_db"] for scores in methods.values()]
    error = [scores["complex_nrmse"] for scores in methods.values()]
    assert psnr[0] > 50 > psnr[1] > psnr[2]
    assert error[0] < 0.01 < error[1] < error[2]
    assert methods["network"]["frc"]["frc50"] > 0.9


def test_limit_is_that_of_the_dose(evaluation: Evaluation) -> None:
    bound = evaluation.metrics["limit"]
    assert bound["nrmse"] == pytest.approx((2 / DOSE) ** 0.5)
    assert bound["photons_per_pixel"] == pytest.approx(0.01 * DOSE)
    assert bound["bayesian"]["nrmse"] < bound["nrmse"]


def test_dose_efficiency_is_the_bound_over_the_error(evaluation: Evaluation) -> None:
    bound = evaluation.metrics["limit"]["nrmse"]
    for scores in evaluation.metrics["methods"].values():
        assert scores["dose_efficiency"] == pytest.approx((bound / scores["complex_nrmse"]) ** 2)


def test_limit_of_another_region_is_refused() -> None:
    other = replace(limit_of(), region={**limit_of().region, "pixels": 7})
    with pytest.raises(StudyError, match=r"^limit: was computed for the region \(7, .*dvc repro limit$"):
        evaluate(SCAN, TRUTH, reconstructions(), PARAMS, limit=other, dose=DOSE)


@pytest.mark.parametrize(
    ("methods", "headline"),
    [
        (["lsqml_held_out", "network", "refined"], "refined"),
        (["lsqml_held_out", "network"], "network"),
        (["lsqml_held_out", "map"], "lsqml_held_out"),
    ],
)
def test_headline_is_the_first_of_refined_and_network_or_else_what_comes_first(
    methods: list[str], headline: str
) -> None:
    one = reconstructions()[1]
    given = [
        replace(one, method=name, label=name, obj=one.obj * np.float32(1 + index / 9))
        for index, name in enumerate(methods)
    ]
    metrics = evaluate(SCAN, TRUTH, given, PARAMS, limit=limit_of(), dose=DOSE).metrics
    others = [f"psnr_{name}" for name in [*methods, "flat_object"] if name != headline]
    assert [key for key in metrics if key.startswith("psnr_")] == others
    assert metrics["psnr"] == metrics["methods"][headline]["phase"]["psnr_db"]


def test_the_empty_object_is_scored_beside_whatever_is_given(evaluation: Evaluation) -> None:
    flat = evaluation.metrics["methods"]["flat object"]
    assert (flat["key"], flat["kind"]) == ("flat_object", "reference")
    assert flat["phase"]["psnr_db"] < 25


def test_digests_go_with_their_methods() -> None:
    digests = {"network": "0" * 64}
    found = evaluate(SCAN, TRUTH, reconstructions(), PARAMS, limit=limit_of(), dose=DOSE, digests=digests)
    assert [scores["sha256"] for scores in found.metrics["methods"].values()] == ["0" * 64, None, None]


def test_reconstruction_on_another_grid_is_refused() -> None:
    small = replace(reconstructions()[0], obj=np.ones((9, 9), np.complex64))
    with pytest.raises(
        StudyError, match=r"^network: must have the region's shape \(100, 100\), got \(9, 9\)"
    ):
        evaluate(SCAN, TRUTH, [small], PARAMS, limit=limit_of(), dose=DOSE)


def test_scores_are_json_without_nan(evaluation: Evaluation) -> None:
    assert json.loads(json.dumps(evaluation.metrics, allow_nan=False)) == evaluation.metrics


def test_region_lies_inside_the_scan(evaluation: Evaluation) -> None:
    described = evaluation.metrics["conventions"]["region"]
    positions_px = SCAN.positions_px
    for axis, name in enumerate(("rows", "columns")):
        start, stop = described[name]
        assert positions_px[:, axis].min() <= start < stop <= positions_px[:, axis].max() + 1
    assert described["pixels"] == evaluation.region.mask.sum()
    assert described["illumination_threshold"] == PARAMS.region_threshold


def test_resolution_is_given_in_nanometres_where_the_pixel_is_known(evaluation: Evaluation) -> None:
    assert SCAN.optics is not None
    pixel_nm = SCAN.optics.object_pixel_m * 1e9
    frc = evaluation.metrics["methods"]["network"]["frc"]
    assert frc["frc50_nm"] == pytest.approx(pixel_nm / frc["frc50"])
    bare = replace(SCAN, optics=None)
    unknown = evaluate(bare, TRUTH, reconstructions()[:1], PARAMS, limit=limit_of(), dose=DOSE)
    assert unknown.metrics["methods"]["network"]["frc"]["frc50_nm"] is None
