"""The manifest: which training jobs ran, and what came of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fly64_dose_overlap.files.atomic import write_json_atomic
from fly64_dose_overlap.learning.jobs import SkippedJob, TrainingJob


def write_manifest(
    path: Path,
    outcomes: Sequence[tuple[TrainingJob, Mapping[str, Any]]],
    skipped: Sequence[SkippedJob] = (),
    *,
    root: Path | None = None,
) -> None:
    """Write which jobs ran, what came of them and which were skipped, as JSON.

    There is no time, host or absolute path in it: equal results give equal bytes. Paths
    are POSIX and relative to ``root``, bundles relative to the folder of their job's log.

    Parameters
    ----------
    path : Path
        File to create or replace.
    outcomes : sequence of (TrainingJob, mapping)
        Jobs with their results.
    skipped : sequence of SkippedJob
        Jobs that were left out.
    root : Path, optional
        Folder that paths are relative to; the working directory if not given.
    """
    start = root or Path.cwd()
    entries: list[dict[str, Any]] = []
    for job, result in outcomes:
        entry = job.describe()
        outcome = {key: value for key, value in result.items() if key not in entry}
        for key in ("train_path", "test_path", "log_path"):
            entry[key] = Path(os.path.relpath(entry[key], start)).as_posix()
        entries.append({**entry, "result": outcome})
    views = [asdict(job) for job in skipped]
    write_json_atomic(path, {"jobs": entries, "skipped_views": views, "skipped_count": len(views)})
