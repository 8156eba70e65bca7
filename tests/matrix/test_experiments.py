"""The queue's files: which stages ran, which jobs live."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from fly64_dose_overlap.pipeline.matrix.experiments import (
    JOBS,
    WORKERS,
    Job,
    _runs,
    jobs_beside,
    stages_run,
    worker_pids,
)


def test_the_stages_of_a_log_in_their_order(tmp_path: Path) -> None:
    log = tmp_path / "job.out"
    log.write_text(
        "Stage 'base' didn't change, skipping\n"
        "Running stage 'overlap@3000-dense':\n> env PYTHONPATH=src python -m stages.overlap\n"
        "the words Running stage 'base': within a line\n"
        "Running stage 'train':\n"
        "Running stage 'evaluate':\n",
        encoding="utf-8",
    )
    assert stages_run(log) == ["overlap@3000-dense", "train", "evaluate"]


def test_a_log_that_is_not_there_has_no_stages(tmp_path: Path) -> None:
    assert stages_run(tmp_path / "job.out") == []


def test_a_process_is_known_by_its_number_and_its_command_line(tmp_path: Path) -> None:
    own = psutil.Process().cmdline()[0]
    assert _runs(os.getpid(), own)
    assert not _runs(os.getpid(), "exec-run")
    assert not Job("1000-dense", tmp_path / "job.out", os.getpid(), None).is_alive


def test_files_that_are_being_written_do_not_count_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    WORKERS.mkdir(parents=True)
    (WORKERS / "dvc-exp-worker-1.json").write_text('{"pid": ')
    (WORKERS / "dvc-exp-worker-2.json").touch()
    folder = JOBS / "one"
    folder.mkdir(parents=True)
    (folder / "one.run").write_text('{"name": "1000-dense"}')
    (folder / "one.json").write_text("")
    assert worker_pids() == []
    assert jobs_beside(set()) == {}

    (folder / "one.json").write_text('{"pid": 1, "returncode": 0}')
    assert jobs_beside(set()) == {"1000-dense": Job("1000-dense", folder / "one.out", 1, 0)}
    assert jobs_beside({"one"}) == {}
