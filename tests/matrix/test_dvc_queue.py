"""The queue's files: which stages ran, which jobs live."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import psutil
import pytest
from dvc.exceptions import DvcException

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.matrix.dvc_queue import (
    JOBS,
    WORKERS,
    Job,
    jobs_beside,
    queued_states,
    require_usable,
    stages_run,
    worker_log,
    worker_pids,
)
from fly64_dose_overlap.pipeline.processes import runs


def test_the_stages_of_a_log_in_their_order(tmp_path: Path) -> None:
    log = tmp_path / "job.out"
    log.write_text(
        "Stage 'base' didn't change, skipping\n"
        "Running stage 'overlap@3000-dense':\n> env PYTHONPATH=src python -m stages.overlap\n"
        "the words Running stage 'base': within a line\n"
        "Running stage 'train@refined':\n"
        "Running stage 'evaluate':\n",
        encoding="utf-8",
    )
    assert stages_run(log) == ["overlap@3000-dense", "train@refined", "evaluate"]


def test_a_log_that_is_not_there_has_no_stages(tmp_path: Path) -> None:
    assert stages_run(tmp_path / "job.out") == []


def test_a_process_is_known_by_its_number_and_its_command_line(tmp_path: Path) -> None:
    own = psutil.Process().cmdline()[0]
    assert runs(os.getpid(), own)
    assert not runs(os.getpid(), "exec-run")
    assert not Job("1000-dense", tmp_path, tmp_path / "job.out", os.getpid(), None).is_alive


def test_files_that_are_being_written_do_not_count_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    WORKERS.mkdir(parents=True)
    (WORKERS / "dvc-exp-worker-1.json").write_text('{"pid": ')
    (WORKERS / "dvc-exp-worker-2.json").touch()
    folder = JOBS / "one"
    folder.mkdir(parents=True)
    executor = {"name": "1000-dense", "root_dir": str(tmp_path / "copy"), "dvc_dir": "study/.dvc"}
    (folder / "one.run").write_text(json.dumps(executor))
    (folder / "one.json").write_text("")
    assert worker_pids() == []
    assert jobs_beside(set()) == {}

    (folder / "one.json").write_text('{"pid": 1, "returncode": 0}')
    job = Job("1000-dense", tmp_path / "copy/study", folder / "one.out", 1, 0)
    assert jobs_beside(set()) == {"1000-dense": job}
    assert jobs_beside({"one"}) == {}


def test_a_workers_words_are_found_where_no_job_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    WORKERS.mkdir(parents=True)
    (WORKERS / "dvc-exp-worker-1.out").touch()
    assert worker_log() is None
    (WORKERS / "dvc-exp-worker-2.out").write_text("no broker")
    assert worker_log() == WORKERS / "dvc-exp-worker-2.out"


def test_a_queue_that_cannot_be_read_is_refused_with_what_empties_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged() -> None:
        raise DvcException("lost")

    monkeypatch.setattr("dvc.repo.Repo", damaged)
    with pytest.raises(StudyError, match=rf"^DVC's queue: cannot be read \(lost\); delete {WORKERS}"):
        queued_states()


@pytest.mark.parametrize("name", ["größe", "a#b", "why?", "100%25"])
def test_a_path_that_the_queue_cannot_use_is_refused(name: str) -> None:
    with pytest.raises(StudyError, match=rf"{re.escape(name)}: DVC's queue works in no path with .*; move"):
        require_usable(Path("/study") / name)
    require_usable(Path("/my study/of-dose_1.0"))
