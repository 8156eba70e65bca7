"""Cells and repeats: what is averaged, what is missing, and what is refused."""

from __future__ import annotations

import math

import pytest

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.report.study import BAYESIAN_LIMIT, make_study
from fly64_dose_overlap.scores.catalogue import AMPLITUDE_SSIM, COMPLEX_NRMSE, PHASE_PSNR
from report_runs import DOSES, METHODS, evaluation, full_study, new_run, study_of


def test_all_nine_cells_make_a_complete_study() -> None:
    study = full_study()
    assert study.status == "complete: 9 of 9 cells"
    assert list(study.cells)[:4] == [
        (1000, "baseline"),
        (1000, "dense"),
        (1000, "sparse"),
        (10000, "baseline"),
    ]
    assert list(study.methods) == ["network", "LSQML", "rPIE", "flat object"]


def test_missing_and_failed_cells_are_named() -> None:
    runs = [
        new_run(1000, "baseline"),
        new_run(1000, "dense", state="failed"),
        new_run(1000, "sparse", state="running"),
    ]
    status = study_of(*runs).status
    assert status.startswith(
        "incomplete: 1 of 9 cells; failed: 1000-dense; running: 1000-sparse; missing: 10000-"
    )


def test_failed_repeat_of_a_done_cell_is_named_and_not_averaged() -> None:
    study = study_of(new_run(1000, "dense"), new_run(1000, "dense", seed=43, state="failed"))
    assert "failed repeats: 1000-dense-seed43" in study.status
    found = study.cells[1000, "dense"].value("network", PHASE_PSNR)
    assert found is not None
    assert (found.mean, found.spread, found.n) == (24.0, None, 1)


def test_repeats_give_mean_and_sample_standard_deviation() -> None:
    better = {**METHODS, "network": ("learned", 26.0, 0.04)}
    study = study_of(new_run(1000, "dense"), new_run(1000, "dense", seed=43, methods=better))
    found = study.cells[1000, "dense"].value("network", PHASE_PSNR)
    assert found is not None
    assert found.n == 2
    assert found.mean == 25.0
    assert found.spread == pytest.approx(math.sqrt(2))


def test_equal_seed_counts_once_and_the_first_one_stays() -> None:
    second = {**METHODS, "network": ("learned", 99.0, 0.04)}
    study = study_of(new_run(1000, "dense"), new_run(1000, "dense", methods=second))
    found = study.cells[1000, "dense"].value("network", PHASE_PSNR)
    assert found is not None
    assert (found.mean, found.n) == (24.0, 1)


def test_dose_outside_the_list_adds_its_own_row_of_cells() -> None:
    study = study_of(new_run(3000, "dense"))
    assert study.doses == [1000, 3000, 10000, 100000]
    assert study.status.startswith("incomplete: 1 of 12 cells")


def test_best_is_that_of_the_printed_value() -> None:
    tied = {**METHODS, "LSQML": ("iterative", 24.001, 0.06)}
    cell = study_of(new_run(1000, "dense", methods=tied)).cells[1000, "dense"]
    assert cell.best(PHASE_PSNR) == {"network", "LSQML"}
    assert cell.best(COMPLEX_NRMSE) == {"network"}
    assert cell.strongest("iterative") == "LSQML"


def test_delta_is_leader_minus_method() -> None:
    study = full_study()
    cell = study.cells[1000, "dense"]
    assert study.leader == "network"
    assert study.delta(cell, "rPIE", PHASE_PSNR) == pytest.approx(3.0)
    assert study.delta(cell, "rPIE", COMPLEX_NRMSE) == pytest.approx(-0.03)
    assert study.delta(cell, "not there", PHASE_PSNR) is None


def test_leader_has_the_highest_phase_psnr_in_most_cells() -> None:
    strong = {**METHODS, "LSQML": ("iterative", 40.0, 0.01)}
    runs = [new_run(1000, "dense"), new_run(1000, "sparse"), new_run(10000, "dense", methods=strong)]
    assert study_of(*runs).leader == "network"
    assert list(study_of(*runs).methods) == ["network", "LSQML", "rPIE", "flat object"]


def test_of_equal_seeds_the_run_with_most_methods_stays() -> None:
    few = {"network": ("learned", 99.0, 0.04)}
    study = study_of(new_run(1000, "dense", methods=few), new_run(1000, "dense"))
    assert set(study.cells[1000, "dense"].methods) == set(METHODS)


def test_limit_is_known_where_nothing_was_run() -> None:
    bounds = {**evaluation()["limit"], "phase_psnr_db": 31.0}
    study = study_of(new_run(1000, "dense"), limits={(1000, "sparse"): bounds, (1000, "dense"): bounds})
    assert study.cells[1000, "sparse"].limit(PHASE_PSNR) == 31.0
    assert study.cells[1000, "dense"].limit(PHASE_PSNR) == 28.0, "a result brings its own"
    assert study.cells[10000, "dense"].limit(PHASE_PSNR) is None


def test_few_runs_with_parameters_of_their_own_are_trials() -> None:
    assert study_of(new_run(1000, "dense"), variant="ab12cd").is_trial
    assert not study_of(new_run(1000, "dense")).is_trial
    runs = [new_run(dose, "dense") for dose in (1000, 10000)]
    assert not make_study("own", "", runs, variant="ab12cd").is_trial, "a whole matrix, if a small one"


def test_a_trial_is_no_incomplete_study() -> None:
    trial = study_of(new_run(1000, "dense"), variant="ab12cd")
    assert trial.status == "trial"
    lost = study_of(new_run(1000, "dense", state="failed"), variant="ab12cd")
    assert lost.status == "trial; failed: 1000-dense"
    (one, two) = DOSES[:2]
    of_two = make_study(
        "own", "", [new_run(one, "dense")], doses=[one, two], views=["dense"], variant="ab12cd"
    )
    assert of_two.status == "trial", "one cell by intent, also where the matrix has two"


def test_only_scores_with_a_limit_have_one() -> None:
    cell = full_study((1000, "sparse")).cells[1000, "dense"]
    assert cell.limit(PHASE_PSNR) == 28.0
    assert cell.limit(AMPLITUDE_SSIM) is None
    assert cell.limit(PHASE_PSNR, BAYESIAN_LIMIT) is None
    assert full_study((1000, "sparse")).cells[1000, "sparse"].limit(PHASE_PSNR) is None


def test_scores_of_the_training_half_are_refused() -> None:
    run = new_run(1000, "dense")
    run.evaluation["conventions"]["split"] = "train"
    with pytest.raises(
        StudyError,
        match=r"1000-dense: metrics/evaluation.json: must be of the test half or all frames, got 'train'",
    ):
        study_of(run)


def test_result_without_a_method_is_refused() -> None:
    with pytest.raises(StudyError, match=r"1000-dense: metrics/evaluation.json: has no method"):
        study_of(new_run(1000, "dense", methods={}))


def test_method_has_its_short_name_in_files() -> None:
    run = new_run(1000, "dense")
    assert run.key("LSQML") == "lsqml"
    del run.methods["flat object"]["key"]
    assert run.key("flat object") == "flat_object"
