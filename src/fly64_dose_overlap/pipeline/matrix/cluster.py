"""The cells of the matrix as jobs for a cluster, and their results back from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fly64_dose_overlap.commands import run_command
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.matrix.cells import Cell
from fly64_dose_overlap.pipeline.matrix.engines import Outcome
from fly64_dose_overlap.pipeline.matrix.node import CellJob
from fly64_dose_overlap.pipeline.matrix.watch import DONE, FAILED, KEPT, Line
from fly64_dose_overlap.progress import say

INPUTS = ("dvc.yaml", "dvc.lock", "params.yaml", "src")


def cluster_jobs(
    cells: Sequence[Cell], *, commit: str, git_remote: str, scratch: Path, cache: Path | None
) -> list[CellJob]:
    """Describe cells for nodes that know nothing but git and the remote storage.

    Parameters
    ----------
    cells : sequence of Cell
    commit : str
        The commit that the experiments start from; the git remote must have it.
    git_remote : str
        Name of the git remote that nodes clone from and push to.
    scratch : Path
        Folder on the nodes for clones and logs.
    cache : Path or None
        DVC cache that the nodes share.

    Raises
    ------
    StudyError
        If files that cells depend on are not committed, or a remote is missing.
    """
    changed = run_command("git", "status", "--porcelain", "--", *INPUTS).splitlines()
    if changed:
        raise StudyError(
            changed[0][3:], "differs from the commit, which is all that nodes see", "commit and push it"
        )
    url = run_command("git", "remote", "get-url", git_remote).strip()
    settings = _remote_settings()
    return [
        CellJob(
            name=cell.name,
            overrides=cell.overrides,
            git_url=str(Path(url).resolve()) if Path(url).exists() else url,
            revision=commit,
            remote_config=settings,
            scratch=str(scratch.absolute()),
            cache=None if cache is None else str(cache.absolute()),
        )
        for cell in cells
    ]


def _remote_settings() -> tuple[tuple[str, str], ...]:
    """Return DVC's settings of the default remote storage, credentials included."""
    from dvc.repo import Repo

    with Repo() as repo:
        name: str | None = repo.config["core"].get("remote")
        section: Mapping[str, Any] = repo.config["remote"].get(name, {})
    if not name or not section:
        raise StudyError(
            "remote storage", "none is set, and nodes get their data there", "see docs/remotes.md"
        )
    settings = ((f"remote.{name}.{key}", str(value)) for key, value in section.items())
    return (("core.remote", name), *settings)


def collect(
    cells: Sequence[Cell], outcomes: Iterable[Outcome], *, done: set[str], git_remote: str
) -> list[Line]:
    """Wait for the outcomes of cells, then bring their experiments here.

    Parameters
    ----------
    cells : sequence of Cell
    outcomes : iterable of (CellJob, str or None)
        From an engine, one for each cell that is not ``done``.
    done : set of str
        Names of experiments that are here already.
    git_remote : str
        Where nodes push to.

    Returns
    -------
    list of Line
        One per cell.
    """
    lines = {cell.name: Line(cell.name, KEPT if cell.name in done else FAILED) for cell in cells}
    total = sum(line.state != KEPT for line in lines.values())
    arrived: list[str] = []
    for number, (job, error) in enumerate(outcomes, start=1):
        say(f"{number}/{total} {job.name}: {error or 'done'}")
        lines[job.name].log = job.log_path
        if error is None:
            arrived.append(job.name)
    if arrived:
        run_command("dvc", "exp", "pull", git_remote, *arrived)
    for name in arrived:
        lines[name].state = DONE
    return list(lines.values())
