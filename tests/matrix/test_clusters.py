"""What Slurm and Dask are asked and told, without either."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.matrix import on_dask, slurm
from fly64_dose_overlap.pipeline.matrix.node import CellJob

JOB = CellJob("1000-dense", (), "/git", "0" * 40, (), "/scratch")


def test_tasks_that_wait_are_seen_whatever_a_user_has_squeue_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text('#!/bin/sh\n[ -n "$SQUEUE_STATES$SQUEUE_PARTITION" ] || echo 7_0\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    assert slurm._queued() == {"7_0"}


def test_tasks_know_nothing_of_the_allocation_that_they_are_submitted_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitit = SimpleNamespace(
        SlurmExecutor=lambda **_: SimpleNamespace(update_parameters=lambda **_: None)  # pyright: ignore
    )
    monkeypatch.setattr(slurm, "require", lambda _: submitit)  # pyright: ignore
    for name in ("SLURM_MEM_PER_CPU", "SLURM_MEM_PER_NODE", "SLURM_TRES_PER_TASK", "SLURM_CPUS_PER_TASK"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    slurm._executor(tmp_path, 1, {"mem": "2048MB"})
    assert [name for name in os.environ if name.startswith("SLURM_")] == ["SLURM_CONF"]


def refuse(*_: Any, **__: Any) -> None:
    raise ValueError("You must specify how much cores and memory,\nfor example cores=8")


def test_arguments_that_dask_jobqueue_refuses_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_dask, "require", lambda *_: SimpleNamespace(PBSCluster=refuse))  # pyright: ignore
    message = r"PBSCluster: cannot be made \(You must .* memory, for example cores=8\); give .* by --cluster"
    with pytest.raises(StudyError, match=message):
        on_dask._jobqueue_cluster("PBSCluster", {})


def test_an_address_that_is_none_of_a_scheduler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_dask, "require", lambda *_: SimpleNamespace(Client=refuse))  # pyright: ignore
    with pytest.raises(StudyError, match="Dask's scheduler node1: cannot be reached"):
        next(on_dask.run_on_dask([JOB], address="node1"))
