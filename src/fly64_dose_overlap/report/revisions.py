"""What git and DVC keep of a study, read without touching the working tree.

Everything is asked of the programs' own commands, each with a time limit: listing
experiments has been seen to hang while a queue of them runs.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fly64_dose_overlap.commands import run_command
from fly64_dose_overlap.errors import MissingFileError, StudyError


@dataclass(frozen=True)
class Entry:
    """A commit, or an experiment of one.

    Attributes
    ----------
    name : str
        Name of the experiment; empty for the commit itself.
    revision : str
        Full git revision; that of a queued, running or failed experiment holds its
        parameters, but the results of the commit.
    state : {"success", "queued", "running", "failed"}
        What DVC says of it.
    params : dict
        Content of params.yaml.
    outputs : dict of str
        Hash that dvc.lock gives for each output.
    """

    name: str
    revision: str
    state: str
    params: dict[str, Any]
    outputs: dict[str, str]


def entries_of(root: Path, revision: str) -> tuple[Entry, list[Entry]]:
    """Return a commit and its experiments, in whatever state.

    Raises
    ------
    StudyError
        If there is no such commit, or DVC cannot read it.
    """
    where = f"revision {revision}"
    commit = run_command(
        "git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", root=root, where=where
    )
    listing = run_command(
        "dvc", "exp", "show", "--json", "--hide-workspace", "--rev", commit.strip(), root=root, where=where
    )
    found = next(item for item in json.loads(listing) if item["rev"] == commit.strip())
    if not found["data"]:
        problem = (found["error"] or {}).get("msg", "no data")
        raise StudyError(where, f"DVC cannot read it ({problem})")
    experiments: list[Entry] = []
    for item in found["experiments"] or ():
        tip = item["revs"][0]
        state = (item["executor"] or {}).get("state", "success")
        experiments.append(_entry(tip, tip["name"] or item["name"] or tip["rev"][:7], state))
    return _entry(found, "", "success"), experiments


def _entry(item: dict[str, Any], name: str, state: str) -> Entry:
    data: dict[str, Any] = item["data"] or {}
    params = data.get("params", {}).get("params.yaml", {}).get("data", {})
    outputs = {path: out["hash"] for path, out in data.get("outs", {}).items() if out["hash"]}
    return Entry(name, item["rev"], state, params, outputs)


def read_texts(root: Path, revision: str, *paths: str) -> dict[str, str]:
    """Return the files that git has at or below some paths of a revision.

    Paths are relative to ``root``; those that are not there are left out.
    """
    listing = run_command("git", "ls-tree", "-r", "-z", "--name-only", revision, "--", *paths, root=root)
    names = [name for name in listing.split("\0") if name]
    return {name: run_command("git", "show", f"{revision}:./{name}", root=root) for name in names}


@contextlib.contextmanager
def fetched(root: Path, revision: str, path: str) -> Generator[Path]:
    """Yield a temporary copy of an output that DVC keeps for a revision.

    Raises
    ------
    MissingFileError
        If neither the cache nor the remote storage has it.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / Path(path).name
        try:
            run_command("dvc", "get", ".", path, "--rev", revision, "--out", str(target), root=root)
        except StudyError as error:
            reason = error.problem.rpartition("ERROR: ")[2]
            where = f"{path} of {revision[:7]}"
            raise MissingFileError(where, f"cannot be had ({reason})", "try: dvc exp pull") from None
        yield target
