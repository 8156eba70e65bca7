"""Scores of all methods on one test half."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import factories
import tiny_scan
from fly64_dose_overlap.evaluation.reconstruct import FLAT, GROUP_START, NETWORK, Reconstructions
from fly64_dose_overlap.evaluation.scoring import Evaluation, evaluate

PARAMS = factories.study_params().evaluate


def made_up() -> Reconstructions:
    """Return the truth behind a phase, the truth with noise, and an empty object."""
    truth = tiny_scan.scan_dataset().obj
    noise = np.random.default_rng(0).normal(0, 0.1, (2, *truth.shape))
    close = truth * np.exp(0.9j)
    return {
        NETWORK: close.astype(np.complex64),
        GROUP_START: (truth + noise[0] + 1j * noise[1]).astype(np.complex64),
        FLAT: np.ones_like(truth),
    }


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(tiny_scan.scan_dataset(), made_up(), PARAMS)


def test_headline_is_the_network(evaluation: Evaluation) -> None:
    metrics = evaluation.metrics
    network = metrics["methods"][NETWORK]
    named = {
        f"psnr_{name.replace(' ', '_')}": scores["phase"]["psnr_db"]
        for name, scores in metrics["methods"].items()
        if name != NETWORK
    }
    assert list(metrics) == ["psnr", "ssim", "nrmse", *named, "methods", "conventions"]
    assert {name: metrics[name] for name in named} == named
    assert metrics["psnr"] == network["phase"]["psnr_db"]
    assert metrics["ssim"] == network["phase"]["ssim"]
    assert metrics["nrmse"] == network["complex_nrmse"]


def test_methods_are_ranked_as_they_are_good(evaluation: Evaluation) -> None:
    methods = evaluation.metrics["methods"]
    assert (
        list(methods) == [NETWORK, GROUP_START, FLAT] == list(evaluation.aligned) == list(evaluation.curves)
    )
    psnr = [methods[name]["phase"]["psnr_db"] for name in methods]
    error = [methods[name]["complex_nrmse"] for name in methods]
    assert psnr[0] > 50 > psnr[1] > psnr[2]
    assert error[0] < 0.01 < error[1] < error[2]
    assert methods[NETWORK]["frc"]["frc50"] > 0.9


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
    frc = evaluation.metrics["methods"][NETWORK]["frc"]
    assert frc["frc50_nm"] == pytest.approx(pixel_nm / frc["frc50"])
    unknown = evaluate(replace(dataset, record={}), {NETWORK: made_up()[NETWORK]}, PARAMS)
    assert unknown.metrics["methods"][NETWORK]["frc"]["frc50_nm"] is None
