"""The matrix where people put it, and where they press Ctrl-C twice."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from matrix_study import (
    DEADLINE_S,
    LONGER,
    TWO_CELLS,
    experiments,
    kill_all,
    processes,
    started,
    states,
    wait_for_training,
    wait_until,
)
from study_copy import StudyCopy

pytestmark = pytest.mark.slow

ONE_CELL = ("--dose", "1000", "--view", "baseline")


def test_a_study_may_be_a_folder_of_a_larger_repository(
    finished: StudyCopy, remote: Path, tmp_path: Path
) -> None:
    study = finished.clone_to(tmp_path / "larger", "--no-local")
    shutil.rmtree(study.root / ".git")
    outer = StudyCopy(study.root.parent)
    outer.git("init", "--quiet", "--initial-branch", "main")
    outer.commit("start")
    study.use_remote(remote)
    try:
        assert "executed: check 1" in study.matrix(*ONE_CELL).stderr
        assert states(study) == {"1000-baseline": "done"}
        assert list(experiments(study)) == ["1000-baseline"]
    finally:
        kill_all(study)


def test_a_shallow_clone_is_refused_before_anything_runs(finished: StudyCopy, tmp_path: Path) -> None:
    shallow = StudyCopy(tmp_path / "study")
    finished.git("clone", "--quiet", "--depth", "1", finished.root.as_uri(), str(shallow.root))
    refused = shallow.matrix(*ONE_CELL, check=False)
    assert refused.returncode == 1
    assert refused.stderr == "error: git: this clone lacks older commits; fetch them: git fetch --unshallow\n"


def test_a_path_that_the_queue_cannot_use_is_refused_before_anything_runs(
    finished: StudyCopy, tmp_path: Path
) -> None:
    study = finished.clone_to(tmp_path / "größe")
    refused = study.matrix(*ONE_CELL, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {study.root}: DVC's queue works in no path with")
    assert not (study.root / ".dvc/tmp/exps").exists()


def test_two_interrupts_leave_nothing_running_and_the_next_call_heals_the_queue(clone: StudyCopy) -> None:
    clone.change_params(**LONGER)
    clone.commit("longer training")
    with started(clone, *TWO_CELLS) as process:
        wait_for_training(clone, process)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130
        wait_until(lambda: not processes(clone), "end of all processes")
    clone.matrix(*TWO_CELLS)
    assert states(clone) == {"1000-baseline": "done", "1000-sparse": "done"}
    rows = clone.dvc("queue", "status").stdout
    assert "Running" not in rows
    assert "Failed" not in rows
    assert clone.dvc("exp", "show", "--csv").stdout.count("Success") == 2
