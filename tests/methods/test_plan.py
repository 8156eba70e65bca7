"""The 18 reconstructions of the study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fly64_dose_overlap.methods.jobs import Outcome
from fly64_dose_overlap.methods.plan import Plan, plan_jobs, write_summaries

import factories
from fly64_dose_overlap.errors import MissingFileError, StudyError

PARAMS = factories.study_params()
FILE = Path("params.yaml")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    factories.write_views(tmp_path / "data/views", PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(filters: dict[str, list[Any]] | None = None, **options: Any) -> Plan:
    return plan_jobs(PARAMS, Path("out"), filters or {}, **options)


def test_every_dose_view_and_half_has_a_job(root: Path) -> None:
    jobs = planned().jobs
    assert len(jobs) == 18
    assert {job.method for job in jobs} == {"lsqml"}
    assert len({job.output_dir for job in jobs}) == 18
    first = jobs[0]
    assert (first.dose, first.view, first.split) == (1000, "baseline", "train")
    assert first.data_path == Path("data/views/1000/baseline/train.npz")
    assert first.output_dir == Path("out/dose_1000/baseline/train/lsqml")
    assert [job.dose for job in jobs] == sorted(job.dose for job in jobs)


@pytest.mark.parametrize(
    ("filters", "jobs", "left_out"),
    [
        ({"dose": [1000]}, 6, 12),
        ({"dose": [1000], "view": ["dense"]}, 2, 16),
        ({"dose": [1000], "view": ["dense"], "split": ["train"]}, 1, 17),
        ({"gridsize": [1]}, 6, 12),
        ({"gridsize": [2], "split": ["test"]}, 6, 12),
    ],
)
def test_filters_combine(root: Path, filters: dict[str, list[Any]], jobs: int, left_out: int) -> None:
    plan = planned(filters)
    assert (len(plan.jobs), len(plan.left_out), plan.total) == (jobs, left_out, 18)
    assert all(reason.endswith("was not asked for") for _, reason in plan.left_out)


def test_several_methods_have_a_job_each(root: Path) -> None:
    assert planned(methods=["lsqml", "map"]).total == 36


def test_a_method_without_epochs_is_refused(root: Path) -> None:
    fewer = PARAMS.reconstruct.model_copy(update={"epochs": {"map": 3}})
    with pytest.raises(StudyError, match=r"^--method: lsqml has no reconstruct\.epochs in the parameters$"):
        plan_jobs(PARAMS.model_copy(update={"reconstruct": fewer}), Path("out"), {})


def test_a_filter_that_no_job_has_is_refused(root: Path) -> None:
    with pytest.raises(StudyError, match=r"^--dose: no job has dose 7; there are 1000, 10000, 100000$"):
        planned({"dose": [7]})
    with pytest.raises(StudyError, match=r"^reconstructions: no job matches all filters"):
        planned({"view": ["baseline"], "gridsize": [2]})


def test_missing_views_are_an_error_or_reported(root: Path) -> None:
    for file in root.glob("data/views/*/sparse/*.npz"):
        file.unlink()
    with pytest.raises(
        MissingFileError, match=r"6 jobs lack data.*dvc pull overlap@1000-sparse, or give --allow"
    ):
        planned()
    plan = planned(allow_missing=True)
    assert (len(plan.jobs), len(plan.missing)) == (12, 6)
    assert plan.missing[0][1] == "data/views/1000/sparse/train.npz not found"


def test_summaries_say_what_ran_and_what_did_not(root: Path) -> None:
    (root / "data/views/1000/sparse/test.npz").unlink()
    plan = planned({"dose": [1000], "view": ["dense", "sparse"]}, allow_missing=True)
    outcomes = [Outcome(job, returncode) for job, returncode in zip(plan.jobs, (0, 3, 0), strict=True)]
    path = write_summaries(Path("out"), plan, outcomes, FILE)
    manifest = json.loads(path.read_text())
    assert (manifest["total_jobs"], manifest["filtered_jobs"], manifest["n_failed"]) == (18, 3, 1)
    assert manifest["execution_results"][1] == {**plan.jobs[1].describe(), "returncode": 3}
    assert [job["view"] for job in manifest["missing_jobs"]] == ["sparse"]
    assert manifest["jobs"][0]["command"][-3:] == [
        "data/views/1000/dense/train.npz",
        "params.yaml",
        "out/dose_1000/dense/train/lsqml",
    ]
    summary = json.loads((path.parent / "skip_summary.json").read_text())
    assert summary["skipped_count"] == len(summary["skipped_jobs"]) == 14
    assert summary["missing_jobs"] == manifest["missing_jobs"]
    assert str(root) not in path.read_text()
