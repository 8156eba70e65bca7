"""Reconstruct both halves of several cells outside DVC."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from fly64_dose_overlap.config import PARAMS_FILE, MethodName, load_params
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.methods.jobs import Outcome, run_jobs
from fly64_dose_overlap.methods.plan import REFERENCE_METHOD, plan_jobs, write_summaries
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, run
from fly64_dose_overlap.pipeline.stages._filters import DoseFilter, GridsizeFilter, ViewFilter

OUTPUT_ROOT = Path("reconstructions/jobs")


def main(
    dose: DoseFilter = None,
    view: ViewFilter = None,
    gridsize: GridsizeFilter = None,
    split: Annotated[
        list[str] | None, typer.Option(metavar="HALF", help="Only train or test; may be repeated.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Method, of reconstruct.epochs; may be repeated.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the commands and write the manifest, run nothing.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out jobs whose data are not there.")
    ] = False,
    output_root: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where results and manifest go.")
    ] = OUTPUT_ROOT,
    params_file: ParamsOption = PARAMS_FILE,
) -> None:
    """Reconstruct every dose, view and half by LSQML: 18 jobs, each in a process of its own.

    Filters combine: a job is run if it matches all of them. What finished before is not run
    again. Jobs and exit statuses are listed in reconstruction_manifest.json, what was left
    out in skip_summary.json. A failed job does not stop the others; the exit status is then 1.

    This is a shortcut for trying things out: nothing it makes is versioned. The stage
    `reconstruct` is what DVC tracks.
    """
    study = load_params(params_file)
    filters: dict[str, list[Any]] = {
        "dose": dose or [],
        "view": view or [],
        "gridsize": gridsize or [],
        "split": split or [],
    }
    methods = cast(list[MethodName], method) or [REFERENCE_METHOD]
    plan = plan_jobs(study, output_root, filters, methods=methods, allow_missing=allow_missing)
    outcomes: list[Outcome] = []
    if dry_run:
        for job in plan.jobs:
            print(f"dry run: {' '.join(job.command(params_file))}")
    else:
        outcomes = run_jobs(plan.jobs, params_file=params_file, workers=study.reconstruct.workers)
    manifest = write_summaries(output_root, plan, outcomes, params_file)
    failed = [outcome.job for outcome in outcomes if outcome.returncode]
    print(
        f"{len(plan.jobs)} of {plan.total} jobs, {len(failed)} failed, {len(plan.left_out)} skipped, "
        f"{len(plan.missing)} without data: {manifest}"
    )
    if failed:
        logs = ", ".join(f"{job.name} ({job.log_path})" for job in failed)
        raise StudyError("reconstructions", f"{len(failed)} of {len(outcomes)} failed: {logs}")


if __name__ == "__main__":
    run(main)
