"""The command ``dose-overlap``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fly64_dose_overlap.commands import become_command
from fly64_dose_overlap.config import NOTHING_TO_MEND, PARAMS_FILE
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.pipeline.cells import REPORTS
from fly64_dose_overlap.pipeline.matrix import dvc_queue, history
from fly64_dose_overlap.pipeline.matrix.cluster import Engine, cluster_jobs, collect
from fly64_dose_overlap.pipeline.matrix.data import restore
from fly64_dose_overlap.pipeline.matrix.on_dask import run_on_dask
from fly64_dose_overlap.pipeline.matrix.plan import (
    TARGET,
    Experiment,
    Selection,
    overridden,
    parse_dose,
    plan,
)
from fly64_dose_overlap.pipeline.matrix.results import print_table, write_record
from fly64_dose_overlap.pipeline.matrix.run import run_in_queue
from fly64_dose_overlap.pipeline.matrix.slurm import MINUTES, run_on_slurm
from fly64_dose_overlap.pipeline.matrix.watch import FAILED, Line
from fly64_dose_overlap.pipeline.repository import repository_root
from fly64_dose_overlap.pipeline.stages._cli import refusing
from fly64_dose_overlap.pipeline.study import all_methods, load_study
from fly64_dose_overlap.pipeline.timings import cpu_seconds
from fly64_dose_overlap.pipeline.verify import verify_cache
from fly64_dose_overlap.progress import say

RUN, LOOK, KEEP = "Run", "Look", "Keep"
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
SeedsOption = Annotated[int, typer.Option(min=1, max=1000, help="Repeats of every cell, seed counted up.")]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option("-S", "--set-param", metavar="KEY=VALUE", help="Change a parameter of every cell."),
]
WorkersOption = Annotated[int, typer.Option("-j", "--workers", min=1, help="Cells at a time.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="List the cells and stop.")]
ScratchOption = Annotated[
    Path, typer.Option(metavar="FOLDER", help="On the nodes, for clones (removed) and logs (kept).")
]
CacheOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="DVC cache that the nodes share, if there is one.")
]
GitRemoteOption = Annotated[str, typer.Option(metavar="NAME", help="Nodes clone from here and push to it.")]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def dose_overlap() -> None:
    """Dose and overlap studies in X-ray ptychography; run it from the repository's root."""


@app.command(rich_help_panel=RUN)
@refusing
def repro() -> None:
    """Run the cell that params.yaml names, as far as it is not up to date: dvc repro evaluate."""
    become_command("dvc", "repro", TARGET)


@app.command(rich_help_panel=RUN)
@refusing
def matrix(
    dose: DoseOption = None,
    view: ViewOption = None,
    gridsize: GridsizeOption = None,
    seeds: SeedsOption = 1,
    overrides: OverridesOption = None,
    workers: WorkersOption = 2,
    dry_run: DryRunOption = False,
) -> None:
    """Run every dose with every view as experiments in DVC's queue, and compare them.

    A cell that has its experiment for this commit is not run again: the same command goes on
    where an earlier one stopped. Datasets come from the cache or from remote storage and are
    never made again, unless -S changes them or a dose is new.
    """
    chosen = _Matrix(dose, view, gridsize, seeds, overrides)
    if dry_run:
        return chosen.print()
    dvc_queue.require_usable(Path.cwd())
    restore(chosen.missing, load_study())
    flags = dvc_queue.restoring_flags()
    chosen.report(run_in_queue(chosen.experiments, commit=chosen.commit, workers=workers, flags=flags))


@app.command(rich_help_panel=RUN)
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
    minutes: Annotated[int, typer.Option(min=1, help="Time limit of a cell.")] = MINUTES,
    gres: Annotated[str | None, typer.Option(metavar="NAME:N", help="Per cell, such as gpu:1.")] = None,
    at_once: Annotated[int, typer.Option(min=1, help="Cells that run at the same time, at most.")] = 64,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Further options of sbatch, such as account=x."),
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Run the cells as one Slurm job array, and bring the results here. See docs/cluster.md."""
    run = partial(
        run_on_slurm,
        folder=SLURM_LOGS,
        cpus=cpus,
        partition=partition,
        mem=memory_gb and f"{round(memory_gb * 1024)}MB",
        minutes=minutes,
        gres=gres,
        array_parallelism=at_once,
        additional_parameters=_pairs("--sbatch", sbatch),
    )
    chosen = _Matrix(dose, view, gridsize, seeds, overrides)
    chosen.run_on_cluster(run, scratch, cache, git_remote, dry_run)


@app.command(rich_help_panel=RUN)
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
    workers: WorkersOption = 2,
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
    pairs = _pairs("--cluster", cluster).items()
    arguments = {key: int(text) if text.isdecimal() else text for key, text in pairs}
    gpus = list(dict.fromkeys(gpu or ()))
    run = partial(
        run_on_dask, workers=workers, address=scheduler, jobqueue=jobqueue, cluster=arguments, gpus=gpus
    )
    chosen = _Matrix(dose, view, gridsize, seeds, overrides)
    chosen.run_on_cluster(run, scratch, cache, git_remote, dry_run)


@app.command(rich_help_panel=LOOK)
@refusing
def report(
    revision: Annotated[
        list[str] | None,
        typer.Option("--rev", metavar="REVISION", help="Commit of the experiments; may be repeated."),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the report goes.")] = REPORTS,
) -> None:
    """Write reports/index.html, table.csv and table.md from all experiments of a commit.

    Results of the working tree that are not committed come first, unless --rev names other commits
    than HEAD. The page needs no network.
    """
    from fly64_dose_overlap.pipeline.experiments_read import read_studies
    from fly64_dose_overlap.report.page import write_page

    root = _study_folder()
    studies = read_studies(root, revision or ("HEAD",))
    write_page(studies, output, seconds=cpu_seconds(repository_root(root)))
    for study in studies:
        say(f"{study.title}: {study.status}")
    print(f"report: {output / 'index.html'}")
    if failed := [run.name for study in studies for run in study.runs if run.state == "failed"]:
        raise StudyError("report", f"{len(failed)} experiments failed: {', '.join(failed)}", "it lists them")


@app.command(rich_help_panel=LOOK)
@refusing
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file with frames, docs/own-data.md.")],
    find: Annotated[
        bool,
        typer.Option(
            "--find-orientation", help="Turn axes until probe, positions and frames fit each other."
        ),
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw frames, probe and positions to this file.")
    ] = None,
) -> None:
    """Say what was understood of a file with measured frames, and what speaks against it.

    It is read as base.source, by `base.fields`, `base.counts_per_photon` and `base.mend` where
    params.yaml is here.
    """
    from fly64_dose_overlap.files.own_npz import read_user_base
    from fly64_dose_overlap.pipeline.inspection import described, draw, judged
    from fly64_dose_overlap.study.gauge import in_standard_gauge
    from fly64_dose_overlap.study.measured import examined

    if picture is not None and picture.suffix.lower() != ".png":
        raise StudyError("--picture", f"{str(picture)!r} is no name of a picture", "name it *.png")
    own = load_study().base if PARAMS_FILE.exists() else None
    told = {} if own is None else {key: getattr(own, key) for key in ("fields", "counts_per_photon", "mend")}
    mend = NOTHING_TO_MEND if own is None else own.mend
    base = in_standard_gauge(read_user_base(file, modes="all", **told))
    scan, found = examined(base, str(file), probe_in_photons=True, mend=mend)
    if mend != NOTHING_TO_MEND:
        print(f"mended, as base.mend in {PARAMS_FILE} says: {mend}")
    print("\n".join((*described(scan), "")))
    print("\n".join(found) or "nothing speaks against counts, probe and positions")
    if picture is not None:
        draw(scan, picture, str(file))
        print(f"picture: {picture}")
    if find:
        print("\n".join(judged(scan, base.obj, mend)))


@app.command(rich_help_panel=KEEP)
@refusing
def verify(
    remove: Annotated[bool, typer.Option("--remove", help="Remove what is rotten.")] = False,
) -> None:
    """Hash what DVC's cache holds of this commit and its experiments, and name what is rotten.

    DVC does not look again at what it has put there, and would check out and push damaged
    data without a word. The exit status is 1 if anything is rotten.
    """
    found = verify_cache(_study_folder())
    print(f"verify: {found.files} files, {found.size / 2**20:.1f} MiB, {len(found.rotten)} rotten")
    if not found.rotten:
        return
    for rot in found.rotten:
        say(f"rotten: {rot.describe()}")
        if remove:
            # DVC then fetches or makes it again.
            rot.path.unlink(missing_ok=True)
    stages = ", ".join(sorted({use.stage for rot in found.rotten for use in rot.uses}))
    problem = f"{len(found.rotten)} of {found.files} files are rotten{' and were removed' if remove else ''}"
    first = "" if remove else "repeat with --remove, then "
    back = f"dvc fetch && dvc checkout, and what no remote storage has: dvc repro (stages {stages})"
    raise StudyError("verify", problem, f"{first}bring them back: {back}")


class _Matrix:
    """The experiments that were asked for, and which of them there are."""

    def __init__(
        self,
        dose: DoseOption,
        view: ViewOption,
        gridsize: GridsizeOption,
        seeds: int,
        overrides: OverridesOption,
    ) -> None:
        methods = all_methods(overridden(PARAMS_FILE, overrides or ()))
        self.commit = history.baseline()
        doses = [parse_dose(text) for text in dose or ()]
        selection = Selection(doses, view or (), gridsize or (), seeds, overrides or ())
        committed, change = history.committed_params(), history.code_change()
        self.experiments = plan(selection, committed=committed, code_change=change, methods=methods)
        self._done = history.existing(self.commit).keys() & {each.name for each in self.experiments}

    @property
    def missing(self) -> list[Experiment]:
        return [each for each in self.experiments if each.name not in self._done]

    def print(self) -> None:
        for each in self.experiments:
            settings = " ".join(f"-S {override!r}" for override in each.overrides)
            print(f"{each.name}: {'done before' if each.name in self._done else 'to run'}: {settings}")
        print(f"cells: {len(self.experiments)}, {len(self.missing)} of them to run")

    def run_on_cluster(
        self, engine: Engine, scratch: Path, cache: Path | None, git_remote: str, dry_run: bool
    ) -> None:
        if dry_run:
            return self.print()
        jobs = cluster_jobs(
            self.missing, commit=self.commit, git_remote=git_remote, scratch=scratch, cache=cache
        )
        with closing(engine(jobs)) as outcomes:
            self.report(collect(self.experiments, outcomes, done=self._done, git_remote=git_remote))

    def report(self, lines: Sequence[Line]) -> None:
        print_table(self.experiments, lines, self.commit)
        say(write_record(self.experiments, lines, self.commit))
        if failed := [line for line in lines if line.state == FAILED]:
            logs = ", ".join(f"{line.name} ({line.log or f'dvc queue logs {line.name}'})" for line in failed)
            raise StudyError("matrix", f"{len(failed)} of {len(lines)} cells failed, see {logs}")


def _study_folder() -> Path:
    """Return the working folder, if it is that of a study."""
    if not PARAMS_FILE.exists():
        raise MissingFileError(str(PARAMS_FILE), "no such file", "run from the repository's root")
    return Path.cwd()


def _pairs(option: str, texts: Sequence[str] | None) -> dict[str, str]:
    for text in texts or ():
        if "=" not in text:
            raise StudyError(option, f"must be KEY=VALUE, got {text!r}")
    return dict(text.split("=", 1) for text in texts or ())


if __name__ == "__main__":
    app()
