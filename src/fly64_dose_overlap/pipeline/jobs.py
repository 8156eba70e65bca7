"""Train and reconstruct many cells outside DVC, each job in a process of its own.

    python -m fly64_dose_overlap.pipeline.jobs train --dose 1000 --dry-run
    python -m fly64_dose_overlap.pipeline.jobs reconstruct --method lsqml --view dense

This is a shortcut for trying things out: nothing it makes is versioned. For results that DVC
tracks and compares, queue the cells as experiments: ``dose-overlap matrix``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fly64_dose_overlap.config import PARAMS_FILE, Params, load_params
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.atomic import read_json, sha256_of, write_json_atomic
from fly64_dose_overlap.pipeline.cells import HALVES, Cell, Half, cells, choose
from fly64_dose_overlap.pipeline.processes import end_with_parent
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, refusing
from fly64_dose_overlap.pipeline.stages._method import method_of
from fly64_dose_overlap.progress import say

Task = Literal["train", "reconstruct"]
ROOT = Path("models/jobs"), Path("reconstructions/jobs")
DEFAULT_METHOD: dict[Task, str] = {"train": "network", "reconstruct": "lsqml"}
BUNDLE = "model.safetensors"


@dataclass(frozen=True)
class Job:
    """One method on one half of one cell.

    Attributes
    ----------
    task : "train" or "reconstruct"
    cell : Cell
    method : str
    split : "train" or "test"
        Half that is worked on; a training always takes the training half.
    data : Path
    folder : Path
        Of the results and the log.
    """

    task: Task
    cell: Cell
    method: str
    split: Half
    data: Path
    folder: Path

    @property
    def dose(self) -> int:
        """Photons per frame."""
        return self.cell.dose

    @property
    def view(self) -> str:
        """Name of the view."""
        return self.cell.view

    @property
    def gridsize(self) -> int:
        """Group side of the view."""
        return self.cell.gridsize

    @property
    def name(self) -> str:
        """Name of the job in messages, such as ``lsqml/dense/dose=1000/test``."""
        return f"{self.method}/{self.view}/dose={self.dose}/{self.split}"

    @property
    def log(self) -> Path:
        """Everything that the job's process says."""
        return self.folder / f"{self.task}.log"

    def command(self, params_file: Path) -> list[str]:
        """Return the command line of the job's process."""
        chosen = [self.task, self.method, str(self.data), str(self.folder), str(self.gridsize)]
        options = ["--params", str(params_file)]
        if self.task == "reconstruct":
            model = ROOT[0] / f"dose_{self.dose}" / self.view / "train" / self.method / BUNDLE
            options += ["--model", str(model)]
        return [sys.executable, "-m", __spec__.name, "one", *chosen, *options]

    def describe(self) -> dict[str, Any]:
        """Return the job as JSON-able values, its paths relative to the working folder."""
        return {
            "dose": self.dose,
            "view": self.view,
            "gridsize": self.gridsize,
            "split": self.split,
            "method": self.method,
            "data": _relative(self.data),
            "folder": _relative(self.folder),
            "log": _relative(self.log),
        }


@dataclass(frozen=True)
class Plan:
    """All jobs of the study, divided.

    Attributes
    ----------
    jobs : list of Job
        Those to run.
    left_out, missing : list of (Job, str)
        Those that a filter left out, and those whose data are not there, with the reason.
    """

    jobs: list[Job] = field(default_factory=lambda: [])
    left_out: list[tuple[Job, str]] = field(default_factory=lambda: [])
    missing: list[tuple[Job, str]] = field(default_factory=lambda: [])

    @property
    def total(self) -> int:
        """Number of jobs of the whole study."""
        return len(self.jobs) + len(self.left_out) + len(self.missing)


def plan_jobs(
    params: Params,
    task: Task,
    *,
    methods: Sequence[str] = (),
    root: Path | None = None,
    allow_missing: bool = False,
    **filters: Collection[Any],
) -> Plan:
    """Divide the jobs of the study: every dose, view, half and method.

    Parameters
    ----------
    params : Params
    task : "train" or "reconstruct"
    methods : sequence of str
        By default the network, or LSQML.
    root : Path, optional
        Folder of the results.
    allow_missing : bool
        Leave out jobs without data. A baseline to be trained on must be there: it is the whole
        simulated set of its dose.
    **filters : collection
        Values of ``dose``, ``view``, ``gridsize`` and ``split``; jobs that match all are run.

    Raises
    ------
    MissingFileError
        If data are missing and may not be.
    StudyError
        If a filter names a value that no job has, or no job matches all filters.
    """
    root = root or ROOT[task == "reconstruct"]
    halves: tuple[Half, ...] = HALVES if task == "reconstruct" else ("train",)
    everything = [
        Job(task, cell, method, half, cell.data(half), root / f"dose_{cell.dose}" / cell.view / half / method)
        for method in methods or [DEFAULT_METHOD[task]]
        for cell in cells(params)
        for half in halves
    ]
    chosen = choose(everything, **filters)
    plan = Plan()
    for job in everything:
        needed = [job.data] if task == "reconstruct" else [job.data, job.cell.data("test")]
        absent = [path for path in needed if not path.is_file()]
        if job not in chosen:
            plan.left_out.append((job, _reason(job, filters)))
        elif not absent:
            plan.jobs.append(job)
        elif allow_missing and (job.view != "baseline" or task == "reconstruct"):
            plan.missing.append((job, f"{' and '.join(path.as_posix() for path in absent)} not found"))
        else:
            target = f"overlap@{job.dose}-{job.view}"
            raise MissingFileError(
                ", ".join(map(str, absent)),
                f"no such file, so the {job.view} view of dose {job.dose} cannot be used",
                f"make it with: dvc repro {target}, or fetch it with: dvc pull {target}",
            )
    return plan


def _reason(job: Job, filters: dict[str, Collection[Any]]) -> str:
    name = next(name for name, values in filters.items() if values and getattr(job, name) not in values)
    return f"{name} {getattr(job, name)} was not asked for"


def run_jobs(plan: Plan, *, params_file: Path, root: Path, workers: int = 1) -> list[dict[str, Any]]:
    """Run the jobs, several at a time; a failed one does not stop the others.

    What finished before with the same data, settings and code is kept. ``manifest.json`` in
    the folder of the results is written anew after every job.

    Returns
    -------
    list of dict
        Of each job its description and its result, with ``returncode`` 0 for success.
    """
    done: dict[str, dict[str, Any]] = {}
    running: list[subprocess.Popen[bytes]] = []
    writing = threading.Lock()

    def run(job: Job) -> None:
        result = _run(job, params_file, running)
        with writing:
            done[job.name] = {**job.describe(), "command": job.command(params_file)[1:], "result": result}
            write_manifest(root, plan, [done[each.name] for each in plan.jobs if each.name in done])

    write_manifest(root, plan, [])
    with ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(run, plan.jobs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise
    return [done[job.name] for job in plan.jobs]


def _run(job: Job, params_file: Path, running: list[subprocess.Popen[bytes]]) -> dict[str, Any]:
    job.folder.mkdir(parents=True, exist_ok=True)
    say(f"{job.name}: starts, log {job.log}")
    with job.log.open("ab") as log:
        log.write(f"{job.task} job {job.name} starts: {job.describe()}\n".encode())
        log.flush()
        process = subprocess.Popen(job.command(params_file), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        running.append(process)
        process.wait()
    if process.returncode:
        say(f"{job.name}: failed, status {process.returncode}: {_last_line(job.log)}")
        return {"status": "failed", "returncode": process.returncode, "reason": _last_line(job.log)}
    result: dict[str, Any] = read_json(job.folder / "result.json")
    for label in ("bundle", "sha256", "size_bytes"):
        if label in result:
            print(f"[{job.view}/dose={job.dose}] {label}: {result[label]}", flush=True)
    say(f"{job.name}: done")
    return {"status": "success", "returncode": 0, **result}


def write_manifest(root: Path, plan: Plan, jobs: list[dict[str, Any]]) -> Path:
    """Write which jobs there are, what came of those that ran, and why the others did not.

    There is no time, host or absolute path in it: equal results give equal bytes.
    """
    path = root / "manifest.json"
    content = {
        "total_jobs": plan.total,
        "filtered_jobs": len(plan.jobs),
        "jobs": jobs,
        "n_failed": sum(job["result"]["returncode"] != 0 for job in jobs),
        "skipped_jobs": [{**job.describe(), "reason": reason} for job, reason in plan.left_out],
        "skipped_count": len(plan.left_out),
        "missing_jobs": [{**job.describe(), "reason": reason} for job, reason in plan.missing],
    }
    write_json_atomic(path, content)
    return path


def _last_line(path: Path) -> str:
    lines = path.read_bytes()[-2000:].decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no word yet")


def _relative(path: Path) -> str:
    return Path(os.path.relpath(path)).as_posix()


def one(
    task: str,
    method: str,
    data: Path,
    folder: Path,
    gridsize: int,
    model: Path | None = None,
    params_file: ParamsOption = PARAMS_FILE,
) -> None:
    """Run one job in this process and write result.json beside what it makes."""
    from fly64_dose_overlap.methods.base import Learned
    from fly64_dose_overlap.pipeline.code import code_of_method
    from fly64_dose_overlap.pipeline.reconstruction import reconstruct_by
    from fly64_dose_overlap.pipeline.repository import work_key
    from fly64_dose_overlap.pipeline.training import train_method

    end_with_parent(os.getppid())
    params = load_params(params_file)
    made = method_of(method, params.methods, params_file)
    known = model if isinstance(made, Learned) and model is not None and model.is_file() else None
    settings = [params.calibration.model_dump(), params.stops.model_dump(), params.seed, gridsize]
    digests = [sha256_of(data), known and sha256_of(known), code_of_method(method)]
    key = work_key(task, made.settings.model_dump(), *settings, *digests)
    result_file = folder / "result.json"
    if result_file.is_file():
        before: dict[str, Any] = read_json(result_file)
        if before.get("key") == key and before.get("files") == _files_made(folder):
            say("finished before")
            return
        # Should this process fail half-way, its files are not to pass for those of that result.
        result_file.unlink()
    result: dict[str, Any] = {"key": key}
    if task == "train":
        result["bundle"] = BUNDLE
        result |= train_method(
            made,
            data,
            folder / BUNDLE,
            folder / "curves",
            seed=params.seed,
            calibration=params.calibration,
            gridsize=gridsize,
            neighbor_count=params.overlap.neighbor_count,
        )
    else:
        reconstruct_by(made, data, folder, stops=params.stops, calibration=params.calibration, bundle=model)
    write_json_atomic(result_file, {**result, "files": _files_made(folder)})


def _files_made(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the models and reconstructions in a folder."""
    return {
        path.name: sha256_of(path) for path in folder.iterdir() if path.suffix in (".safetensors", ".npz")
    }


def main(
    task: Annotated[str, typer.Argument(metavar="TASK", help="train or reconstruct.")],
    dose: Annotated[list[int] | None, typer.Option(metavar="PHOTONS", help="Only this dose.")] = None,
    view: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this view.")] = None,
    gridsize: Annotated[list[int] | None, typer.Option(metavar="SIDE", help="Only this group side.")] = None,
    split: Annotated[list[str] | None, typer.Option(metavar="HALF", help="Only train or test.")] = None,
    method: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Of section methods.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands, make nothing.")] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out jobs whose data are not there.")
    ] = False,
    workers: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Jobs at a time.")] = 1,
    root: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where results go.")] = None,
    params_file: ParamsOption = PARAMS_FILE,
) -> None:
    """Train every dose and view, or reconstruct every dose, view and half; filters combine.

    Each option that filters may be repeated. Jobs and their results are listed in
    manifest.json in the folder of the results. A failed job does not stop the others; the
    exit status is then 1.
    """
    if task not in DEFAULT_METHOD:
        raise StudyError("TASK", f"must be train or reconstruct, got {task!r}")
    plan = plan_jobs(
        load_params(params_file),
        task,
        methods=method or [],
        root=root,
        allow_missing=allow_missing,
        dose=dose or [],
        view=view or [],
        gridsize=gridsize or [],
        split=split or [],
    )
    folder = root or ROOT[task == "reconstruct"]
    if dry_run:
        for job in plan.jobs:
            print(f"dry run: {' '.join(job.command(params_file))}")
        print(f"{len(plan.jobs)} of {plan.total} jobs, {len(plan.missing)} without data")
        return
    results = run_jobs(plan, params_file=params_file, root=folder, workers=workers)
    failed = [result for result in results if result["result"]["returncode"]]
    print(
        f"{len(plan.jobs)} of {plan.total} jobs, {len(failed)} failed, {len(plan.left_out)} skipped, "
        f"{len(plan.missing)} without data: {folder / 'manifest.json'}"
    )
    if failed:
        logs = ", ".join(result["log"] for result in failed)
        raise StudyError("jobs", f"{len(failed)} of {len(results)} failed: {logs}")


def _command() -> typer.Typer:
    """Return both commands: ``one``, which a job's process runs, and the plain one."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(refusing(one if sys.argv[1:2] == ["one"] else main))
    return app


if __name__ == "__main__":
    command = _command()
    if sys.argv[1:2] == ["one"]:
        del sys.argv[1]
    command()
