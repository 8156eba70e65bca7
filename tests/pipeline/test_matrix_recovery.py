"""The matrix where something is missing, dies or is stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from matrix_study import (
    DEADLINE_S,
    JOBS,
    LONGER,
    TWO_CELLS,
    cached,
    data_made,
    data_outputs,
    experiments,
    job_logs,
    kill,
    kill_all,
    processes,
    started,
    states,
    wait_for_training,
    wait_until,
)
from study_copy import MATRIX_TIMEOUT_S, VIEWS, StudyCopy

pytestmark = pytest.mark.slow

FETCH_KILLED_WHILE_IT_COLLECTS = """
import importlib, os, signal, sys
from dvc.cli import main
collecting = importlib.import_module("dvc_data.index.collect")
collect = collecting._collect_from_index
def collect_or_die(cache, key, *arguments, **options):
    collect(cache, key, *arguments, **options)
    if cache.has_node(key):
        cache.commit()
        os.kill(os.getpid(), signal.SIGKILL)
collecting._collect_from_index = collect_or_die
main(["fetch", *sys.argv[1:]])
"""
RESTORE = """
from fly64_dose_overlap.config import load_params
from fly64_dose_overlap.pipeline.matrix.data import restore
from fly64_dose_overlap.pipeline.matrix.plan import Selection, plan
restore(plan(Selection(doses=[1000]), committed=load_params()), load_params())
"""


@pytest.mark.parametrize("remote_is", ["unknown", "moved away"])
def test_data_that_are_nowhere_are_not_made(
    fresh: StudyCopy, remote: Path, tmp_path: Path, remote_is: str
) -> None:
    if remote_is == "moved away":
        fresh.use_remote(Path(shutil.copytree(remote, tmp_path / "remote")))
        (tmp_path / "remote").rename(tmp_path / "elsewhere")
    result = fresh.matrix(check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: datasets: missing, and not restored")
    assert len(result.stderr.splitlines()) == 1
    assert fresh.data_files() == set()
    assert "No experiment tasks in the queue" in fresh.dvc("queue", "status").stdout
    assert experiments(fresh) == {}
    assert not list(fresh.root.glob(JOBS))
    assert processes(fresh) == []


def test_a_fetch_that_was_killed_while_it_collected_hides_no_data(clone: StudyCopy) -> None:
    views = {path for path in data_outputs(clone.lock()) if path.startswith("data/views/1000/")}
    killed = clone.run("python", "-c", FETCH_KILLED_WHILE_IT_COLLECTS, *sorted(views), check=False)
    assert killed.returncode == -signal.SIGKILL
    clone.run("env", "PYTHONPATH=src", "python", "-c", RESTORE)
    assert {digest for path, digest in data_outputs(clone.lock()).items() if path in views} <= cached(clone)


def longer(study: StudyCopy) -> None:
    study.change_params(**LONGER)
    study.commit("longer training")


def test_the_matrix_goes_on_after_a_reboot(clone: StudyCopy) -> None:
    longer(clone)
    with started(clone, "--dose", "1000") as process:
        wait_until(lambda: any(clone.root.glob(".dvc/tmp/checkpoints/*/last.pt")), "checkpoint")
        assert process.poll() is None
        kill_all(clone)
    assert experiments(clone) == {}
    before = job_logs(clone)
    assert "Running stage 'train@refined'" in before
    clone.matrix("--dose", "1000")
    assert states(clone) == {f"1000-{view}": "done" for view in VIEWS}
    assert sorted(experiments(clone)) == sorted(f"1000-{view}" for view in VIEWS)
    assert "resumed from the checkpoint" in job_logs(clone)
    assert data_made(job_logs(clone)) == set()
    wait_until(lambda: not processes(clone), "end of idle workers")


def test_a_lost_worker_costs_no_cell(clone: StudyCopy) -> None:
    longer(clone)
    with started(clone, "--dose", "1000") as process:
        wait_for_training(clone, process, jobs=2)
        files = sorted(clone.root.glob(".dvc/tmp/exps/celery/dvc-exp-worker-*.json"))
        assert len(files) == 2
        worker = psutil.Process(json.loads(files[0].read_text())["pid"])
        kill([worker, *worker.children(recursive=True)])
        assert process.wait(MATRIX_TIMEOUT_S) == 0
    assert states(clone) == {f"1000-{view}": "done" for view in VIEWS}
    assert sorted(experiments(clone)) == sorted(f"1000-{view}" for view in VIEWS)
    assert data_made(job_logs(clone)) == set()


def test_an_interrupt_stops_all_and_the_command_goes_on(clone: StudyCopy) -> None:
    longer(clone)
    with started(clone, *TWO_CELLS) as process:
        wait_for_training(clone, process)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130
    assert [process.cmdline() for process in processes(clone)] == []
    printed = (clone.root.parent / "matrix.log").read_text()
    assert "Traceback" not in printed
    clone.matrix(*TWO_CELLS)
    assert states(clone) == {"1000-baseline": "done", "1000-sparse": "done"}


def test_two_clones_run_at_the_same_time(clone: StudyCopy, remote: Path, tmp_path: Path) -> None:
    other = clone.clone_to(tmp_path / "my other clone")
    other.use_remote(remote)
    try:
        with started(clone, *TWO_CELLS) as first, started(other, *TWO_CELLS) as second:
            assert first.wait(MATRIX_TIMEOUT_S) == 0
            assert second.wait(MATRIX_TIMEOUT_S) == 0
    finally:
        kill_all(other)
    for study in (clone, other):
        assert sorted(experiments(study)) == ["1000-baseline", "1000-sparse"]
        assert data_made(job_logs(study)) == set()
