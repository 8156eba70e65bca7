"""Cells run by an engine in a process of its own, for tests that kill and interrupt them.

As a script: ``python node_cells.py dask|slurm OPTIONS JOB...`` (JSON) runs the jobs and
prints one outcome per line.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from fly64_dose_overlap.pipeline.matrix.node import CellJob
from fly64_dose_overlap.pipeline.matrix.on_dask import run_on_dask
from fly64_dose_overlap.pipeline.matrix.slurm import run_on_slurm
from study_copy import DOSES, VIEWS, StudyCopy

Found = TypeVar("Found")

DEADLINE_S = 240.0
DATA_STAGES = re.compile(r"^Running stage '(?:base|reference|expose|overlap)", flags=re.MULTILINE)
ATTEMPT = re.compile(r"^cell \S+: attempt ", flags=re.MULTILINE)
SLOW_TRAINING = ("methods.refined.epochs=3", "methods.refined.steps_per_epoch=60")
"""Long enough to be killed after a checkpoint."""


@dataclass(frozen=True)
class Nodes:
    """What the nodes of a test share: a git repository, a DVC remote, a scratch folder."""

    study: StudyCopy
    folder: Path

    @property
    def scratch(self) -> Path:
        """Folder of clones and logs."""
        return self.folder / "scratch"

    def job(self, name: str, *overrides: str) -> CellJob:
        """Return a job of the study's last commit."""
        return CellJob(
            name=name,
            overrides=overrides,
            git_url=str(self.folder / "hub.git"),
            revision=self.study.git("rev-parse", "HEAD").strip(),
            dvc_config=(("core.remote", "store"), ("remote.store.url", str(self.folder / "remote"))),
            scratch=str(self.scratch),
        )

    def matrix(self) -> list[CellJob]:
        """Return a job for every cell of the study."""
        return [self.job(f"{d}-{v}", f"dose={d}", f"view={v}") for d in DOSES for v in VIEWS]

    def start(self, engine: str, jobs: Sequence[CellJob], **options: Any) -> subprocess.Popen[str]:
        """Start the engine on the jobs."""
        own = {"folder": str(self.folder / "slurm")} if engine == "slurm" else {}
        line = [sys.executable, __file__, engine, json.dumps(own | options)]
        return subprocess.Popen(
            [*line, *(json.dumps(asdict(job)) for job in jobs)],
            env=self.study.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def log(self, job: CellJob) -> str:
        """Return what the cell has logged."""
        return job.log_path.read_text(encoding="utf-8") if job.log_path.exists() else ""

    def attempts(self, job: CellJob) -> int:
        """Return how often the cell was started."""
        return len(ATTEMPT.findall(self.log(job)))

    def processes(self) -> list[psutil.Process]:
        """Return the processes that work in the scratch folder, or name it."""
        return [process for process in psutil.process_iter() if _belongs_to(process, str(self.scratch))]

    def wait_for_trainings(self, count: int = 1) -> list[psutil.Process]:
        """Return the processes that train a cell, once there are as many."""

        def trainings() -> list[psutil.Process] | None:
            found = [process for process in psutil.process_iter() if _trains(process, str(self.scratch))]
            return found if len(found) >= count else None

        return wait_for(trainings, f"there never were {count} cells in training")

    def wait_for_checkpoint(self) -> Path:
        """Wait until a training has written a checkpoint."""
        found = "*/clone/.dvc/tmp/checkpoints/*/last.pt"
        return wait_for(lambda: next(self.scratch.glob(found), None), "no checkpoint was written")

    def assert_nothing_left(self) -> None:
        """Check that no process and no clone is left."""
        wait_for(lambda: not self.processes() or None, f"left running: {self.processes()}")
        assert [path for path in self.scratch.iterdir() if path.suffix != ".log"] == []


def wait_for(look: Callable[[], Found | None], failure: str) -> Found:
    """Return what ``look`` finds, once it does."""
    deadline = time.monotonic() + DEADLINE_S
    while (found := look()) is None:
        assert time.monotonic() < deadline, failure
        time.sleep(0.02)
    return found


def make_nodes(study: StudyCopy, folder: Path) -> Nodes:
    """Push the data of a finished study, and give the nodes a bare repository to clone."""
    study.dvc("remote", "add", "--local", "--default", "store", str(folder / "remote"))
    study.dvc("push")
    study.git("clone", "--quiet", "--bare", str(study.root), str(folder / "hub.git"))
    return Nodes(study, folder)


def kill_worker(training: psutil.Process) -> None:
    """Kill the process that waits for a cell, and nothing of the cell itself."""
    cell = next(
        process
        for process in training.parents()
        if _names(process, "fly64_dose_overlap.pipeline.matrix.node")
    )
    worker = cell.parent()
    assert worker is not None
    worker.send_signal(signal.SIGKILL)
    wait_for(lambda: not training.is_running() or None, "the training outlived its worker")


def outcomes(engine: subprocess.Popen[str]) -> dict[str, str | None]:
    """Wait for the engine and return the error, or None, of every cell by name."""
    stdout, stderr = engine.communicate(timeout=DEADLINE_S * 2)
    assert engine.returncode == 0, stderr
    pairs = [json.loads(line) for line in stdout.splitlines()]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def assert_collected(nodes: Nodes, jobs: Sequence[CellJob], folder: Path) -> None:
    """Pull the experiments into a fresh clone and check that each is whole and its own."""
    folder.mkdir()
    user = StudyCopy(folder / "study")
    nodes.study.git("clone", "--quiet", str(nodes.folder / "hub.git"), str(user.root))
    user.dvc("remote", "add", "--local", "--default", "store", str(nodes.folder / "remote"))
    user.dvc("exp", "pull", "origin", *(job.name for job in jobs))
    models: set[bytes] = set()
    for job in jobs:
        user.dvc("exp", "apply", job.name)
        # From the cache alone: what it lacks was not pulled.
        user.dvc("checkout", "train@refined", "evaluate")
        params = user.params()
        assert f"{params['dose']}-{params['view']}" == job.name
        models.add((user.root / "models/refined/model.safetensors").read_bytes())
        assert not DATA_STAGES.search(nodes.log(job))
    assert len(models) == len(jobs)


def _belongs_to(process: psutil.Process, folder: str) -> bool:
    try:
        return process.cwd().startswith(folder) or any(folder in part for part in process.cmdline()[:3])
    except psutil.Error:
        return False


def _trains(process: psutil.Process, folder: str) -> bool:
    try:
        return process.cwd().startswith(folder + "/") and _names(
            process, "fly64_dose_overlap.pipeline.stages.train"
        )
    except psutil.Error:
        return False


def _names(process: psutil.Process, module: str) -> bool:
    line = process.cmdline()
    return "-m" in line and module in line[line.index("-m") + 1 :][:1]


def main(engine: str, given: str, *texts: str) -> None:
    """Run the jobs and print the outcomes."""
    jobs: list[CellJob] = []
    for text in texts:
        fields = json.loads(text)
        fields["overrides"] = tuple(fields["overrides"])
        fields["dvc_config"] = tuple(map(tuple, fields["dvc_config"]))
        jobs.append(CellJob(**fields))
    options = json.loads(given)
    if engine == "dask":
        found = run_on_dask(jobs, **options)
    else:
        found = run_on_slurm(jobs, Path(options.pop("folder")), **options)
    with closing(found):
        for job, error in found:
            print(json.dumps([job.name, error]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
