"""Training jobs: which there are, what runs, what is checked and what is recorded."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import logging
import os
import re
import resource
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fly64_dose_overlap.learning.jobs import SkippedJob

import factories
from fly64_dose_overlap import learning as training
from fly64_dose_overlap.config import Params
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.dataset import write_dataset
from fly64_dose_overlap.learning import (
    TrainingJob,
    build_training_jobs,
    cell_job,
    execute_refining_job,
    execute_supervised_job,
    execute_training_job,
    run_training_job,
)

DOSES = (1000, 10000, 100000)


@pytest.fixture(autouse=True)
def _in_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def params() -> Params:
    return factories.study_params(doses=[10000, 1000, 100000], dose=1000, view="sparse")


@pytest.fixture
def jobs(params: Params) -> list[TrainingJob]:
    for dose in params.doses:
        for view in params.overlap.views:
            folder = Path(f"data/views/{dose}/{view}")
            folder.mkdir(parents=True)
            (folder / "train.npz").touch()
            (folder / "test.npz").touch()
    return build_training_jobs(params)[0]


@pytest.fixture
def job(params: Params) -> TrainingJob:
    for half in ("train", "test"):
        write_dataset(Path(f"data/views/1000/dense/{half}.npz"), factories.tiny_dataset(2))
    return build_training_jobs(params, doses=[1000], views=["dense"])[0][0]


def run_job(job: TrainingJob, params: Params, **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {"neighbor_count": 7, "runner": factories.write_bundle, **changes}
    return run_training_job(job, config=params.train, **arguments)


# Listing


def test_matrix_is_every_dose_with_every_view(jobs: list[TrainingJob]) -> None:
    cells = [(job.dose, job.view, job.gridsize) for job in jobs]
    views = [("baseline", 1), ("dense", 2), ("sparse", 2)]
    assert cells == [(dose, *view) for dose in DOSES for view in views]
    assert all(type(job.dose) is int for job in jobs)


def test_paths_follow_from_dose_view_and_group_side(jobs: list[TrainingJob]) -> None:
    job = jobs[2]
    assert job.name == "sparse/dose=1000"
    assert job.train_path == Path("data/views/1000/sparse/train.npz")
    assert job.test_path == Path("data/views/1000/sparse/test.npz")
    assert job.artifact_dir == Path("models/jobs/dose_1000/sparse/gs2")
    assert len({job.artifact_dir for job in jobs}) == 9
    for job in jobs:
        assert job.log_path.parent == job.artifact_dir
        assert job.curves_dir.parent == job.artifact_dir


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({}, 9),
        ({"doses": [1000]}, 3),
        ({"doses": [1000, 100000]}, 6),
        ({"views": ["baseline"]}, 3),
        ({"gridsizes": [2]}, 6),
        ({"gridsizes": [1, 2]}, 9),
        ({"doses": [10000], "views": ["dense"], "gridsizes": [2]}, 1),
        ({"views": ["baseline", "sparse"], "gridsizes": [2]}, 3),
    ],
)
def test_filters_combine(params: Params, filters: dict[str, Any], count: int) -> None:
    jobs, skipped = build_training_jobs(params, **filters)
    assert len(jobs) == count
    assert skipped == []
    attributes = {"doses": "dose", "views": "view", "gridsizes": "gridsize"}
    for key, values in filters.items():
        assert {getattr(job, attributes[key]) for job in jobs} <= set(values)


@pytest.mark.parametrize(
    ("filters", "problem"),
    [
        ({"views": ["baseline"], "gridsizes": [2]}, "no job matches view baseline, gridsize 2"),
        ({"doses": [1000, 3000]}, "no job has dose 3000"),
        ({"gridsizes": [3, 4]}, "no job has gridsize 3 or 4"),
        ({"doses": []}, r"no job matches dose \(none given\)"),
    ],
)
def test_filters_without_a_match_are_explained(params: Params, filters: dict[str, Any], problem: str) -> None:
    exists = (
        r"there are doses 1000, 10000, 100000 and views "
        r"baseline \(gridsize 1\), dense \(gridsize 2\), sparse \(gridsize 2\)"
    )
    with pytest.raises(StudyError, match=f"^job filter: {problem}; {exists}$"):
        build_training_jobs(params, **filters)


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize("view", ["baseline", "dense", "sparse"])
@pytest.mark.parametrize("half", ["train", "test"])
def test_missing_data_are_refused_with_the_way_to_get_them(params: Params, view: str, half: str) -> None:
    path = Path(f"data/views/10000/{view}/{half}.npz")
    path.unlink()
    message = (
        f"^{path}: no such file, so the {view} view of dose 10000 cannot be trained; "
        f"make it with: dvc repro overlap@10000-{view}, or fetch it with: dvc pull overlap@10000-{view}$"
    )
    with pytest.raises(MissingFileError, match=message) as caught:
        build_training_jobs(params)
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.usefixtures("jobs")
def test_missing_views_can_be_skipped(params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    for path in Path("data/views").glob("*/sparse/*.npz"):
        path.unlink()
    jobs, skipped = build_training_jobs(params, allow_missing=True)
    assert [job.view for job in jobs] == ["baseline", "dense"] * 3
    reason = "train.npz and test.npz not found"
    assert skipped == [SkippedJob(dose, "sparse", reason) for dose in DOSES]
    folder = "data/views/1000/sparse"
    message = f"skipped sparse/dose=1000: {folder}/train.npz, {folder}/test.npz not found\n"
    assert message in capsys.readouterr().err


def test_a_missing_baseline_is_never_skipped(params: Params, jobs: list[TrainingJob]) -> None:
    jobs[0].test_path.unlink()
    with pytest.raises(MissingFileError, match="the baseline view of dose 1000 cannot be trained"):
        build_training_jobs(params, allow_missing=True)
    assert len(build_training_jobs(params, views=["dense"])[0]) == 3


def test_the_cell_of_the_parameters_is_a_job(params: Params) -> None:
    job = cell_job(params.dose, params.view, params.overlap.views[params.view].gridsize)
    assert (job.dose, job.view, job.gridsize) == (1000, "sparse", 2)
    assert job.train_path == Path("data/views/1000/sparse/train.npz")
    assert job.artifact_dir == Path("models/cell")
    assert job.log_path == Path("models/cell/train.log")
    assert job.curves_dir == Path("metrics/train")


def test_listing_jobs_does_not_import_torch() -> None:
    code = "import sys, fly64_dose_overlap.learning; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(factories.ROOT / "src")}
    found = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert found.returncode == 0


# Running


def test_dry_run_prepares_the_folder_and_nothing_more(params: Params) -> None:
    job = cell_job(params.dose, params.view, params.overlap.views[params.view].gridsize)
    found = run_job(job, params, runner=factories.have_a_bug, dry_run=True)
    assert found == {
        "status": "dry-run",
        "dose": 1000,
        "view": "sparse",
        "gridsize": 2,
        "train_path": "data/views/1000/sparse/train.npz",
        "test_path": "data/views/1000/sparse/test.npz",
        "log_path": "models/cell/train.log",
    }
    assert list(job.artifact_dir.iterdir()) == []


def test_runner_gets_the_job_with_its_log_started(params: Params, job: TrainingJob) -> None:
    calls: list[dict[str, Any]] = []

    def runner(**arguments: Any) -> dict[str, Any]:
        calls.append(arguments)
        found = [line.split(" ", 2)[2] for line in job.log_path.read_text().splitlines()]
        assert found == [
            "training job dense/dose=1000 starts",
            "dose: 1000",
            "view: dense",
            "gridsize: 2",
            "train_path: data/views/1000/dense/train.npz",
            "test_path: data/views/1000/dense/test.npz",
            "log_path: models/jobs/dose_1000/dense/gs2/train.log",
            f"config: {params.train.model_dump_json()}",
        ]
        return factories.write_bundle(**arguments)

    run_job(job, params, runner=runner)
    assert len(calls) == 1
    assert calls[0] == {"config": params.train, "job": job, "log_path": job.log_path}
    assert calls[0]["config"] is params.train


def test_result_describes_the_bundle_on_disk(
    params: Params, job: TrainingJob, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_job(job, params)
    content = (job.artifact_dir / found["bundle"]).read_bytes()
    assert found["status"] == "success"
    assert found["bundle"] == "model.safetensors"
    assert found["sha256"] == hashlib.sha256(content).hexdigest()
    assert found["size_bytes"] == len(content) > 0
    assert capsys.readouterr().out.splitlines() == [
        "[dense/dose=1000] bundle: model.safetensors",
        f"[dense/dose=1000] sha256: {found['sha256']}",
        f"[dense/dose=1000] size_bytes: {found['size_bytes']}",
    ]


def test_a_log_without_room_is_an_error_and_no_traceback_per_line(
    params: Params, job: TrainingJob, capsys: pytest.CaptureFixture[str]
) -> None:
    most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            run_job(job, params, runner=factories.have_a_bug)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    assert "Logging error" not in capsys.readouterr().err


def test_a_repeated_run_adds_to_the_log(params: Params, job: TrainingJob) -> None:
    for _ in range(2):
        run_job(job, params)
    log = job.log_path.read_text()
    assert log.count("training job dense/dose=1000 starts") == 2
    assert log.count("the trainer was here") == 2
    lines = [line for line in log.splitlines() if line != "the trainer was here"]
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} INFO "
    assert all(re.match(stamp, line) for line in lines)


@pytest.mark.parametrize("half", ["train", "test"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            Path.unlink,
            "no such file, so the dense view of dose 1000 cannot be trained; make it with: dvc repro",
        ),
        (lambda path: path.write_bytes(b"no archive"), "is not an NPZ file, or is truncated"),
        (lambda path: write_dataset(path, factories.tiny_dataset(1)), "'groups' has 1 frames per group"),
    ],
)
def test_data_are_checked_again_before_training(
    params: Params, job: TrainingJob, half: str, damage: Callable[[Path], Any], message: str
) -> None:
    path = job.train_path.with_name(f"{half}.npz")
    damage(path)
    with pytest.raises(StudyError, match=f"^{path}: {message}"):
        run_job(job, params, runner=factories.have_a_bug)
    log = job.log_path.read_text()
    assert f"ERROR failed: {path}: {message}" in log
    assert "Traceback" not in log


def test_groups_must_fit_the_neighbour_count(params: Params, job: TrainingJob) -> None:
    with pytest.raises(StudyError, match=r"neighbor_count=3 < C=4 \(OVERSAMPLING-001\)"):
        run_job(job, params, neighbor_count=3)


def test_a_defect_of_the_trainer_keeps_its_traceback(params: Params, job: TrainingJob) -> None:
    with pytest.raises(ZeroDivisionError, match="a defect"):
        run_job(job, params, runner=factories.have_a_bug)
    log = job.log_path.read_text()
    assert "ERROR failed: ZeroDivisionError" in log
    assert "in have_a_bug" in log


def changed(**changes: Any) -> Callable[..., dict[str, Any]]:
    """Return a runner whose result is not true to what it wrote; None leaves a key out."""

    def runner(**arguments: Any) -> dict[str, Any]:
        result = {**factories.write_bundle(**arguments), **changes}
        return {key: value for key, value in result.items() if value is not None}

    return runner


@pytest.mark.parametrize(
    ("runner", "message"),
    [
        (
            changed(sha256="0" * 64),
            r"sha256 is [0-9a-f]{64}, but the trainer reported 0{64}",
        ),
        (changed(size_bytes=1), r"model\.safetensors: size_bytes is \d+, but the trainer reported 1"),
        (changed(bundle="other.safetensors"), r"other\.safetensors: no such file"),
        (changed(bundle="/etc/hostname"), "the bundle must lie in models/jobs/dose_1000/dense/gs2, got /etc"),
        (changed(bundle="../model"), r"the bundle must lie in .*, got \.\./model"),
        (changed(status="failed"), r"ended with status 'failed'; see models/jobs/.*/train\.log"),
        (changed(sha256=None, size_bytes=None), "the trainer's result lacks 'sha256', 'size_bytes'"),
        (changed(val_loss=float("nan")), "the trainer's result cannot be written as JSON"),
        (changed(history=object()), "the trainer's result cannot be written as JSON"),
    ],
)
def test_results_that_are_not_true_are_refused(
    params: Params, job: TrainingJob, runner: Callable[..., dict[str, Any]], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        run_job(job, params, runner=runner)
    assert re.search(f"ERROR failed: .*{message}", job.log_path.read_text())


def test_a_folder_that_cannot_be_made_is_refused(params: Params, job: TrainingJob) -> None:
    Path("models").write_text("in the way")
    with pytest.raises(StudyError, match=r"^models/jobs/dose_1000/dense/gs2: cannot be created"):
        run_job(job, params)


def test_a_log_that_cannot_be_written_is_refused(params: Params, job: TrainingJob) -> None:
    job.log_path.mkdir(parents=True)
    with pytest.raises(StudyError, match=r"train\.log: cannot be written \(Is a directory\)"):
        run_job(job, params)


@pytest.mark.parametrize(
    ("runner", "arm", "epochs"),
    [
        (execute_training_job, "PhysicsInformed", "epochs"),
        (execute_refining_job, "Refiner", "joint_epochs"),
        (execute_supervised_job, "Supervised", "supervised_epochs"),
    ],
)
def test_a_runner_trains_its_arm(
    params: Params, job: TrainingJob, monkeypatch: pytest.MonkeyPatch, runner: Any, arm: str, epochs: str
) -> None:
    def train_cell(arm: Any, *, config: Any, job: TrainingJob, log: logging.Logger) -> dict[str, Any]:
        log.info("training %s for %s epochs", arm.__name__, config.epochs)
        return factories.write_bundle(config=config, job=job, log_path=job.log_path)

    trainer = types.ModuleType("trainer")
    trainer.train_cell = train_cell  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "fly64_dose_overlap.learning.trainer", trainer)
    for each in ("physics_informed", "supervised"):  # imported first, as torch makes loggers too
        importlib.import_module(f"fly64_dose_overlap.learning.{each}")
    loggers = set(logging.root.manager.loggerDict)

    config = params.train.model_copy(update={"epochs": 7, "joint_epochs": 5, "supervised_epochs": 3})
    found = run_training_job(job, config=config, neighbor_count=7, runner=runner)

    assert found["status"] == "success"
    log = job.log_path.read_text()
    assert re.search(
        rf"INFO training {arm} for {getattr(config, epochs)} epochs\nthe trainer was here\n", log
    )
    assert set(logging.root.manager.loggerDict) == loggers


def test_the_default_runner_is_the_physics_informed_one() -> None:
    default = inspect.signature(run_training_job).parameters["runner"].default
    assert default is execute_training_job is training.execute_training_job
