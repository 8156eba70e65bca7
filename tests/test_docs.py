"""README, changelog and documentation name what is there, and every link leads somewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import fly64_dose_overlap as fdo
from fly64_dose_overlap.config import at
from fly64_dose_overlap.pipeline import cli
from fly64_dose_overlap.pipeline.stages._cli import command
from tiny_study import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOP_LEVEL = (
    r"(?:\.ci|\.dvc|\.venv|benchmarks|data|docs|examples|metrics|models|reconstructions|reports|src|tests)"
)
PATH = re.compile(
    rf"(?<![\w./=:-])({TOP_LEVEL}(?:/[\w.*<>{{}},-]+)+|[\w-]+\.(?:yaml|lock|toml|cff|md))(?![\w/])"
)
CODE = re.compile(r"```\w*\n(.*?)```|`([^`\n]+)`|\]\(([^)\s#]+)", flags=re.DOTALL)
FENCE = re.compile(r"^```(\w*)\n(.*?)^ *```", flags=re.DOTALL | re.MULTILINE)
HISTORIES = {"CHANGELOG.md", "learning.md"}
"""Documents that also tell of stages of former times."""
MADE = {"changelog.md", "first-steps.md"}
"""Pages that are made when the documentation is built: docs/hooks.py."""
COMMAND = re.compile(r" *(?:python -m )?(dose-overlap|(?<=-m )fly64_dose_overlap[\w.]+) ?([^#]*)")
STAGE = re.compile(r"[Ss]tages? `(\w+)`|SIGKILL of stage (\w+)|dvc repro (?:-f )?(\w+)")
FETCHED = re.compile(r"""<(?:script|img|iframe)[^>]+src=["']?https?:|<link[^>]+stylesheet[^>]+https?:""")


def paths_named(text: str) -> set[str]:
    """Return the repository's paths in code and links of a Markdown text."""
    found: set[str] = set()
    for groups in CODE.findall(text):
        for part in filter(None, groups):
            found.update(match.rstrip(".") for match in PATH.findall(part))
    return found


def ignored_by_git(path: str) -> bool:
    """Tell whether .gitignore lists the path's folder, which is then absent from a fresh clone."""
    listed = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    if path.startswith(".dvc/tmp/"):
        return "/tmp" in (ROOT / ".dvc" / ".gitignore").read_text(encoding="utf-8").splitlines()
    return any(f"/{path}/".startswith(f"{line}/") for line in listed if line.startswith("/"))


def exists(path: str, document: Path) -> bool:
    if f"- {path}:" in (ROOT / "dvc.yaml").read_text(encoding="utf-8"):
        return True
    if any(mark in path for mark in "*<{"):
        path = re.split(r"/[^/]*[*<{]", path)[0]
    places = (ROOT / path, document.parent / path, ROOT / "src" / "fly64_dose_overlap" / path)
    return path in MADE or any(place.exists() for place in places) or ignored_by_git(path)


def anchors(document: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and mkdocs both make them."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    return {_slug(title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def _slug(title: str) -> str:
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def links(document: Path) -> list[str]:
    """Return the targets of all links and images outside of code."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    return re.findall(r"\]\(([^)\s]+)\)", text)


def test_the_search_for_paths_finds_them() -> None:
    text = "`docs/a.md`, `python docs/b.py x`, [c](docs/c.md), docs/d.md\n```sh\ncat data/<x>/e.npz\n```\n"
    assert paths_named(text) == {"docs/a.md", "docs/b.py", "docs/c.md", "data/<x>/e.npz"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_paths_exist(document: Path) -> None:
    named = paths_named(document.read_text(encoding="utf-8"))
    assert sorted(path for path in named if not exists(path, document)) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    lost: list[str] = []
    for target in links(document):
        name, _, anchor = target.partition("#")
        if "://" in target or name in MADE:
            continue
        page = document.parent / name if name else document
        if not page.is_file() or (anchor and anchor not in anchors(page)):
            lost.append(target)
    assert lost == []


def test_a_link_to_a_heading_that_is_not_there_would_be_noticed() -> None:
    found = anchors(ROOT / "docs" / "physics.md")
    assert "what-no-frame-can-tell" in found
    assert "what-no-frame-can-hide" not in found


def test_named_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", text, re.MULTILINE)) <= targets, document.name
    assert {"repro", "test", "docs"} <= targets


def test_named_modules_exist() -> None:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for module in re.findall(r"(?:-m|from|:::) (fly64_dose_overlap[\w.]*)", text):
            assert _imported(module), f"{document.name}: {module}"


def _imported(name: str) -> bool:
    """Tell whether a dotted name is a module, or an attribute of one."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return hasattr(importlib.import_module(module), attribute)


def test_python_in_the_documents_can_be_parsed_and_uses_the_front_door_as_it_is() -> None:
    for document in DOCUMENTS:
        for language, code in FENCE.findall(document.read_text(encoding="utf-8")):
            if language == "python":
                compile(code, document.name, "exec")
                assert set(re.findall(r"\bfdo\.(\w+)", code)) <= set(fdo.__all__), document.name


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield our own commands in the code of a Markdown text: program or module, and the words behind it."""
    for code in filter(None, (part for groups in CODE.findall(text) for part in groups)):
        for line in code.replace("\\\n", " ").splitlines():
            if found := COMMAND.match(line):
                yield found[1], shlex.split(found[2])


def not_known(program: str, words: list[str]) -> set[str]:
    """Return what a command line names that its program does not have: a command, or options."""
    if program == "dose-overlap":
        known: Any = typer.main.get_command(cli.app)
        if words and not words[0].startswith("-"):
            if words[0] not in known.commands:
                return {words[0]}
            known = known.commands[words[0]]
    else:
        known = typer.main.get_command(command(importlib.import_module(program).main))
    options = {option for each in known.params for option in each.opts} | {"--help"}
    return {word.partition("=")[0] for word in words if word.startswith("-")} - options


def test_shown_commands_have_their_options() -> None:
    seen: set[str] = set()
    for document in DOCUMENTS:
        for program, words in commands(document.read_text(encoding="utf-8")):
            assert not_known(program, words) == set(), f"{document.name}: {program} {words}"
            seen |= {program, *words[:1]}
    assert {"matrix", "slurm", "dask", "report", "verify", "fly64_dose_overlap.pipeline.jobs"} <= seen


def test_a_command_or_an_option_that_is_not_there_would_be_noticed() -> None:
    text = (
        "```sh\ndose-overlap matrix --dose 1 \\\n --resume # x\n```\n`dose-overlap fix` `dose-overlap --help`"
    )
    assert [not_known(*each) for each in commands(text)] == [{"--resume"}, {"fix"}, set()]
    assert not_known("fly64_dose_overlap.pipeline.jobs", ["train", "--dose", "1", "--paint=x"]) == {"--paint"}


def test_parameters_that_commands_set_and_columns_that_they_keep_are_there() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    scores = json.loads((ROOT / "metrics" / "evaluation.json").read_text(encoding="utf-8"))
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert [key for key in re.findall(r"-S '?([\w.]+)=", text) if at(params, key) is None] == [], document
        for names in re.findall(r"--keep '\^\(([\w|]+)\)\$'", text):
            assert set(names.split("|")) <= {"Experiment", "State", *params, *scores}, document.name


def test_named_stages_exist() -> None:
    stages = set(yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])
    for document in DOCUMENTS:
        if document.name not in HISTORIES:
            named = STAGE.findall(document.read_text(encoding="utf-8"))
            assert {name for each in named for name in each if name} <= stages, document.name


def test_the_documents_stay_free_of_a_machine() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"(?<![\w.])/(?:home|tmp|work|root)/", document.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "RUN_EXAMPLES": "0", "PYTHONPATH": str(ROOT / "src")}
    built = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assert not FETCHED.search(page.read_text(encoding="utf-8")), page.name
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"url\(.?https?:|@import", sheet.read_text(encoding="utf-8")), sheet.name
