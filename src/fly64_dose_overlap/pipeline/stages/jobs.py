"""Train several cells of the study outside DVC, one after another."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import typer

from fly64_dose_overlap.config import PARAMS_FILE, Params, TrainParams, load_params
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.learning.jobs import (
    ARTIFACT_ROOT,
    Runner,
    SkippedJob,
    TrainingJob,
    build_training_jobs,
    execute_training_job,
    reason_of,
    run_training_job,
)
from fly64_dose_overlap.learning.manifest import write_manifest
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, run
from fly64_dose_overlap.pipeline.stages._filters import DoseFilter, GridsizeFilter, ViewFilter
from fly64_dose_overlap.progress import say

MANIFEST_NAME = "training_manifest.json"


def run_in_own_process(
    job: TrainingJob,
    *,
    config: TrainParams,
    neighbor_count: int,
    runner: Runner = execute_training_job,
) -> dict[str, Any]:
    """Run one job in a fresh process, so that no job sees the state another one left.

    The process ends when this one does, even when this one is killed.

    Parameters
    ----------
    job, config, neighbor_count, runner
        As for `run_training_job`; ``runner`` must be importable by name.

    Returns
    -------
    result : dict
        The job's result; after a failure ``status`` "failed" and a ``reason`` of one line.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    arguments: dict[str, Any] = {"config": config, "neighbor_count": neighbor_count, "runner": runner}
    process = context.Process(target=_run_and_send, args=(sender, job, arguments), name=job.name)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        return _failure(f"its process ended with exit code {process.exitcode} before it had a result")
    except BaseException:
        process.terminate()
        raise
    finally:
        process.join()
        receiver.close()


def _run_and_send(sender: Connection, job: TrainingJob, arguments: Mapping[str, Any]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        sender.send(run_training_job(job, **arguments))
    except Exception as error:
        sender.send(_failure(reason_of(error)))
    except KeyboardInterrupt:
        sys.exit(130)


def _end_with_parent() -> None:
    """Wait for the end of the parent; a training nobody waits for would disturb its own repetition."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _failure(reason: str) -> dict[str, Any]:
    return {"status": "failed", "reason": reason}


def main(
    dose: DoseFilter = None,
    view: ViewFilter = None,
    gridsize: GridsizeFilter = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the jobs and write the manifest, train nothing.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Skip dense and sparse views that are not there.")
    ] = False,
    artifact_root: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where results and manifest go.")
    ] = ARTIFACT_ROOT,
    params_file: ParamsOption = PARAMS_FILE,
) -> None:
    """Train every dose with every view, one job after another, each in a process of its own.

    Filters combine: a job is run if it matches all of them. The jobs and their results
    are listed in training_manifest.json in the folder of the results. A failed job does
    not stop the others; the exit status is then 1.

    This is a shortcut for trying things out: nothing it makes is versioned. For results
    that DVC tracks and compares, queue the cells as experiments:
    dvc exp run --queue -S dose=1000,10000 -S view=dense,sparse, then dvc queue start.
    """
    study = load_params(params_file)
    jobs, skipped = build_training_jobs(
        study,
        artifact_root=artifact_root,
        doses=dose or None,
        views=view or None,
        gridsizes=gridsize or None,
        allow_missing=allow_missing,
    )
    outcomes = _run_matrix(study, jobs, skipped, manifest=artifact_root / MANIFEST_NAME, dry_run=dry_run)
    failed = [job for job, result in outcomes if result["status"] == "failed"]
    print(f"{len(jobs)} jobs, {len(failed)} failed, {len(skipped)} skipped: {artifact_root / MANIFEST_NAME}")
    if failed:
        logs = ", ".join(f"{job.name} ({job.log_path})" for job in failed)
        raise StudyError("jobs", f"{len(failed)} of {len(jobs)} failed: {logs}")


def _run_matrix(
    study: Params,
    jobs: Sequence[TrainingJob],
    skipped: Sequence[SkippedJob],
    *,
    manifest: Path,
    dry_run: bool,
) -> list[tuple[TrainingJob, dict[str, Any]]]:
    outcomes: list[tuple[TrainingJob, dict[str, Any]]] = []
    # Written as the work goes on, so that an interrupted matrix still says what it did.
    write_manifest(manifest, outcomes, skipped)
    for number, job in enumerate(jobs, start=1):
        files = f"{job.train_path} -> {job.artifact_dir}"
        print(f"{number}/{len(jobs)} {job.name} gridsize={job.gridsize}: {files}", flush=True)
        neighbors = study.overlap.neighbor_count
        if dry_run:
            result = run_training_job(job, config=study.train, neighbor_count=neighbors, dry_run=True)
        else:
            result = run_in_own_process(job, config=study.train, neighbor_count=neighbors)
        if result["status"] == "failed":
            say(f"{job.name} failed: {result['reason']}")
        outcomes.append((job, result))
        write_manifest(manifest, outcomes, skipped)
    return outcomes


if __name__ == "__main__":
    run(main)
