"""Cells on Dask workers: all results arrive, whatever is killed, and nothing is left running."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.matrix.node import run_cell
from fly64_dose_overlap.pipeline.matrix.on_dask import run_on_dask
from node_cells import SLOW_TRAINING, Nodes, assert_collected, kill_worker, make_nodes, outcomes, wait_for
from study_copy import StudyCopy

pytestmark = pytest.mark.slow


@pytest.fixture
def nodes(study: StudyCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """Return nodes without a result, and their environment for what runs in this process."""
    for name, value in study.environment().items():
        monkeypatch.setenv(name, value)
    return make_nodes(study, tmp_path)


@contextmanager
def scheduler_with_a_worker(nodes: Nodes) -> Generator[str]:
    """Start a scheduler and a worker from the command line, as on two machines."""
    environment = nodes.study.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)}
    file = nodes.folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    where = ["--interface", "lo", "--no-dashboard", "--scheduler-file", str(file)]
    lines = [
        [*dask, "scheduler", "--port", "0", *where],
        [*dask, "worker", "--nthreads", "1", *where, "--local-directory", str(nodes.folder / "worker")],
    ]
    started = [subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL) for line in lines]
    try:
        wait_for(lambda: file.exists() or None, "the scheduler did not start")
        yield json.loads(file.read_text())["address"]
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=60)


def test_all_cells_arrive_though_a_worker_is_killed(nodes: Nodes, tmp_path: Path) -> None:
    jobs = nodes.matrix()
    engine = nodes.start("dask", jobs, gpus=["3", "5"])
    trainings = nodes.wait_for_trainings(2)
    assert {process.environ()["CUDA_VISIBLE_DEVICES"] for process in trainings} == {"3", "5"}
    kill_worker(trainings[0])
    assert outcomes(engine) == {job.name: None for job in jobs}
    assert sorted(nodes.attempts(job) for job in jobs) == [1] * (len(jobs) - 1) + [2]
    nodes.assert_nothing_left()
    assert_collected(nodes, jobs, tmp_path / "user")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_nothing_running_and_goes_on(nodes: Nodes, sent: signal.Signals) -> None:
    job = nodes.job("slow", *SLOW_TRAINING)
    engine = nodes.start("dask", [job])
    nodes.wait_for_checkpoint()
    training = nodes.wait_for_trainings()[0]
    engine.send_signal(sent)
    engine.communicate(timeout=60)
    training.wait(timeout=30)
    assert engine.returncode != 0

    assert outcomes(nodes.start("dask", [job])) == {job.name: None}
    assert "resumed from the checkpoint of epoch" in nodes.log(job)
    nodes.assert_nothing_left()


def test_an_interrupted_run_frees_the_workers_of_a_scheduler(nodes: Nodes) -> None:
    job = nodes.job("slow", *SLOW_TRAINING)
    with scheduler_with_a_worker(nodes) as address:
        engine = nodes.start("dask", [job], address=address)
        training = nodes.wait_for_trainings()[0]
        engine.send_signal(signal.SIGINT)
        engine.communicate(timeout=60)
        training.wait(timeout=30)
        wait_for(lambda: not nodes.processes() or None, "the worker goes on with the cell")
        assert outcomes(nodes.start("dask", [job], address=address)) == {job.name: None}
    nodes.assert_nothing_left()


def test_a_scheduler_that_does_not_answer_is_one_line(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "1s")
    engine = nodes.start("dask", [nodes.job("cell")], address="tcp://127.0.0.1:9")
    told = engine.communicate(timeout=60)[1].splitlines()[-1]
    assert "StudyError: Dask's scheduler tcp://127.0.0.1:9: cannot be reached" in told


def test_a_cell_whose_worker_dies_each_time_fails(nodes: Nodes) -> None:
    job = nodes.job("slow", *SLOW_TRAINING)
    engine = nodes.start("dask", [job], retries=0)
    kill_worker(nodes.wait_for_trainings()[0])
    assert outcomes(engine) == {job.name: "its worker died each time it was run"}
    assert nodes.processes() == []


def test_without_the_extra_the_error_names_it(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    message = re.escape("dask[distributed]: is not installed; install it with: pip install -e '.[cluster]'")
    with pytest.raises(StudyError, match=message):
        list(run_on_dask([nodes.job("cell")]))


def test_a_failed_cell_is_reported_and_not_run_again(nodes: Nodes) -> None:
    job = nodes.job("unknown", "dose=1001")
    error = outcomes(nodes.start("dask", [job]))[job.name]
    assert error is not None
    assert error.startswith("cell unknown: 'dvc exp run' ended with status 255; see ")
    assert "failed to reproduce 'check'" in error
    assert "dose 1001 is not among doses" in nodes.log(job)
    assert nodes.attempts(job) == 1
    nodes.assert_nothing_left()


def test_a_cell_that_was_pushed_is_not_run_again(nodes: Nodes, tmp_path: Path) -> None:
    job = nodes.job("1000-sparse", "dose=1000", "view=sparse", "methods.refined.learning_rate=2e-3")
    job = replace(job, dvc_config=(*job.dvc_config, ("cache.dir", str(tmp_path / "cache"))))
    run_cell(job)
    assert any((tmp_path / "cache").rglob("*"))
    told = nodes.log(job)
    run_cell(job)
    again = nodes.log(job).removeprefix(told)
    assert "$ git clone" in again
    assert "$ dvc exp run" not in again
    with pytest.raises(
        StudyError, match=r"experiment 1000-sparse: was pushed before with another view and methods;"
    ):
        run_cell(replace(job, overrides=("dose=1000", "view=dense")))
    nodes.assert_nothing_left()


def test_a_commit_that_was_not_pushed_is_refused(nodes: Nodes) -> None:
    nodes.study.commit("not pushed")
    job = nodes.job("cell")
    with pytest.raises(
        StudyError, match=r"cell cell: 'git checkout --quiet' ended with status 128; see .*fatal:"
    ):
        run_cell(job)
    nodes.assert_nothing_left()


def test_a_cluster_that_dask_does_not_know_is_refused(nodes: Nodes) -> None:
    in_charge = signal.getsignal(signal.SIGINT)
    for name in [name for name in sys.modules if name.partition(".")[0] == "dask_jobqueue"]:
        del sys.modules[name]
    with pytest.raises(StudyError, match=r"NoCluster: is no class of dask-jobqueue; there are .*PBSCluster"):
        list(run_on_dask([nodes.job("cell")], jobqueue="NoCluster"))
    assert "dask_jobqueue.runner" in sys.modules
    assert signal.getsignal(signal.SIGINT) is in_charge, "dask-jobqueue has taken Ctrl+C over"
