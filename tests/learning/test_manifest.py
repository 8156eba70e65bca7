"""The manifest of training jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fly64_dose_overlap.learning.jobs import SkippedJob

import factories
from fly64_dose_overlap.config import Params
from fly64_dose_overlap.learning import TrainingJob, build_training_jobs, run_training_job, write_manifest


def run_job(job: TrainingJob, params: Params) -> dict[str, Any]:
    return run_training_job(job, config=params.train, neighbor_count=7, runner=factories.write_bundle)


def test_manifest_lists_jobs_results_and_skipped_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = factories.study_params()
    factories.write_views(Path("data/views"), params)
    job = build_training_jobs(params, doses=[1000], views=["dense"])[0][0]
    skipped = [SkippedJob(1000, "sparse", "train.npz not found")]
    path = Path("models/jobs/training_manifest.json")
    result = run_job(job, params)
    write_manifest(path, [(job, result)], skipped)
    assert json.loads(path.read_text()) == {
        "jobs": [
            {
                "dose": 1000,
                "view": "dense",
                "gridsize": 2,
                "train_path": "data/views/1000/dense/train.npz",
                "test_path": "data/views/1000/dense/test.npz",
                "log_path": "models/jobs/dose_1000/dense/gs2/train.log",
                "result": result,
            }
        ],
        "skipped_views": [{"dose": 1000, "view": "sparse", "reason": "train.npz not found"}],
        "skipped_count": 1,
    }


def test_manifest_has_relative_paths_and_the_same_bytes_anywhere(tmp_path: Path) -> None:
    params = factories.study_params()
    texts: list[str] = []
    for root in (tmp_path / "one", tmp_path / "two"):
        data = root / "data/views"
        factories.write_views(data, params)
        jobs, _ = build_training_jobs(params, data_root=data, artifact_root=root / "models/jobs")
        outcomes = [(job, run_job(job, params)) for job in jobs[:2]]
        write_manifest(root / "manifest.json", outcomes, root=root)
        texts.append((root / "manifest.json").read_text())
    assert texts[0] == texts[1]
    assert str(tmp_path) not in texts[0]
    assert json.loads(texts[0])["jobs"][0]["log_path"] == "models/jobs/dose_1000/baseline/gs1/train.log"
