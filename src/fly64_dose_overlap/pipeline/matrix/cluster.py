"""The cells of the matrix as jobs for a cluster, and their results back from it.

An engine is a generator that takes jobs and yields every one once, with None or the reason of
its failure, as the cells finish. A cell whose worker died is run again; a cell that failed is
not. When the consumer stops early, what is still running is cancelled: hold the generator in
`contextlib.closing`, so that this happens at once after an error too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from fly64_dose_overlap.commands import run_command
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.matrix.node import CellJob, run_cell
from fly64_dose_overlap.pipeline.matrix.plan import Experiment
from fly64_dose_overlap.pipeline.matrix.watch import DONE, FAILED, KEPT, Line
from fly64_dose_overlap.progress import say

Outcome = tuple[CellJob, str | None]
"""A job with None, or with one line that says why it failed."""
Engine = Callable[[Sequence[CellJob]], Generator[Outcome]]

RETRIES = 2
INPUTS = ("dvc.yaml", "dvc.lock", "params.yaml", "src")


def attempt(job: CellJob) -> str | None:
    """Run a cell; a failure that the user can act on is a result, all else is a bug."""
    try:
        run_cell(job)
    except StudyError as error:
        return str(error)
    return None


def require(module: str, package: str = "") -> Any:
    """Import a module that only some users need.

    Raises
    ------
    StudyError
        If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        hint = "install it with: pip install -e '.[cluster]'"
        raise StudyError(package or module, "is not installed", hint) from None


def cluster_jobs(
    experiments: Sequence[Experiment], *, commit: str, git_remote: str, scratch: Path, cache: Path | None
) -> list[CellJob]:
    """Describe cells for nodes that know nothing but git and the remote storage.

    Nodes clone from the git remote, which must have the commit, and push to it; ``scratch`` is
    their folder for clones and logs, ``cache`` a DVC cache that they share.

    Raises
    ------
    StudyError
        If files that cells depend on are not committed, or a remote is missing.
    """
    if changed := run_command("git", "status", "--porcelain", "--", *INPUTS).splitlines():
        problem = "differs from the commit, which is all that nodes see"
        raise StudyError(changed[0][3:], problem, "commit and push it")
    url = run_command("git", "remote", "get-url", git_remote).strip()
    subfolder = run_command("git", "rev-parse", "--show-prefix").strip()
    settings = [*_remote_settings(), *([("cache.dir", str(cache.absolute()))] if cache else [])]
    return [
        CellJob(
            name=each.name,
            overrides=each.overrides,
            git_url=str(Path(url).resolve()) if Path(url).exists() else url,
            revision=commit,
            dvc_config=tuple(settings),
            scratch=str(scratch.absolute()),
            subfolder=subfolder,
        )
        for each in experiments
    ]


def _remote_settings() -> list[tuple[str, str]]:
    """Return DVC's settings of the default remote storage, credentials included."""
    from dvc.repo import Repo

    with Repo() as repo:
        name = repo.config["core"].get("remote")
        section = repo.config["remote"].get(name)
    if not section:
        problem = "none is set, and nodes get their data there"
        raise StudyError("remote storage", problem, "see docs/remotes.md")
    return [("core.remote", name), *((f"remote.{name}.{key}", str(value)) for key, value in section.items())]


def collect(
    experiments: Sequence[Experiment], outcomes: Iterable[Outcome], *, done: set[str], git_remote: str
) -> list[Line]:
    """Wait for the outcomes of cells that are not ``done``, then bring their experiments here."""
    lines = {each.name: Line(each.name, KEPT if each.name in done else FAILED) for each in experiments}
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
