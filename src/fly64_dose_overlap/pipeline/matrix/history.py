"""What git knows: the commit that experiments start from, and those that exist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fly64_dose_overlap.commands import run_command
from fly64_dose_overlap.config import PARAMS_FILE, Params, parse_params
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.pipeline.cells import BASE_FILE
from fly64_dose_overlap.pipeline.lock import LOCK_NAME, parse_lock, read_lock
from fly64_dose_overlap.yaml_text import parse_yaml

PACKAGE = "src/fly64_dose_overlap"
WITHOUT_RESULTS = (
    "report",
    "pipeline/matrix",
    "pipeline/cli.py",
    "pipeline/processes.py",
    "pipeline/verify.py",
)
CODE = ("dvc.yaml", "src", *(f":!{PACKAGE}/{part}" for part in WITHOUT_RESULTS))
"""What results depend on, for git."""


def baseline() -> str:
    """Return the commit that experiments start from.

    Raises
    ------
    StudyError
        If the repository is a shallow clone, from which DVC cannot collect experiments.
    """
    commit, shallow = run_command("git", "rev-parse", "HEAD", "--is-shallow-repository").split()
    if shallow == "true":
        raise StudyError("git", "this clone lacks older commits", "fetch them: git fetch --unshallow")
    return commit


def existing(commit: str, root: Path | None = None) -> dict[str, str]:
    """Return the git revision of each experiment that exists for a commit, by its name."""
    folder = reference(commit, "")
    listing = run_command("git", "for-each-ref", "--format=%(refname) %(objectname)", folder, root=root)
    pairs = (line.rsplit(" ", 1) for line in listing.splitlines())
    return {name.removeprefix(folder): revision for name, revision in pairs}


def reference(commit: str, name: str) -> str:
    """Return the git reference of an experiment, as DVC names it."""
    return f"refs/exps/{commit[:2]}/{commit[2:]}/{name}"


def result_of(commit: str, name: str, path: Path) -> Any:
    """Return the content of a JSON file that git keeps for an experiment."""
    return json.loads(run_command("git", "show", f"{reference(commit, name)}:./{path}"))


def committed_params() -> Params:
    """Return the parameters of the commit that experiments start from."""
    where = f"HEAD:./{PARAMS_FILE}"
    return parse_params(parse_yaml(run_command("git", "show", where), where=where), where=where)


def code_change() -> str:
    """Return a text that names how code and base set differ from the commit's; empty if they do not.

    It has the SHA-256 of each file and not git's patch, which depends on the user's settings of git.
    """
    if untracked := run_command("git", "ls-files", "--others", "--exclude-standard", "--", *CODE):
        first = untracked.split("\n")[0]
        raise StudyError(first, "is not known to git, so that jobs would lack it", "git add it")
    listing = ("git", "diff", "--name-only", "--no-renames", "--relative", "-z", "HEAD", "--", *CODE)
    paths = [Path(name) for name in sorted(run_command(*listing).split("\0")) if name]
    change = "".join(f"{path} {sha256_of(path) if path.is_file() else None}\n" for path in paths)
    now = base_checksum(read_lock(Path(LOCK_NAME)))
    if not run_command("git", "ls-tree", "--name-only", "HEAD", LOCK_NAME):
        raise StudyError(LOCK_NAME, "is not in the last commit", "git add and commit it")
    before = base_checksum(run_command("git", "show", f"HEAD:./{LOCK_NAME}"))
    return change if now == before else f"{change}{now}"


def base_checksum(lock: str) -> str:
    """Return the checksum that the text of a dvc.lock gives for the base set, or an empty string."""
    outs = (out for stage in parse_lock(lock).values() for out in stage.outs)
    return next((out.md5 or "" for out in outs if out.path == str(BASE_FILE)), "")
