"""Cells without DVC: independent jobs, one manifest, an honest exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tiny_scan
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.dataset import write_scan
from tiny_study import ROOT, write_params

TRAINING, RECONSTRUCTION = Path("models/jobs"), Path("reconstructions/jobs")
Completed = subprocess.CompletedProcess[str]


@pytest.fixture(autouse=True)
def _in_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    methods = {"refined": {**tiny_scan.SETTINGS["refined"], "epochs": 1, "steps_per_epoch": 1}}
    write_params(Path(), methods={**methods, "ml": {"epochs": 2}})
    for dose in (1000, 10000):
        for view in ("dense", "sparse"):
            for half in ("train", "test"):
                path = Path(f"data/views/{dose}/{view}/{half}.npz")
                write_scan(path, tiny_scan.scan(), tiny_scan.truth())


def jobs(*arguments: str) -> Completed:
    line = [sys.executable, "-m", "fly64_dose_overlap.pipeline.jobs", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def test_a_dry_run_prints_commands_and_makes_nothing() -> None:
    found = jobs("train", "--dry-run", "--dose", "1000", "--gridsize", "2", "--method", "refined")
    assert found.returncode == 0, found.stderr
    *lines, total = found.stdout.splitlines()
    for view, line in zip(("dense", "sparse"), lines, strict=True):
        folder = f"models/jobs/dose_1000/{view}/train/refined"
        assert f"one train refined data/views/1000/{view}/train.npz {folder} 2 --params" in line
    assert total == "2 of 9 jobs, 0 without data"
    assert not Path("models").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--dose", "1000"),
            "data/views/1000/baseline/train.npz, data/views/1000/baseline/test.npz: no such",
        ),
        (("--dose", "3000"), "--dose: 3000 is not among 1000, 10000, 100000"),
        (("--view", "baseline", "--gridsize", "2"), "cells: none matches all filters"),
        (("--params", "none.yaml"), "none.yaml: no such file"),
    ],
)
def test_bad_requests_are_refused(arguments: tuple[str, ...], message: str) -> None:
    found = jobs("train", "--dry-run", *arguments)
    assert found.returncode == 1
    assert found.stderr.startswith(f"error: {message}")
    assert found.stderr.count("\n") == 1


def test_an_unknown_task_is_a_usage_error() -> None:
    assert jobs("paint", "--dry-run").returncode == 2


@pytest.mark.slow
def test_every_job_is_listed_though_one_fails() -> None:
    Path("data/views/1000/sparse/test.npz").write_bytes(b"no archive")
    Path("data/views/1000/dense/test.npz").unlink()
    wanted = ("--method", "ml", "--split", "test", "--dose", "1000", "--dose", "10000", "--gridsize", "2")
    found = jobs("reconstruct", *wanted, "--allow-missing", "-j", "2")
    assert found.returncode == 1
    log = RECONSTRUCTION / "dose_1000/sparse/test/ml/reconstruct.log"
    assert f"error: jobs: 1 of 3 failed: {log}\n" in found.stderr
    listed = manifest(RECONSTRUCTION)
    counts = {"total_jobs": 18, "filtered_jobs": 3, "n_failed": 1, "skipped_count": 14}
    assert {key: listed[key] for key in counts} == counts
    (missing,) = listed["missing_jobs"]
    assert (missing["dose"], missing["view"]) == (1000, "dense")
    assert missing["reason"] == "data/views/1000/dense/test.npz not found"
    reasons = {job["reason"] for job in listed["skipped_jobs"]}
    assert reasons == {
        "dose 100000 was not asked for",
        "gridsize 1 was not asked for",
        "split train was not asked for",
    }
    failed, *others = listed["jobs"]
    assert failed["result"]["reason"].startswith("error: data/views/1000/sparse/test.npz: is not an NPZ file")
    assert failed["result"]["reason"] in log.read_text()
    for job in others:
        assert job["result"]["status"] == "success"
        assert (Path(job["folder"]) / "ml.npz").is_file()
        assert job["command"][2:5] == ["one", "reconstruct", "ml"]


@pytest.mark.slow
def test_a_trained_model_is_listed_with_its_digest_and_taken_up() -> None:
    wanted = ("--method", "refined", "--dose", "1000", "--view", "dense")
    assert jobs("train", *wanted).returncode == 0
    (job,) = manifest(TRAINING)["jobs"]
    bundle = Path(job["folder"]) / job["result"]["bundle"]
    assert job["result"]["sha256"] == sha256_of(bundle)
    assert job["result"]["size_bytes"] == bundle.stat().st_size
    again = jobs("train", *wanted)
    assert f"[dense/dose=1000] sha256: {job['result']['sha256']}" in again.stdout
    assert "finished before" in (bundle.parent / "train.log").read_text()
    assert jobs("reconstruct", *wanted, "--split", "test").returncode == 0
    (applied,) = manifest(RECONSTRUCTION)["jobs"]
    assert applied["command"][-2:] == ["--model", str(bundle)]
