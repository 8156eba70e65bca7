"""Cells as tasks of a real Slurm, which slurm.sh starts: all arrive, whatever is killed."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.matrix.slurm import run_on_slurm
from node_cells import SLOW_TRAINING, Nodes, assert_collected, kill_worker, make_nodes, outcomes, wait_for
from study_copy import StudyCopy, make_study

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> StudyCopy:
    """Return a study whose datasets are made; to be left as it is."""
    study = make_study(tmp_path_factory.mktemp("study"))
    study.dvc("repro")
    study.commit("all datasets")
    return study


@pytest.fixture
def nodes(finished: StudyCopy, tmp_path: Path) -> Nodes:
    """Return nodes without a result."""
    return make_nodes(finished.copy_to(tmp_path), tmp_path)


def queue() -> str:
    """Return what waits or runs in Slurm."""
    return subprocess.check_output(["squeue", "--noheader"], text=True)


def test_all_cells_arrive_though_a_task_is_killed(nodes: Nodes, tmp_path: Path) -> None:
    jobs = nodes.matrix()
    engine = nodes.start("slurm", jobs)
    kill_worker(nodes.wait_for_trainings(2)[0])
    assert outcomes(engine) == {job.name: None for job in jobs}
    assert sorted(nodes.attempts(job) for job in jobs) == [1] * (len(jobs) - 1) + [2]
    assert queue() == ""
    nodes.assert_nothing_left()
    assert_collected(nodes, jobs, tmp_path / "user")


def test_an_interrupted_run_cancels_its_tasks_and_goes_on(nodes: Nodes) -> None:
    slow, waiting = nodes.job("slow", *SLOW_TRAINING), nodes.job("waiting", "view=sparse", *SLOW_TRAINING)
    engine = nodes.start("slurm", [slow, waiting])
    nodes.wait_for_checkpoint()
    training = nodes.wait_for_trainings()[0]
    engine.send_signal(signal.SIGINT)
    engine.communicate(timeout=120)
    training.wait(timeout=30)
    assert engine.returncode != 0
    assert queue() == ""
    assert nodes.processes() == []

    assert outcomes(nodes.start("slurm", [slow, waiting])) == {"slow": None, "waiting": None}
    assert "resumed from the checkpoint of epoch" in nodes.log(slow) + nodes.log(waiting)
    nodes.assert_nothing_left()


def test_a_cell_whose_task_dies_each_time_fails(nodes: Nodes) -> None:
    job = nodes.job("slow", *SLOW_TRAINING)
    engine = nodes.start("slurm", [job], retries=0)
    kill_worker(nodes.wait_for_trainings()[0])
    error = outcomes(engine)[job.name]
    assert error is not None
    assert error.startswith("its task died 1 times; see ")
    assert nodes.processes() == []


def test_dask_starts_its_workers_as_jobs_of_slurm_and_replaces_them(nodes: Nodes) -> None:
    jobs = [nodes.job("one", "view=sparse"), nodes.job("two", "view=baseline")]
    cluster = {"cores": 1, "processes": 1, "memory": "1GB", "interface": "lo"}
    cluster |= {"log_directory": str(nodes.folder / "logs"), "job_directives_skip": ["--mem"]}
    engine = nodes.start("dask", jobs, jobqueue="SLURMCluster", cluster=cluster)
    cancelled = nodes.wait_for_trainings(2)[0].environ()["SLURM_JOB_ID"]
    subprocess.run(["scancel", cancelled], check=True)
    assert outcomes(engine) == {"one": None, "two": None}
    assert sorted(nodes.attempts(job) for job in jobs) == [1, 2]
    wait_for(lambda: not queue() or None, "tasks were left")
    nodes.assert_nothing_left()


def test_a_failed_cell_is_reported_and_not_run_again(nodes: Nodes) -> None:
    job = nodes.job("unknown", "dose=1001")
    error = outcomes(nodes.start("slurm", [job]))[job.name]
    assert error is not None
    assert error.startswith("cell unknown: 'dvc exp run' ended with status 255; see ")
    assert nodes.attempts(job) == 1
    nodes.assert_nothing_left()


def test_a_partition_that_is_not_there_is_refused(nodes: Nodes, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"sbatch: has refused 2 tasks .*Invalid partition"):
        list(run_on_slurm([nodes.job("one"), nodes.job("two")], tmp_path / "slurm", partition="none"))
    assert queue() == ""


def test_without_slurm_the_error_says_so(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [nodes.job("cell")]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StudyError, match="Slurm: there is no srun here"):
        list(run_on_slurm(jobs, tmp_path / "slurm"))
