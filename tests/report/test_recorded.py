"""The tables in docs are those of the experiments that come with the repository."""

from __future__ import annotations

import re

import pytest

from study_copy import PACKAGE, StudyCopy
from tiny_study import ROOT

pytestmark = pytest.mark.slow

BUNDLE = ROOT / "docs" / "experiments.bundle"
HERE_ONLY = "Method time"
"""What a clone cannot know: how long things took on the machine that made them."""


def tables_of(text: str) -> dict[str, str]:
    """Return the tables of a report by study and title."""
    found: dict[str, str] = {}
    for study in text.split("\n## ")[1:]:
        head, *sections = study.split("\n### ")
        name = head.partition("\n")[0]
        for section in sections:
            title, _, body = section.partition("\n")
            if title != HERE_ONLY:
                found[f"{name}: {title}"] = body.strip()
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the tables that a fresh clone makes of the recorded experiments."""
    study = StudyCopy(ROOT).clone_to(tmp_path_factory.mktemp("clone"))
    study.git("fetch", "--quiet", str(BUNDLE), "refs/exps/*:refs/exps/*")
    commits = set(re.findall(r"^## Commit (\w+)", recorded("results.md"), re.MULTILINE))
    revisions = [part for commit in sorted(commits) for part in ("--rev", commit)]
    study.run("env", "PYTHONPATH=src", "python", "-m", f"{PACKAGE}.cli", "report", *revisions)
    return tables_of((study.root / "reports" / "table.md").read_text(encoding="utf-8"))


def recorded(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_all_experiments_are_those_of_the_results(report: dict[str, str]) -> None:
    assert tables_of(recorded("results.md")) == report
