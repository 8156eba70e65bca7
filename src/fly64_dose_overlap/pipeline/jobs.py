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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fly64_dose_overlap.config import PARAMS_FILE, Params, load_params
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.atomic import read_json, sha256_of, write_json_atomic
from fly64_dose_overlap.pipeline.cells import HALVES, Half, cells, choose
from fly64_dose_overlap.pipeline.processes import end_with_parent
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, run
from fly64_dose_overlap.pipeline.stages._method import method_of
from fly64_dose_overlap.progress import say

Task = Literal["train", "reconstruct"]
ROOTS: dict[Task, Path] = {"train": Path("jobs/models"), "reconstruct": Path("jobs/reconstructions")}
DEFAULT_METHOD: dict[Task, str] = {"train": "network", "reconstruct": "lsqml"}
BUNDLE = "model.safetensors"
PARENT = "FLY64_PARENT"
"""Variable that names the process which a job ends with."""


@dataclass(frozen=True)
class Job:
    """One method on one half of one cell; a training always takes the training half."""

    method: str
    dose: int
    view: str
    gridsize: int
    split: Half
    data: Path
    folder: Path
    """Of the results and the log."""
    log: Path
    """Everything that the job's process says."""

    @property
    def name(self) -> str:
        """Name of the job in messages, such as ``lsqml/dense/dose=1000/test``."""
        return f"{self.method}/{self.view}/dose={self.dose}/{self.split}"

    def command(self, task: Task, params_file: Path) -> list[str]:
        """Return the command line of the job's process."""
        chosen = [task, self.method, str(self.data), str(self.folder), str(self.gridsize)]
        options = ["--params", str(params_file)]
        if task == "reconstruct":
            model = _folder(ROOTS["train"], self.dose, self.view, "train", self.method) / BUNDLE
            options += ["--model", str(model)]
        return [sys.executable, "-m", __spec__.name, "one", *chosen, *options]

    def describe(self) -> dict[str, Any]:
        """Return the job as JSON-able values, its paths relative to the working folder."""
        values = asdict(self).items()
        return {k: Path(os.path.relpath(v)).as_posix() if isinstance(v, Path) else v for k, v in values}


def _folder(root: Path, dose: int, view: str, half: str, method: str) -> Path:
    return root / f"dose_{dose}" / view / half / method


@dataclass(frozen=True)
class Plan:
    """All jobs of the study: those to run, those that a filter left out, and those without data."""

    task: Task
    root: Path
    """Folder of the results."""
    jobs: list[Job] = field(default_factory=list[Job])
    left_out: list[tuple[Job, str]] = field(default_factory=list[tuple[Job, str]])
    """With the reason, as in ``missing``."""
    missing: list[tuple[Job, str]] = field(default_factory=list[tuple[Job, str]])

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

    Those run that match all filters, values of ``dose``, ``view``, ``gridsize`` and ``split``.
    Without ``methods`` the network trains and LSQML reconstructs. With ``allow_missing`` jobs
    without data are left out; a baseline to be trained on must be there: it is the whole
    simulated set of its dose.

    Raises
    ------
    MissingFileError
        If data are missing and may not be.
    StudyError
        If a filter names a value that no job has, or no job matches all filters.
    """
    plan = Plan(task, root or ROOTS[task])
    everything = [
        Job(
            method, cell.dose, cell.view, cell.gridsize, half, cell.data(half), folder, folder / f"{task}.log"
        )
        for method in dict.fromkeys(methods or [DEFAULT_METHOD[task]])
        for cell in cells(params)
        for half in (HALVES if task == "reconstruct" else HALVES[:1])
        for folder in [_folder(plan.root, cell.dose, cell.view, half, method)]
    ]
    chosen = choose(everything, **filters)
    for job in everything:
        needed = [job.data] if task == "reconstruct" else [job.data, job.data.with_name("test.npz")]
        absent = [path.as_posix() for path in needed if not path.is_file()]
        if job not in chosen:
            key = next(key for key, values in filters.items() if values and getattr(job, key) not in values)
            plan.left_out.append((job, f"{key} {getattr(job, key)} was not asked for"))
        elif not absent:
            plan.jobs.append(job)
        elif allow_missing and (job.view != "baseline" or task == "reconstruct"):
            plan.missing.append((job, f"{' and '.join(absent)} not found"))
        else:
            target = f"overlap@{job.dose}-{job.view}"
            raise MissingFileError(
                ", ".join(absent),
                f"no such file, so the {job.view} view of dose {job.dose} cannot be used",
                f"make it with: dvc repro {target}, or fetch it with: dvc pull {target}",
            )
    return plan


def run_jobs(plan: Plan, *, params_file: Path, workers: int = 1) -> list[dict[str, Any]]:
    """Run the jobs, several at a time, and return the description and the result of each.

    A failed one, whose ``returncode`` is not 0, does not stop the others. What finished before
    with the same data, settings and code is kept. ``manifest.json`` in the folder of the
    results is written anew after every job.
    """
    done: dict[str, dict[str, Any]] = {}
    running: list[subprocess.Popen[bytes]] = []
    writing, stopped = threading.Lock(), threading.Event()

    def run_one(job: Job) -> None:
        command = job.command(plan.task, params_file)
        result = _run(job, command, running, stopped)
        with writing:
            done[job.name] = {**job.describe(), "command": command[1:], "result": result}
            write_manifest(plan, [done[each.name] for each in plan.jobs if each.name in done])

    write_manifest(plan, [])
    with ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(run_one, plan.jobs))
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise
    return [done[job.name] for job in plan.jobs]


def _run(
    job: Job, command: Sequence[str], running: list[subprocess.Popen[bytes]], stopped: threading.Event
) -> dict[str, Any]:
    job.folder.mkdir(parents=True, exist_ok=True)
    say(f"{job.name}: starts, log {job.log}")
    with job.log.open("ab") as log:
        log.write(f"job {job.name} starts: {job.describe()}\n".encode())
        log.flush()
        environment = {**os.environ, PARENT: str(os.getpid())}
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        running.append(process)
        if stopped.is_set():
            process.terminate()
        status = process.wait()
    if status and stopped.is_set():
        say(f"{job.name}: interrupted")
        return {"status": "interrupted", "returncode": status, "reason": "interrupted"}
    if status:
        said = job.log.read_bytes()[-2000:].decode(errors="replace")
        reason = said.strip().rpartition("\n")[2].strip()
        say(f"{job.name}: failed, status {status}: {reason}")
        return {"status": "failed", "returncode": status, "reason": reason}
    result = read_json(job.folder / "result.json")
    for label in ("bundle", "sha256", "size_bytes"):
        if label in result:
            print(f"[{job.view}/dose={job.dose}] {label}: {result[label]}", flush=True)
    say(f"{job.name}: done")
    return {"status": "success", "returncode": 0, **result}


def write_manifest(plan: Plan, jobs: list[dict[str, Any]]) -> None:
    """Write which jobs there are, what came of those that ran, and why the others did not.

    There is no time, host or absolute path in it: equal results give equal bytes.
    """
    content = {
        "total_jobs": plan.total,
        "filtered_jobs": len(plan.jobs),
        "jobs": jobs,
        "n_failed": sum(job["result"]["returncode"] != 0 for job in jobs),
        "skipped_jobs": [{**job.describe(), "reason": reason} for job, reason in plan.left_out],
        "skipped_count": len(plan.left_out),
        "missing_jobs": [{**job.describe(), "reason": reason} for job, reason in plan.missing],
    }
    write_json_atomic(plan.root / "manifest.json", content)


def one(
    task: Task,
    method: str,
    data: Path,
    folder: Path,
    gridsize: int,
    model: Path | None = None,
    params_file: ParamsOption = PARAMS_FILE,
) -> None:
    """Run one job in this process and write result.json beside what it makes."""
    # Known from the start: the parent may end while this process still imports.
    end_with_parent(int(os.environ.get(PARENT, os.getppid())))
    from fly64_dose_overlap.methods.base import Learned
    from fly64_dose_overlap.pipeline.code import code_of_method
    from fly64_dose_overlap.pipeline.instrument import Instrument, described
    from fly64_dose_overlap.pipeline.reconstruction import reconstruct_by
    from fly64_dose_overlap.pipeline.repository import work_key
    from fly64_dose_overlap.pipeline.training import train_method

    params = load_params(params_file)
    made = method_of(method, params.methods, params_file)
    known = model if isinstance(made, Learned) and model is not None and model.is_file() else None
    instrument = Instrument(params.probe, params.calibration, params.refine)
    settings = [described(instrument), params.stops.model_dump(), params.seed, gridsize]
    digests = [sha256_of(data), known and sha256_of(known), code_of_method(method)]
    key = work_key(task, made.settings.model_dump(), *settings, *digests)
    result_file = folder / "result.json"
    if result_file.is_file():
        before = read_json(result_file)
        if before.get("key") == key and before.get("files") == _files_made(folder):
            say("finished before")
            return
        # Should this process fail half-way, its files are not to pass for those of that result.
        result_file.unlink()
    if task == "train":
        with train_method(
            made,
            data,
            folder / BUNDLE,
            folder / "curves",
            seed=params.seed,
            instrument=instrument,
            gridsize=gridsize,
            neighbor_count=params.overlap.neighbor_count,
        ) as outcome:
            result = {"key": key, "bundle": BUNDLE, **outcome, "files": _files_made(folder)}
            write_json_atomic(result_file, result)
    else:
        reconstruct_by(made, data, folder, stops=params.stops, instrument=instrument, bundle=model)
        write_json_atomic(result_file, {"key": key, "files": _files_made(folder)})


def _files_made(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the models and reconstructions in a folder."""
    made = (path for path in folder.iterdir() if path.suffix in (".safetensors", ".npz"))
    return {path.name: sha256_of(path) for path in made}


def main(
    task: Annotated[Task, typer.Argument(metavar="TASK", help="train or reconstruct.")],
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
    params = load_params(params_file)
    filters = {"dose": dose or [], "view": view or [], "gridsize": gridsize or [], "split": split or []}
    plan = plan_jobs(params, task, methods=method or [], root=root, allow_missing=allow_missing, **filters)
    if dry_run:
        for job in plan.jobs:
            print(f"dry run: {' '.join(job.command(task, params_file))}")
        print(f"{len(plan.jobs)} of {plan.total} jobs, {len(plan.missing)} without data")
        return
    results = run_jobs(plan, params_file=params_file, workers=workers)
    failed = [result for result in results if result["result"]["returncode"]]
    print(
        f"{len(plan.jobs)} of {plan.total} jobs, {len(failed)} failed, {len(plan.left_out)} skipped, "
        f"{len(plan.missing)} without data: {plan.root / 'manifest.json'}"
    )
    if failed:
        logs = ", ".join(result["log"] for result in failed)
        raise StudyError("jobs", f"{len(failed)} of {len(results)} failed: {logs}")


if __name__ == "__main__":
    is_job = sys.argv[1:2] == ["one"]
    if is_job:
        del sys.argv[1]
    run(one if is_job else main)
