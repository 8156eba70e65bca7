"""Many cells without DVC: which jobs there are, what runs again, one manifest, an honest exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import factories
import tiny_scan
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.dataset import write_scan
from fly64_dose_overlap.files.reconstruction import read_reconstructions
from fly64_dose_overlap.pipeline import jobs
from fly64_dose_overlap.pipeline.jobs import Job, Plan, Task, plan_jobs, run_jobs
from fly64_dose_overlap.pipeline.stages._cli import command
from tiny_study import ROOT, write_params

PARAMS = factories.study_params()
DOSES = (1000, 10000, 100000)
VIEWS = (("baseline", 1), ("dense", 2), ("sparse", 2))
PARAMS_FILE = Path("params.yaml")
DENSE = Path("data/views/10000/dense")
STAND_IN = """
import json, pathlib, sys, time
folder, luck = pathlib.Path(sys.argv[1]), sys.argv[2]
print("at work", flush=True)
if luck == "bad":
    sys.exit("error: no luck")
if luck == "endless":
    time.sleep(100)
(folder / "result.json").write_text(json.dumps({"key": "k", "sha256": 64 * "0", "size_bytes": 3}))
"""


@pytest.fixture(autouse=True)
def _in_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with the parameters and, by name only, all views."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    for dose in DOSES:
        for view, _ in VIEWS:
            folder = Path(f"data/views/{dose}/{view}")
            folder.mkdir(parents=True)
            for half in ("train", "test"):
                (folder / f"{half}.npz").touch()
    (tmp_path / ".dvc").mkdir()
    write_tiny_params()


def write_tiny_params(**changes: Any) -> None:
    supervised = {**tiny_scan.SETTINGS["supervised"], "epochs": 1, "steps_per_epoch": 1}
    methods = {"ml": {"epochs": 2}, "supervised": supervised, **changes}
    write_params(Path(), methods=methods)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what has every job's process do next to nothing, or fail where its name says so."""

    def install(luck: Callable[[Job], str]) -> None:
        def line(job: Job, task: Task, params_file: Path) -> list[str]:
            del task, params_file
            return [sys.executable, "-I", "-S", "-c", STAND_IN, str(job.folder), luck(job)]

        monkeypatch.setattr(Job, "command", line)

    return install


def planned(task: Task = "reconstruct", **options: Any) -> Plan:
    return plan_jobs(PARAMS, task, **options)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(command(jobs.main), arguments)


def manifest(root: str) -> dict[str, Any]:
    return json.loads(Path(root, "manifest.json").read_text(encoding="utf-8"))


# Which jobs there are


def test_every_dose_and_view_is_trained_and_every_half_reconstructed() -> None:
    trained, reconstructed = planned("train").jobs, planned().jobs
    cells = [(dose, *view) for dose in DOSES for view in VIEWS]
    assert [(job.dose, job.view, job.gridsize) for job in trained] == cells
    assert {(job.method, job.split) for job in trained} == {("network", "train")}
    assert [(job.dose, job.view) for job in reconstructed[::2]] == [cell[:2] for cell in cells]
    assert [job.split for job in reconstructed] == ["train", "test"] * 9
    assert {job.method for job in reconstructed} == {"lsqml"}
    assert planned(methods=["lsqml", "map"]).total == 36


def test_paths_follow_from_the_cell_the_half_and_the_method() -> None:
    job = planned(dose=[1000], view=["sparse"], split=["test"]).jobs[0]
    assert job.name == "lsqml/sparse/dose=1000/test"
    assert job.data == Path("data/views/1000/sparse/test.npz")
    assert job.folder == Path("jobs/reconstructions/dose_1000/sparse/test/lsqml")
    assert job.log == job.folder / "reconstruct.log"
    trained = planned("train", root=Path("out")).jobs
    assert trained[0].folder == Path("out/dose_1000/baseline/train/network")
    assert len({job.folder for job in trained}) == 9


def test_a_reconstruction_takes_the_model_that_was_trained_on_its_cell() -> None:
    for split in ("train", "test"):
        job = planned(methods=["refined"], dose=[1000], view=["dense"], split=[split]).jobs[0]
        trained = planned("train", methods=["refined"], dose=[1000], view=["dense"]).jobs[0]
        assert job.command("reconstruct", PARAMS_FILE)[-2:] == [
            "--model",
            str(trained.folder / "model.safetensors"),
        ]
        assert "--model" not in trained.command("train", PARAMS_FILE)


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"dose": [1000]}, 6),
        ({"dose": [1000, 100000]}, 12),
        ({"dose": [1000], "view": ["dense"]}, 2),
        ({"dose": [1000], "view": ["dense"], "split": ["train"]}, 1),
        ({"gridsize": [1]}, 6),
        ({"gridsize": [2], "split": ["test"]}, 6),
        ({"view": ["baseline", "sparse"], "gridsize": [2]}, 6),
    ],
)
def test_filters_combine(filters: dict[str, Any], count: int) -> None:
    plan = planned(**filters)
    assert (len(plan.jobs), len(plan.left_out), plan.total) == (count, 18 - count, 18)
    assert all(getattr(job, name) in values for job in plan.jobs for name, values in filters.items())
    assert all(reason.endswith("was not asked for") for _, reason in plan.left_out)


def test_a_filter_without_a_match_is_refused() -> None:
    with pytest.raises(StudyError, match=r"^--dose: 7 is not among 1000, 10000, 100000$"):
        planned(dose=[1000, 7])
    with pytest.raises(StudyError, match=r"^--split: test is not among train$"):
        planned("train", split=["test"])
    with pytest.raises(StudyError, match=r"none matches all filters; leave out --view or --gridsize$"):
        planned(view=["baseline"], gridsize=[2])


@pytest.mark.parametrize("view", ["baseline", "sparse"])
@pytest.mark.parametrize("half", ["train", "test"])
@pytest.mark.parametrize("task", ["train", "reconstruct"])
def test_missing_data_are_refused_with_the_way_to_get_them(task: Task, half: str, view: str) -> None:
    path = Path(f"data/views/10000/{view}/{half}.npz")
    path.unlink()
    message = (
        f"^{path}: no such file, so the {view} view of dose 10000 cannot be used; "
        f"make it with: dvc repro overlap@10000-{view}, or fetch it with: dvc pull overlap@10000-{view}$"
    )
    with pytest.raises(MissingFileError, match=message):
        planned(task)
    assert len(planned(task, dose=[1000]).jobs) == (3 if task == "train" else 6)


def test_missing_views_can_be_left_out_but_no_baseline_to_be_trained_on() -> None:
    for path in Path("data/views").glob("*/sparse/*.npz"):
        path.unlink()
    plan = planned(allow_missing=True)
    assert (len(plan.jobs), len(plan.missing), plan.total) == (12, 6, 18)
    assert plan.missing[0][1] == "data/views/1000/sparse/train.npz not found"
    reason = "data/views/1000/sparse/train.npz and data/views/1000/sparse/test.npz not found"
    assert planned("train", allow_missing=True).missing[0][1] == reason
    Path("data/views/1000/baseline/test.npz").unlink()
    assert len(planned(allow_missing=True).jobs) == 11
    with pytest.raises(MissingFileError, match="the baseline view of dose 1000 cannot be used"):
        planned("train", allow_missing=True)


# What runs, and what is said of it


def test_a_dry_run_prints_the_commands_makes_nothing_and_needs_no_torch(tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    found = invoke("train", "--dry-run", "--dose", "1000", "--dose", "10000", "--view", "dense")
    assert found.exit_code == 0
    first, second, last = found.stdout.splitlines()
    assert " one train network data/views/1000/dense/train.npz jobs/models/dose_1000/dense/" in first
    assert " one train network data/views/10000/dense/train.npz jobs/models/dose_10000/dense/" in second
    assert last == "2 of 9 jobs, 0 without data"
    assert set(tmp_path.rglob("*")) == before
    code = f"from {jobs.__name__} import main; import sys; main('train', dry_run=True)"
    line = [sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"]
    assert subprocess.run(line, stdout=subprocess.DEVNULL, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--dose", "3000"), "error: --dose: 3000 is not among 1000, 10000, 100000"),
        (("train", "--view", "thick"), "error: --view: thick is not among baseline, dense, sparse"),
        (("train", "--params", "none.yaml"), "error: none.yaml: no such file"),
    ],
)
def test_bad_requests_are_refused_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    found = invoke(*arguments)
    assert found.exit_code == 1
    assert found.stderr.startswith(message)
    assert found.stderr.count("\n") == 1
    assert not Path("models").exists()


def test_an_unknown_task_is_a_usage_error() -> None:
    assert invoke("tran").exit_code == 2


def test_a_failed_job_stops_no_other_and_fails_the_command(stand_in: Callable[..., None]) -> None:
    stand_in(lambda job: "bad" if job.dose == 1000 else "good")
    found = invoke("train", "--view", "dense", "--dose", "1000", "--dose", "10000")
    log = "jobs/models/dose_1000/dense/train/network/train.log"
    assert found.exit_code == 1
    assert f"error: jobs: 1 of 2 failed: {log}\n" in found.stderr
    assert "2 of 9 jobs, 1 failed, 7 skipped, 0 without data: jobs/models/manifest.json" in found.stdout
    assert f"[dense/dose=10000] sha256: {64 * '0'}" in found.stdout
    failed, done = (job["result"] for job in manifest("jobs/models")["jobs"])
    assert failed == {"status": "failed", "returncode": 1, "reason": "error: no luck"}
    assert (done["status"], done["returncode"], done["size_bytes"]) == ("success", 0, 3)
    assert manifest("jobs/models")["n_failed"] == 1
    text = Path(log).read_text(encoding="utf-8")
    assert text.startswith("job network/dense/dose=1000/train starts: {'method': 'network', 'dose': 1000")
    assert text.endswith("at work\nerror: no luck\n")
    invoke("train", "--view", "dense", "--dose", "1000")
    assert Path(log).read_text(encoding="utf-8") == 2 * text


def test_the_manifest_lists_every_job_in_the_same_bytes_however_many_work(
    stand_in: Callable[..., None], tmp_path: Path
) -> None:
    stand_in(lambda job: "bad" if job.split == "train" else "good")
    Path("data/views/1000/sparse/test.npz").unlink()
    plan = planned(dose=[1000], view=["dense", "sparse"], allow_missing=True, root=Path("out"))
    written: list[bytes] = []
    for workers in (1, 3):
        outcome = run_jobs(plan, params_file=PARAMS_FILE, workers=workers)
        assert [each["split"] for each in outcome] == ["train", "test", "train"]
        assert manifest("out")["jobs"] == outcome
        written.append(Path("out/manifest.json").read_bytes())
    assert written[0] == written[1]
    assert str(tmp_path).encode() not in written[0]
    found = manifest("out")
    assert (found["total_jobs"], found["filtered_jobs"], found["n_failed"]) == (18, 3, 2)
    assert (len(found["skipped_jobs"]), found["skipped_count"]) == (14, 14)
    assert [(job["view"], job["split"]) for job in found["missing_jobs"]] == [("sparse", "test")]
    assert found["missing_jobs"][0]["reason"] == "data/views/1000/sparse/test.npz not found"


def test_a_slow_writer_does_not_put_an_older_manifest_over_a_newer(
    stand_in: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(lambda job: "good")
    write = jobs.write_json_atomic

    def slowly(path: Path, content: dict[str, Any]) -> None:
        if len(content["jobs"]) == 1:
            time.sleep(0.5)
        write(path, content)

    monkeypatch.setattr(jobs, "write_json_atomic", slowly)
    run_jobs(planned(dose=[1000], gridsize=[2], root=Path("out")), params_file=PARAMS_FILE, workers=4)
    assert len(manifest("out")["jobs"]) == 4


@pytest.fixture
def _heeded_interrupt() -> Iterator[None]:
    """Have an interrupt raise KeyboardInterrupt, which a shell makes its background jobs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heeded_interrupt")
def test_an_interrupt_ends_the_jobs_that_run_and_starts_no_other(
    stand_in: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(lambda job: "endless")
    plan = planned(dose=[1000], gridsize=[2])

    def interrupt() -> None:
        while not plan.jobs[0].log.is_file():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_jobs(plan, params_file=PARAMS_FILE, workers=1)
    assert not (plan.jobs[0].folder / "result.json").exists()  # which it writes at its end
    assert not plan.jobs[1].folder.exists()
    assert f"\n{plan.jobs[0].name}: interrupted\n" in capsys.readouterr().err


# One job


@pytest.fixture
def run_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., bool]:
    """Return what does a job in this process, and tells whether it had to."""
    monkeypatch.setattr(jobs, "end_with_parent", lambda parent: None)

    def run(task: Task, method: str, half: str = "test", model: Path | None = None) -> bool:
        folder = Path("out", task, method)
        folder.mkdir(parents=True, exist_ok=True)
        capsys.readouterr()
        jobs.one(task, method, DENSE / f"{half}.npz", folder, 2, model, PARAMS_FILE)
        return "finished before" not in capsys.readouterr().err

    return run


def write_views(*halves: str, more_photons: int = 0) -> None:
    scan = tiny_scan.scan()
    for half in halves:
        counts = scan.counts[:] + np.float32(more_photons)
        write_scan(DENSE / f"{half}.npz", replace(scan, counts=counts), tiny_scan.truth())


def test_a_finished_job_is_kept_until_anything_that_it_depends_on_changes(
    run_one: Callable[..., bool],
) -> None:
    write_views("test")
    assert run_one("reconstruct", "ml")
    folder = Path("out/reconstruct/ml")
    assert [each.method for each in read_reconstructions(folder)] == ["ml", "ml_held_out"]
    first = (folder / "result.json").read_bytes()
    assert set(json.loads(first)["files"]) == {"ml.npz", "ml_held_out.npz"}
    assert not run_one("reconstruct", "ml")
    write_tiny_params(ml={"epochs": 1})
    assert run_one("reconstruct", "ml")
    assert (folder / "result.json").read_bytes() != first
    write_tiny_params()
    assert run_one("reconstruct", "ml")
    assert (folder / "result.json").read_bytes() == first
    (folder / "ml.npz").unlink()
    assert run_one("reconstruct", "ml")
    write_views("test", more_photons=1)
    assert run_one("reconstruct", "ml")


def test_a_job_that_fails_half_way_leaves_no_result(
    run_one: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fly64_dose_overlap.pipeline import reconstruction

    write_views("test")
    run_one("reconstruct", "ml")

    def fail(*_: Any, **__: Any) -> None:
        raise StudyError("disk", "is full")

    write_tiny_params(ml={"epochs": 1})
    with monkeypatch.context() as patch:
        patch.setattr(reconstruction, "write_products", fail)
        with pytest.raises(StudyError, match="is full"):
            run_one("reconstruct", "ml")
    write_tiny_params()
    assert run_one("reconstruct", "ml")


def test_a_model_is_needed_and_another_one_gives_another_reconstruction(run_one: Callable[..., bool]) -> None:
    write_views("test", "train")
    model = Path("out/train/supervised/model.safetensors")
    with pytest.raises(StudyError, match=f"^{model}: no such model bundle; train the method first$"):
        run_one("reconstruct", "supervised", model=model)
    for more_photons in (0, 1):
        write_views("train", more_photons=more_photons)
        assert run_one("train", "supervised", "train")
        assert not run_one("train", "supervised", "train")
        result = json.loads(Path("out/train/supervised/result.json").read_text(encoding="utf-8"))
        assert result["files"] == {"model.safetensors": result["sha256"]}
        assert run_one("reconstruct", "supervised", model=model)
        assert not run_one("reconstruct", "supervised", model=model)


@pytest.mark.slow
def test_the_command_runs_jobs_in_processes_of_their_own() -> None:
    write_views("test")
    found = invoke("reconstruct", "--method", "ml", "--dose", "10000", "--view", "dense", "-j", "2")
    assert found.exit_code == 1
    failed, done = (job["result"] for job in manifest("jobs/reconstructions")["jobs"])
    assert failed["reason"].startswith("error: data/views/10000/dense/train.npz: is not an NPZ file")
    assert done["status"] == "success"
    folder = Path("jobs/reconstructions/dose_10000/dense/test/ml")
    assert [each.method for each in read_reconstructions(folder)] == ["ml", "ml_held_out"]
