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


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(tiny_scan.scan_dataset(), reconstructions(), PARAMS, limit=limit_of(), dose=DOSE)


def test_headline_is_the_network(evaluation: Evaluation) -> None:
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
        evaluate(tiny_scan.scan_dataset(), reconstructions(), PARAMS, limit=other, dose=DOSE)


def test_evaluation_without_the_network_is_refused() -> None:
    with pytest.raises(StudyError, match="lack the method 'network'; make it with: dvc repro infer"):
        evaluate(tiny_scan.scan_dataset(), reconstructions()[1:], PARAMS, limit=limit_of(), dose=DOSE)


def test_reconstruction_on_another_grid_is_refused() -> None:
    small = replace(reconstructions()[0], obj=np.ones((9, 9), np.complex64))
    with pytest.raises(
        StudyError, match=r"^network: must have the region's shape \(100, 100\), got \(9, 9\)"
    ):
        evaluate(tiny_scan.scan_dataset(), [small], PARAMS, limit=limit_of(), dose=DOSE)


def test_scores_are_json_without_nan(evaluation: Evaluation) -> None:
    assert json.loads(json.dumps(evaluation.metrics, allow_nan=False)) == evaluation.metrics


def test_region_lies_inside_the_scan(evaluation: Evaluation) -> None:
    described = evaluation.metrics["conventions"]["region"]
    positions_px = tiny_scan.scan_dataset().positions_px
    for axis, name in enumerate(("rows", "columns")):
        start, stop = described[name]
        assert positions_px[:, axis].min() <= start < stop <= positions_px[:, axis].max() + 1
    assert described["pixels"] == evaluation.region.mask.sum()
    assert described["illumination_threshold"] == PARAMS.region_threshold


def test_resolution_is_given_in_nanometres_where_the_pixel_is_known(evaluation: Evaluation) -> None:
    dataset = tiny_scan.scan_dataset()
    pixel_nm = dataset.record["physics_parameters"]["object_pixel_m"] * 1e9
    frc = evaluation.metrics["methods"]["network"]["frc"]
    assert frc["frc50_nm"] == pytest.approx(pixel_nm / frc["frc50"])
    unknown = evaluate(
        replace(dataset, record={}), reconstructions()[:1], PARAMS, limit=limit_of(), dose=DOSE
    )
    assert unknown.metrics["methods"]["network"]["frc"]["frc50_nm"] is None
