"""The reconstructions of the whole study: which there are, which were asked for, which lack data."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fly64_dose_overlap.config import MethodName, Params
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.atomic import write_json_atomic
from fly64_dose_overlap.methods.jobs import (
    DATA_ROOT,
    SPLITS,
    VIEW_ORDER,
    Outcome,
    ReconstructionJob,
    how_to_get,
)

REFERENCE_METHOD: MethodName = "lsqml"
MANIFEST_NAME = "reconstruction_manifest.json"
SUMMARY_NAME = "skip_summary.json"


@dataclass(frozen=True)
class Plan:
    """All reconstructions of the study, divided.

    Attributes
    ----------
    jobs : list of ReconstructionJob
        Those to run.
    left_out : list of (ReconstructionJob, str)
        Those that a filter left out, with the reason.
    missing : list of (ReconstructionJob, str)
        Those whose data are not there, with the reason.
    """

    jobs: list[ReconstructionJob]
    left_out: list[tuple[ReconstructionJob, str]]
    missing: list[tuple[ReconstructionJob, str]]

    @property
    def total(self) -> int:
        """Number of jobs of the whole study."""
        return len(self.jobs) + len(self.left_out) + len(self.missing)


def plan_jobs(
    params: Params,
    output_root: Path,
    filters: Mapping[str, Collection[Any]],
    *,
    methods: Sequence[MethodName] = (REFERENCE_METHOD,),
    data_root: Path = DATA_ROOT,
    allow_missing: bool = False,
) -> Plan:
    """List every dose with every view and half, 18 jobs for one method, and divide them.

    Parameters
    ----------
    params : Params
    output_root : Path
        Folder of the results, as ``dose_<dose>/<view>/<split>``.
    filters : mapping of "dose", "view", "gridsize" or "split" to values
        A job is run if it matches all that are not empty.
    methods : sequence of str
    data_root : Path
    allow_missing : bool
        Report jobs without data in place of an error.

    Raises
    ------
    MissingFileError
        If data are missing and may not be.
    StudyError
        If a filter names a value that no job has, a method has no epochs in the
        parameters, or no job is left.
    """
    unset = [method for method in methods if method not in params.reconstruct.epochs]
    if unset:
        raise StudyError("--method", f"{', '.join(unset)} has no reconstruct.epochs in the parameters")
    everything = [
        _job(params, dose, view, split, method, data_root, output_root)
        for method, dose, view, split in itertools.product(methods, sorted(params.doses), VIEW_ORDER, SPLITS)
    ]
    given = {name: set(values) for name, values in filters.items() if values}
    for name, values in given.items():
        known = {getattr(job, name) for job in everything}
        if unknown := sorted(map(str, values - known)):
            choices = ", ".join(sorted(map(str, known)))
            raise StudyError(f"--{name}", f"no job has {name} {' or '.join(unknown)}", f"there are {choices}")
    plan = Plan([], [], [])
    for job in everything:
        other = [name for name, values in given.items() if getattr(job, name) not in values]
        if other:
            plan.left_out.append((job, f"{other[0]} {getattr(job, other[0])} was not asked for"))
        elif not job.data_path.is_file():
            plan.missing.append((job, f"{job.data_path.as_posix()} not found"))
        else:
            plan.jobs.append(job)
    if plan.missing and not allow_missing:
        job = plan.missing[0][0]
        problem = f"no such file ({len(plan.missing)} jobs lack data)"
        hint = f"{how_to_get(job.dose, job.view)}, or give --allow-missing"
        raise MissingFileError(str(job.data_path), problem, hint)
    if not plan.jobs and not plan.missing:
        raise StudyError("reconstructions", "no job matches all filters", "leave one out")
    return plan


def _job(
    params: Params, dose: int, view: Any, split: Any, method: MethodName, data_root: Path, output_root: Path
) -> ReconstructionJob:
    gridsize = params.overlap.views[view].gridsize
    folder = output_root / f"dose_{dose}" / view / split / method
    path = data_root / str(dose) / view / f"{split}.npz"
    return ReconstructionJob(dose, view, gridsize, split, method, path, folder)


def write_summaries(root: Path, plan: Plan, outcomes: Sequence[Outcome], params_file: Path) -> Path:
    """Write which jobs there are, what came of those that ran, and why the others did not.

    Commands are given as they are run from the repository's root; there is no clock and no
    absolute path in the files.

    Returns
    -------
    path : Path
        The manifest; the summary of what was left out lies beside it.
    """
    missing = [{**job.describe(), "reason": reason} for job, reason in plan.missing]
    manifest = {
        "total_jobs": plan.total,
        "filtered_jobs": len(plan.jobs),
        "jobs": [
            {**job.describe(), "command": ["python", *job.command(params_file)[1:]]} for job in plan.jobs
        ],
        "execution_results": [outcome.describe() for outcome in outcomes],
        "n_failed": sum(outcome.returncode != 0 for outcome in outcomes),
        "missing_jobs": missing,
    }
    summary = {
        "skipped_count": len(plan.left_out),
        "skipped_jobs": [{**job.describe(), "reason": reason} for job, reason in plan.left_out],
        "missing_view_count": len(missing),
        "missing_jobs": missing,
    }
    write_json_atomic(root / SUMMARY_NAME, _relative(summary))
    write_json_atomic(root / MANIFEST_NAME, _relative(manifest))
    return root / MANIFEST_NAME


def _relative(content: Any) -> Any:
    """Return the content with absolute paths made relative to the working directory."""
    if isinstance(content, dict):
        return {key: _relative(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_relative(value) for value in content]
    if isinstance(content, str) and os.path.isabs(content):
        return Path(os.path.relpath(content)).as_posix()
    return content
