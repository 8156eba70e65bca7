"""List the licence of every package that requirements.lock names, and of torch.

Run it in the project's environment after the lock has changed::

    python docs/licences.py           # rewrite docs/licences.md
    python docs/licences.py --check   # exit 1 if names or versions there are not those of the lock
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path

from fly64_dose_overlap.files.atomic import write_text_atomic

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
TABLE = ROOT / "docs" / "licences.md"
PINNED = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;]+)(?: ; (?P<where>[^\\]+?))? *\\?$", re.MULTILINE
)
ROW = re.compile(r"^\| (?P<name>[^ |]+) \| (?P<version>[^ |]+) \|", re.MULTILINE)
CLASSIFIER = "License :: "
NAMED = re.compile(r"^[^\n]{1,60}$")
"""A licence field that names the licence instead of quoting it."""
FIRST_LINES = {"Apache License": "Apache-2.0", "BSD 3-Clause License": "BSD-3-Clause", "MIT License": "MIT"}
IN_FILES = {"hdf5plugin": "MIT, and open-source licences of the filters that it bundles"}
"""What packages say in their files alone."""
HEAD = """# Licences

Packages of `requirements.lock`, and torch, with the licence that each names in its own metadata. Written by
`docs/licences.py` in the project's environment; a test compares names and versions with the lock. They are
installed beside this project and not part of it; its own licence is BSD 3-Clause, `LICENSE`.

| package | version | licence |
|---|---|---|
"""


def locked(lock: str, project: str) -> dict[str, tuple[str, str]]:
    """Return version, and where it is installed, of each package; torch stands in pyproject.toml."""
    found = {each["name"]: (each["version"], each["where"] or "") for each in PINNED.finditer(lock)}
    wanted: list[str] = tomllib.loads(project)["project"]["dependencies"]
    (torch,) = (line.removeprefix("torch==") for line in wanted if line.startswith("torch=="))
    return dict(sorted({**found, "torch": (torch, "")}.items()))


def listed(table: str) -> dict[str, str]:
    """Return the version of each package of the table."""
    return {row["name"]: row["version"] for row in ROW.finditer(table) if row["name"] != "package"}


def licence_of(found: PackageMetadata) -> str:
    """Return what a package says of its licence: an SPDX expression, a name or classifiers."""
    expression, text = found.get("License-Expression"), (found.get("License") or "").strip()
    if expression:
        return expression
    if NAMED.fullmatch(text) and text != "UNKNOWN":
        return text
    classifiers = [line for line in found.get_all("Classifier") or () if line.startswith(CLASSIFIER)]
    if classifiers:
        return ", ".join(line.rpartition(" :: ")[2] for line in classifiers)
    return FIRST_LINES.get(text.partition("\n")[0].strip(), "see its files")


def row(name: str, version: str, where: str) -> str:
    """Return a line of the table; what is not installed here is said so."""
    try:
        licence = IN_FILES.get(name) or licence_of(metadata(name))
    except PackageNotFoundError:
        if not where:
            sys.exit(f"licences: {name} is not installed; run this in the project's environment")
        licence = f"not installed here, only where {where.strip()}"
    return f"| {name} | {version} | {licence} |"


def main() -> None:
    """Write the table, or compare its names and versions with the lock."""
    parser = argparse.ArgumentParser(description="Licences of the packages of requirements.lock")
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    check: bool = parser.parse_args().check
    wanted = locked(LOCK.read_text(encoding="utf-8"), (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if not check:
        rows = [row(name, version, where) for name, (version, where) in wanted.items()]
        write_text_atomic(TABLE, HEAD + "\n".join(rows) + "\n")
        return
    found = listed(TABLE.read_text(encoding="utf-8"))
    versions = {name: version for name, (version, _) in wanted.items()}
    differing = sorted(name for name, _ in found.items() ^ versions.items())
    if differing:
        sys.exit(
            f"docs/licences.md: differs from the lock in {', '.join(dict.fromkeys(differing))}; write it anew"
        )


if __name__ == "__main__":
    main()
