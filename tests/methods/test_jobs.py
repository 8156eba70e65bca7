"""Reconstruction jobs run in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fly64_dose_overlap.methods.jobs import ReconstructionJob, cell_jobs, clear, collect, run_jobs

import factories
import tiny_scan
from fly64_dose_overlap.config import ReconstructParams
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.dataset import write_dataset
from fly64_dose_overlap.files.reconstruction import read_reconstructions
from tiny_study import write_params

FEW = {"ml": 3, "map": 2}


def params_of(**changes: Any) -> ReconstructParams:
    return factories.study_params().reconstruct.model_copy(update={"epochs": FEW, **changes})


@pytest.fixture
def params_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".dvc").mkdir()
    write_dataset(tmp_path / "data/views/10000/dense/test.npz", tiny_scan.scan_dataset())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(factories.ROOT / "src"))
    return write_params(tmp_path, reconstruct={"epochs": FEW})


def jobs_of(**changes: Any) -> list[ReconstructionJob]:
    return cell_jobs(10000, "dense", 2, params_of(**changes))


def test_a_cell_has_a_job_for_every_method(params_file: Path) -> None:
    jobs = jobs_of()
    assert [(job.method, job.split) for job in jobs] == [("ml", "test"), ("map", "test")]
    assert all(job.output_dir.parent == params_file.parent / ".dvc/tmp/reconstructions" for job in jobs)


def test_the_working_folder_changes_with_all_that_counts(params_file: Path) -> None:
    first = jobs_of()[0].output_dir
    assert jobs_of(workers=7)[0].output_dir == first
    assert jobs_of(epochs={"ml": 3})[0].output_dir == first
    assert jobs_of(epochs={"ml": 4})[0].output_dir != first
    assert jobs_of(seed=1)[0].output_dir != first
    other = replace(tiny_scan.scan_dataset(), scan_index=tiny_scan.scan_dataset().scan_index + 1)
    write_dataset(Path("data/views/10000/dense/test.npz"), other)
    assert jobs_of()[0].output_dir != first


def test_missing_data_are_said(params_file: Path) -> None:
    with pytest.raises(MissingFileError, match="make it with: dvc repro overlap@1000-dense"):
        cell_jobs(1000, "dense", 2, params_of())


@pytest.mark.slow
def test_methods_run_are_collected_and_kept(params_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    jobs = jobs_of()
    outcomes = run_jobs(jobs, params_file=params_file, workers=2)
    assert [outcome.returncode for outcome in outcomes] == [0, 0]
    collect(outcomes, Path("results"))
    found = read_reconstructions(Path("results"))
    assert [each.method for each in found] == ["ml", "ml_held_out", "map"]
    assert [each.label for each in found] == ["ML", "ML held-out", "MAP"]
    assert found[0].settings["epochs"] == 3
    assert found[1].settings["epochs"] == found[0].settings["held_out_epoch"] <= 3
    assert "held-out photons are explained best" in jobs[0].log_path.read_text()
    timings = list(Path(".dvc/tmp/timings").glob("*.json"))
    assert len(timings) == 3
    assert json.loads(timings[0].read_text())["cpu_seconds"] > 0
    capfd.readouterr()
    run_jobs(jobs, params_file=params_file, workers=2)
    assert capfd.readouterr().err.count("finished before") == 2
    clear(jobs)
    assert not jobs[0].output_dir.exists()


@pytest.mark.slow
def test_a_failed_method_does_not_stop_the_others(params_file: Path) -> None:
    jobs = jobs_of()
    broken = replace(jobs[0], data_path=Path("nowhere.npz"))
    outcomes = run_jobs([broken, jobs[1]], params_file=params_file, workers=1)
    assert [outcome.returncode for outcome in outcomes] == [1, 0]
    assert "error: nowhere.npz: no such file" in broken.log_path.read_text()
    with pytest.raises(
        StudyError,
        match=r"^reconstruct: 1 of 2 methods failed: ml/dense/dose=10000/test \(.*; see .*ml\.log\);",
    ):
        collect(outcomes, Path("results"))
    assert not Path("results").exists()


@pytest.mark.slow
def test_an_interrupt_ends_the_processes(params_file: Path) -> None:
    endless = write_params(params_file.parent, reconstruct={"epochs": {"ml": 100_000}, "patience": 100_000})
    job = replace(jobs_of()[0], output_dir=Path("work").resolve())

    def interrupt() -> None:
        while not (job.log_path.exists() and job.log_path.stat().st_size):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_jobs([job], params_file=endless, workers=1)
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(b"reconstruction.worker" in line and b"work" in line for line in commands)
    assert time.monotonic() - started < 60
