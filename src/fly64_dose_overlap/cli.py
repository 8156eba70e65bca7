"""The command ``dose-overlap``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fly64_dose_overlap.config import PARAMS_FILE, Params, load_params
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.matrix import experiments
from fly64_dose_overlap.matrix.cells import Cell, Selection, parse_dose, plan_cells
from fly64_dose_overlap.matrix.datasets import LOCK, base_checksum, restore, shares_data
from fly64_dose_overlap.matrix.results import describe_record, print_table, write_record
from fly64_dose_overlap.matrix.run import run_cells
from fly64_dose_overlap.matrix.watch import FAILED, Line
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.stages._cli import refusing

CODE = ("dvc.yaml", "src", ":!src/fly64_dose_overlap/matrix", ":!src/fly64_dose_overlap/cli.py")
"""What results depend on, for git."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def dose_overlap() -> None:
    """Dose and overlap studies in X-ray ptychography; run it from the repository's root."""


@app.command()
@refusing
def matrix(
    dose: Annotated[
        list[str] | None,
        typer.Option(metavar="PHOTONS", help="Only this dose, 1000 or 1e3; may be repeated."),
    ] = None,
    view: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this view; may be repeated.")
    ] = None,
    gridsize: Annotated[
        list[int] | None, typer.Option(metavar="SIDE", help="Only views of this group side; may be repeated.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Repeats of every cell, train.seed counted up.")] = 1,
    overrides: Annotated[
        list[str] | None,
        typer.Option("-S", "--set-param", metavar="KEY=VALUE", help="Change a parameter of every cell."),
    ] = None,
    workers: Annotated[int, typer.Option("-j", "--workers", min=1, help="Cells at a time.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells and stop.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume/--again", help="Run what has no result, or train all again.")
    ] = True,
) -> None:
    """Run every dose with every view as experiments in DVC's queue, and compare them.

    A cell that has its experiment for this commit is not run again. Datasets come from
    the cache or from remote storage and are never made again, unless -S changes them or
    a dose is new.
    """
    tree = load_params()
    commit = experiments.baseline()
    selection = Selection(
        doses=[parse_dose(text) for text in dose or ()],
        views=view or (),
        gridsizes=gridsize or (),
        seeds=seeds,
        overrides=overrides or (),
    )
    cells = plan_cells(selection, committed=_committed(), code_change=_code_change())
    done = experiments.finished(commit)
    if dry_run:
        _list(cells, done)
        return
    if not resume:
        experiments.remove([cell.name for cell in cells if cell.name in done])
        done = set()
    restore([cell for cell in cells if cell.name not in done and shares_data(cell, tree)])
    flags = (*experiments.restoring_flags(), *(() if resume else ("--no-run-cache",)))
    lines = run_cells(cells, commit=commit, workers=workers, flags=flags)
    print_table(cells, lines, commit)
    say(describe_record(write_record(cells, lines, commit)))
    _refuse_failures(lines)


def _list(cells: list[Cell], done: set[str]) -> None:
    for cell in cells:
        settings = " ".join(f"-S {override!r}" for override in cell.overrides)
        print(f"{cell.name}: {'done before' if cell.name in done else 'to run'}: {settings}")
    print(f"{len(cells)} cells, {sum(cell.name not in done for cell in cells)} to run")


def _refuse_failures(lines: list[Line]) -> None:
    failed = [line for line in lines if line.state == FAILED]
    if failed:
        logs = ", ".join(f"{line.name} ({line.log or f'dvc queue logs {line.name}'})" for line in failed)
        raise StudyError("matrix", f"{len(failed)} of {len(lines)} cells failed, see {logs}")


def _committed() -> Params:
    """Return the parameters of the commit that experiments start from."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / PARAMS_FILE.name
        copy.write_text(experiments.run_command("git", "show", f"HEAD:./{PARAMS_FILE}"), encoding="utf-8")
        return load_params(copy)


def _code_change() -> str:
    """Return how code and base set differ from the commit's; empty if they do not."""
    untracked = experiments.run_command("git", "ls-files", "--others", "--exclude-standard", "--", *CODE)
    if untracked:
        raise StudyError(
            untracked.split("\n")[0], "is not known to git, so that jobs would lack it", "git add it"
        )
    change = experiments.run_command("git", "diff", "HEAD", "--", *CODE)
    if not LOCK.exists():
        raise MissingFileError(str(LOCK), "no such file", "make the data first: dvc repro overlap")
    now = base_checksum(LOCK.read_text(encoding="utf-8"))
    before = base_checksum(experiments.run_command("git", "show", f"HEAD:./{LOCK}"))
    return change if now == before else f"{change}{now}"


if __name__ == "__main__":
    app()
