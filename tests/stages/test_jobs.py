"""The command that trains many cells: independent jobs, one manifest, an honest exit status."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import factories
from fly64_dose_overlap.learning import TrainingJob, build_training_jobs
from fly64_dose_overlap.pipeline.stages import jobs as stage
from fly64_dose_overlap.pipeline.stages._cli import command

MANIFEST = Path("models/jobs/training_manifest.json")
DEADLINE_S = 30.0
LONG_TRAINING = """
import factories
from fly64_dose_overlap.pipeline.stages.jobs import run_in_own_process
from fly64_dose_overlap.learning import build_training_jobs
params = factories.study_params()
job = build_training_jobs(params, doses=[1000], views=["dense"])[0][0]
run_in_own_process(job, config=params.train, neighbor_count=7, runner=factories.beat_forever)
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the parameters and all views."""
    root = tmp_path_factory.mktemp("study")
    shutil.copy(factories.ROOT / "params.yaml", root)
    factories.write_views(root / "data/views", factories.study_params())
    return root


@pytest.fixture(autouse=True)
def _in_study(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(study, tmp_path, dirs_exist_ok=True)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(command(stage.main), arguments)


def in_own_process(job: TrainingJob, runner: Any) -> dict[str, Any]:
    return stage.run_in_own_process(
        job, config=factories.study_params().train, neighbor_count=7, runner=runner
    )


def dense_job() -> TrainingJob:
    return build_training_jobs(factories.study_params(), doses=[1000], views=["dense"])[0][0]


def read_manifest(path: Path = MANIFEST) -> dict[str, Any]:
    return json.loads(path.read_text())


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command run everything for real but the training."""
    with_stand_in = functools.partial(stage.run_in_own_process, runner=factories.write_process_id)
    monkeypatch.setattr(stage, "run_in_own_process", with_stand_in)


def test_dry_run_lists_jobs_and_writes_the_manifest() -> None:
    found = invoke("--dry-run", "--dose", "1000", "--dose", "10000", "--view", "dense", "--gridsize", "2")
    assert found.exit_code == 0
    views, results = "data/views/{}/dense/train.npz", "models/jobs/dose_{}/dense/gs2"
    assert found.stdout.splitlines() == [
        f"1/2 dense/dose=1000 gridsize=2: {views.format(1000)} -> {results.format(1000)}",
        f"2/2 dense/dose=10000 gridsize=2: {views.format(10000)} -> {results.format(10000)}",
        "2 jobs, 0 failed, 0 skipped: models/jobs/training_manifest.json",
    ]
    assert [entry["result"] for entry in read_manifest()["jobs"]] == [{"status": "dry-run"}] * 2
    assert Path("models/jobs/dose_10000/dense/gs2").is_dir()
    assert not list(Path("models").rglob("*.log"))


def test_without_filters_the_whole_matrix_is_listed() -> None:
    assert invoke("--dry-run", "--artifact-root", "elsewhere").exit_code == 0
    entries = read_manifest(Path("elsewhere/training_manifest.json"))["jobs"]
    views = ["baseline", "dense", "sparse"]
    assert [(entry["dose"], entry["view"]) for entry in entries] == [
        (dose, view) for dose in (1000, 10000, 100000) for view in views
    ]


def test_missing_views_are_skipped_only_on_request() -> None:
    shutil.rmtree("data/views/1000/sparse")
    refused = invoke("--dry-run", "--dose", "1000")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: data/views/1000/sparse/train.npz")
    assert "dvc repro overlap@1000-sparse" in refused.stderr
    assert not MANIFEST.exists()

    assert invoke("--dry-run", "--dose", "1000", "--allow-missing").exit_code == 0
    manifest = read_manifest()
    assert [entry["view"] for entry in manifest["jobs"]] == ["baseline", "dense"]
    reason = "train.npz and test.npz not found"
    assert manifest["skipped_views"] == [{"dose": 1000, "view": "sparse", "reason": reason}]
    assert manifest["skipped_count"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--view", "baseline", "--gridsize", "2"), "error: job filter: no job matches view baseline"),
        (("--dose", "3000"), "error: job filter: no job has dose 3000; there are doses 1000, 10000"),
        (("--view", "thick"), "error: job filter: no job has view thick; there are doses 1000, 10000"),
        (("--params", "none.yaml"), "error: none.yaml: no such file"),
    ],
)
def test_bad_requests_are_refused(arguments: tuple[str, ...], message: str) -> None:
    found = invoke("--dry-run", *arguments)
    assert found.exit_code == 1
    assert message in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.usefixtures("stand_in")
def test_a_failed_job_stops_no_other_and_fails_the_command() -> None:
    Path("data/views/1000/dense/test.npz").write_bytes(b"no archive")
    found = invoke("--view", "dense", "--dose", "1000", "--dose", "10000")
    assert found.exit_code == 1
    log = "models/jobs/dose_1000/dense/gs2/train.log"
    assert f"error: jobs: 1 of 2 failed: dense/dose=1000 ({log})\n" in found.stderr
    assert "Traceback" not in found.stderr
    first, second = (entry["result"] for entry in read_manifest()["jobs"])
    assert first["status"] == "failed"
    assert first["reason"].startswith("data/views/1000/dense/test.npz: is not an NPZ file")
    assert first["reason"] in Path(log).read_text()
    assert second["status"] == "success"
    assert second["bundle"] == "model.safetensors"


@pytest.mark.usefixtures("stand_in")
def test_each_job_has_a_process_of_its_own() -> None:
    assert invoke("--dose", "1000", "--gridsize", "2").exit_code == 0
    processes = {entry["result"]["process"] for entry in read_manifest()["jobs"]}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_a_defect_is_a_failed_job_with_its_traceback_in_the_log() -> None:
    job = dense_job()
    reason = "ZeroDivisionError: a defect in the trainer"
    assert in_own_process(job, factories.have_a_bug) == {"status": "failed", "reason": reason}
    assert "Traceback" in job.log_path.read_text()


def test_a_killed_job_is_a_failed_job() -> None:
    found = in_own_process(dense_job(), factories.be_killed)
    reason = "its process ended with exit code -9 before it had a result"
    assert found == {"status": "failed", "reason": reason}


def test_killing_the_command_ends_its_job() -> None:
    beats = dense_job().artifact_dir / "beats"
    paths = os.pathsep.join(str(factories.ROOT / name) for name in ("src", "tests"))
    arguments = [sys.executable, "-c", LONG_TRAINING]
    with subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": paths}) as parent:
        try:
            _wait_until(beats.exists)
        finally:
            parent.send_signal(signal.SIGKILL)
    _wait_until(lambda: _is_still(beats))


def _wait_until(condition: Any) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def _is_still(path: Path) -> bool:
    before = path.stat().st_size
    time.sleep(0.5)
    return path.stat().st_size == before


def test_help_names_the_way_that_dvc_tracks() -> None:
    # In another process, because the formatting of the help draws random numbers.
    found = _python("-m", "fly64_dose_overlap.pipeline.stages.jobs", "--help")
    assert found.returncode == 0
    assert "dvc exp run --queue" in " ".join(found.stdout.split())


def test_dry_run_does_not_import_torch() -> None:
    code = "import sys; from fly64_dose_overlap.pipeline.stages.jobs import main; main(dry_run=True); "
    found = _python("-c", code + "sys.exit('torch' in sys.modules)")
    assert found.returncode == 0, found.stderr
    assert len(read_manifest()["jobs"]) == 9


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(factories.ROOT / "src")}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )
