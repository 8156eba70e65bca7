"""The command ``dose-overlap``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fly64_dose_overlap.commands import run_command
from fly64_dose_overlap.config import PARAMS_FILE, Params, load_params
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.matrix import experiments
from fly64_dose_overlap.pipeline.matrix.cells import Cell, Selection, parse_dose, plan_cells
from fly64_dose_overlap.pipeline.matrix.cluster import cluster_jobs, collect
from fly64_dose_overlap.pipeline.matrix.datasets import LOCK, base_checksum, restore, shares_data
from fly64_dose_overlap.pipeline.matrix.engines import DaskOptions, SlurmOptions, run_on_dask, run_on_slurm
from fly64_dose_overlap.pipeline.matrix.integrity import remove_rotten, verify_cache
from fly64_dose_overlap.pipeline.matrix.results import describe_record, print_table, write_record
from fly64_dose_overlap.pipeline.matrix.run import run_cells
from fly64_dose_overlap.pipeline.matrix.watch import FAILED, Line
from fly64_dose_overlap.pipeline.stages._cli import refusing
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.results.lock import read_lock
from fly64_dose_overlap.results.repository import repository_root
from fly64_dose_overlap.results.timings import cpu_seconds

CODE = (
    "dvc.yaml",
    "src",
    ":!src/fly64_dose_overlap/pipeline/matrix",
    ":!src/fly64_dose_overlap/report",
    ":!src/fly64_dose_overlap/pipeline/cli.py",
)
"""What results depend on, for git."""

REPORTS = Path("reports")
SLURM_LOGS = Path(".dvc/tmp/slurm")

DoseOption = Annotated[
    list[str] | None, typer.Option(metavar="PHOTONS", help="Only this dose, 1000 or 1e3; may be repeated.")
]
ViewOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Only this view; may be repeated.")
]
GridsizeOption = Annotated[
    list[int] | None, typer.Option(metavar="SIDE", help="Only views of this group side; may be repeated.")
]
SeedsOption = Annotated[int, typer.Option(min=1, help="Repeats of every cell, train.seed counted up.")]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option("-S", "--set-param", metavar="KEY=VALUE", help="Change a parameter of every cell."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="List the cells and stop.")]
ScratchOption = Annotated[
    Path, typer.Option(metavar="FOLDER", help="On the nodes, for clones (removed) and logs (kept).")
]
CacheOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="DVC cache that the nodes share, if there is one.")
]
GitRemoteOption = Annotated[str, typer.Option(metavar="NAME", help="Nodes clone from here and push to it.")]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def dose_overlap() -> None:
    """Dose and overlap studies in X-ray ptychography; run it from the repository's root."""


@app.command()
@refusing
def matrix(
    dose: DoseOption = None,
    view: ViewOption = None,
    gridsize: GridsizeOption = None,
    seeds: SeedsOption = 1,
    overrides: OverridesOption = None,
    workers: Annotated[int, typer.Option("-j", "--workers", min=1, help="Cells at a time.")] = 2,
    dry_run: DryRunOption = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an earlier call stopped; always so.")
    ] = True,
) -> None:
    """Run every dose with every view as experiments in DVC's queue, and compare them.

    A cell that has its experiment for this commit is not run again. Datasets come from
    the cache or from remote storage and are never made again, unless -S changes them or
    a dose is new.
    """
    plan = _plan(dose, view, gridsize, seeds, overrides)
    if dry_run:
        plan.print()
        return
    tree = load_params()
    restore([cell for cell in plan.missing if shares_data(cell, tree)])
    flags = experiments.restoring_flags()
    _report(plan, run_cells(plan.cells, commit=plan.commit, workers=workers, flags=flags))


@app.command()
@refusing
def slurm(
    scratch: ScratchOption,
    dose: DoseOption = None,
    view: ViewOption = None,
    gridsize: GridsizeOption = None,
    seeds: SeedsOption = 1,
    overrides: OverridesOption = None,
    cache: CacheOption = None,
    git_remote: GitRemoteOption = "origin",
    partition: Annotated[str | None, typer.Option(metavar="NAME")] = None,
    cpus: Annotated[int, typer.Option(min=1, help="Cores of a cell.")] = 1,
    memory_gb: Annotated[float | None, typer.Option(min=0.1, help="Memory of a cell.")] = None,
    minutes: Annotated[int, typer.Option(min=1, help="Time limit of a cell.")] = 60,
    gres: Annotated[str | None, typer.Option(metavar="NAME:N", help="Per cell, such as gpu:1.")] = None,
    at_once: Annotated[int, typer.Option(min=1, help="Cells that run at the same time, at most.")] = 64,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Further options of sbatch, such as account=x."),
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Run the cells as one Slurm job array, and bring the results here. See docs/cluster.md."""
    options = SlurmOptions(
        folder=SLURM_LOGS,
        partition=partition,
        cpus_per_task=cpus,
        memory_gb=memory_gb,
        minutes=minutes,
        gres=gres,
        at_once=at_once,
        extra=_pairs("--sbatch", sbatch),
    )
    plan = _plan(dose, view, gridsize, seeds, overrides)
    _run_on_cluster(plan, run_on_slurm, options, scratch, cache, git_remote, dry_run)


@app.command()
@refusing
def dask(
    scratch: ScratchOption,
    dose: DoseOption = None,
    view: ViewOption = None,
    gridsize: GridsizeOption = None,
    seeds: SeedsOption = 1,
    overrides: OverridesOption = None,
    cache: CacheOption = None,
    git_remote: GitRemoteOption = "origin",
    workers: Annotated[int, typer.Option("-j", "--workers", min=1, help="Cells at a time.")] = 2,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A scheduler that runs: tcp://host:8786.")
    ] = None,
    jobqueue: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Of dask-jobqueue, such as PBSCluster.")
    ] = None,
    cluster: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Arguments of that class: cores=1, memory=8GB."),
    ] = None,
    gpu: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="A GPU of this machine; one cell each at a time.")
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Run the cells on Dask workers, and bring the results here. See docs/cluster.md."""
    arguments = {
        key: int(text) if text.isdecimal() else text for key, text in _pairs("--cluster", cluster).items()
    }
    options = DaskOptions(
        workers=workers, address=scheduler, jobqueue=jobqueue, cluster=arguments, gpus=gpu or ()
    )
    plan = _plan(dose, view, gridsize, seeds, overrides)
    _run_on_cluster(plan, run_on_dask, options, scratch, cache, git_remote, dry_run)


@app.command()
@refusing
def report(
    revision: Annotated[
        list[str] | None,
        typer.Option("--rev", metavar="REVISION", help="Commit of the experiments; may be repeated."),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the report goes.")] = REPORTS,
) -> None:
    """Write reports/index.html, table.csv and table.md from all experiments of a commit.

    Results of the working tree that are not committed come first. The page needs no network.
    """
    from fly64_dose_overlap.pipeline.experiments_read import read_studies
    from fly64_dose_overlap.report.page import write_page

    root = Path.cwd()
    studies = read_studies(root, revision or ("HEAD",))
    write_page(studies, output, seconds=cpu_seconds(repository_root(root)))
    for study in studies:
        say(f"{study.title}: {study.status}")
    print(f"report: {output / 'index.html'}")
    failed = [run.name for study in studies for run in study.runs if run.state == "failed"]
    if failed:
        raise StudyError("report", f"{len(failed)} experiments failed: {', '.join(failed)}", "it lists them")


@app.command()
@refusing
def verify(
    remove: Annotated[bool, typer.Option("--remove", help="Remove what is rotten.")] = False,
) -> None:
    """Hash what DVC's cache holds of this commit and its experiments, and name what is rotten.

    DVC does not look again at what it has put there, and would check out and push damaged
    data without a word. The exit status is 1 if anything is rotten.
    """
    found = verify_cache(Path.cwd())
    print(f"verify: {found.files} files, {found.size / 2**20:.1f} MiB, {len(found.rotten)} rotten")
    if not found.rotten:
        return
    for rot in found.rotten:
        say(f"rotten: {rot.describe()}")
    if remove:
        remove_rotten(found.rotten)
    stages = ", ".join(sorted({use.stage for rot in found.rotten for use in rot.uses}))
    problem = f"{len(found.rotten)} of {found.files} files are rotten{' and were removed' if remove else ''}"
    first = "" if remove else "repeat with --remove, then "
    back = f"dvc fetch && dvc checkout, and what no remote storage has: dvc repro (stages {stages})"
    raise StudyError("verify", problem, f"{first}bring them back: {back}")


@dataclass(frozen=True)
class _Plan:
    cells: list[Cell]
    commit: str
    done: set[str]

    @property
    def missing(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.name not in self.done]

    def print(self) -> None:
        for cell in self.cells:
            settings = " ".join(f"-S {override!r}" for override in cell.overrides)
            print(f"{cell.name}: {'done before' if cell.name in self.done else 'to run'}: {settings}")
        print(f"{len(self.cells)} cells, {len(self.missing)} to run")


def _plan(
    dose: Sequence[str] | None,
    view: Sequence[str] | None,
    gridsize: Sequence[int] | None,
    seeds: int,
    overrides: Sequence[str] | None,
) -> _Plan:
    load_params()
    commit = experiments.baseline()
    doses = [parse_dose(text) for text in dose or ()]
    selection = Selection(doses, view or (), gridsize or (), seeds, overrides or ())
    cells = plan_cells(selection, committed=_committed(), code_change=_code_change())
    return _Plan(cells, commit, experiments.finished(commit) & {cell.name for cell in cells})


def _run_on_cluster(
    plan: _Plan,
    engine: Callable[..., Any],
    options: SlurmOptions | DaskOptions,
    scratch: Path,
    cache: Path | None,
    git_remote: str,
    dry_run: bool,
) -> None:
    if dry_run:
        plan.print()
        return
    jobs = cluster_jobs(plan.missing, commit=plan.commit, git_remote=git_remote, scratch=scratch, cache=cache)
    with closing(engine(jobs, options)) as outcomes:
        _report(plan, collect(plan.cells, outcomes, done=plan.done, git_remote=git_remote))


def _report(plan: _Plan, lines: Sequence[Line]) -> None:
    print_table(plan.cells, lines, plan.commit)
    say(describe_record(write_record(plan.cells, lines, plan.commit)))
    failed = [line for line in lines if line.state == FAILED]
    if failed:
        logs = ", ".join(f"{line.name} ({line.log or f'dvc queue logs {line.name}'})" for line in failed)
        raise StudyError("matrix", f"{len(failed)} of {len(lines)} cells failed, see {logs}")


def _pairs(option: str, texts: Sequence[str] | None) -> dict[str, str]:
    for text in texts or ():
        if "=" not in text:
            raise StudyError(option, f"must be KEY=VALUE, got {text!r}")
    return dict(text.split("=", 1) for text in texts or ())


def _committed() -> Params:
    """Return the parameters of the commit that experiments start from."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / PARAMS_FILE.name
        copy.write_text(run_command("git", "show", f"HEAD:./{PARAMS_FILE}"), encoding="utf-8")
        return load_params(copy)


def _code_change() -> str:
    """Return how code and base set differ from the commit's; empty if they do not."""
    untracked = run_command("git", "ls-files", "--others", "--exclude-standard", "--", *CODE)
    if untracked:
        first = untracked.split("\n")[0]
        raise StudyError(first, "is not known to git, so that jobs would lack it", "git add it")
    change = run_command("git", "diff", "HEAD", "--", *CODE)
    now = base_checksum(read_lock(LOCK))
    if not run_command("git", "ls-tree", "--name-only", "HEAD", str(LOCK)):
        raise StudyError(str(LOCK), "is not in the last commit", "git add and commit it")
    before = base_checksum(run_command("git", "show", f"HEAD:./{LOCK}"))
    return change if now == before else f"{change}{now}"


if __name__ == "__main__":
    app()
