"""README, changelog and documentation name what is there, and every link leads somewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import fly64_dose_overlap as fdo
from fly64_dose_overlap import front
from fly64_dose_overlap.pipeline import cli
from fly64_dose_overlap.pipeline.matrix.plan import overridden
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
PROGRAM = r"(?<=-m )(?:fly64_dose_overlap|benchmarks)[\w.]*"
COMMAND = re.compile(rf" *(?:python -m )?(dose-overlap|make(?= matrix)|{PROGRAM}) ?([^#]*)")
BLOCK = re.compile(r"^ *```\w*\n(.*?)^ *```", flags=re.DOTALL | re.MULTILINE)
UsageError: Any = typer.BadParameter.__bases__[0]
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
        named = re.findall(r"(?:from|:::) (fly64_dose_overlap[\w.]*)|python3? -m ([\w.]+)", text)
        for module in filter(None, (name for each in named for name in each)):
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


def lines_of_code(text: str) -> Iterator[str]:
    """Yield every line of the blocks of a Markdown text, and every piece of code within its sentences."""
    for code in BLOCK.findall(text):
        yield from code.replace("\\\n", " ").splitlines()
    for code in re.findall(r"`([^`]+)`", BLOCK.sub("", text)):
        yield " ".join(code.split())


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield our own commands in the code of a Markdown text: program or module, and the words behind it."""
    for line in lines_of_code(text):
        if found := COMMAND.match(line):
            program, words = found[1], shlex.split(found[2])
            if program == "make":
                given = [word.removeprefix("ARGS=") for word in words if word.startswith("ARGS=")]
                program, words = "dose-overlap", ["matrix", *shlex.split(" ".join(given))]
            yield program, words


def refusal(program: str, words: list[str]) -> str:
    """Return what a program says of a command line: an unknown command or option, one that is missing.

    A command without any option may be the mere name of it.
    """
    if program == "dose-overlap":
        parser: Any = typer.main.get_command(cli.app)
        if words and not words[0].startswith("-"):
            program, *words = words
            if program not in parser.commands:
                return f"no such command: {program}"
            parser = parser.commands[program]
    else:
        parser = typer.main.get_command(command(importlib.import_module(program).main))
    words = [word for word in words if word != "--help"]
    try:
        if words:
            parser.make_context(program, words)
    except UsageError as error:
        return error.format_message()
    return ""


def test_shown_commands_are_understood_by_their_programs() -> None:
    seen: set[str] = set()
    for document in DOCUMENTS:
        for program, words in commands(document.read_text(encoding="utf-8")):
            assert refusal(program, words) == "", f"{document.name}: {program} {words}"
            seen |= {program, *words[:1]}
    assert {"matrix", "slurm", "dask", "report", "verify", "fly64_dose_overlap.pipeline.jobs"} <= seen
    assert {"benchmarks.ablation", "benchmarks.star_bench"} <= seen


def test_a_command_or_an_option_that_is_not_there_would_be_noticed() -> None:
    text = (
        "```sh\ndose-overlap matrix --dose 1 \\\n --resume # x\n```\n`dose-overlap fix` `dose-overlap --help`"
        "`dose-overlap slurm` `dose-overlap slurm --cpus 1` `make matrix ARGS='--workers x'` `make matrix`"
    )
    problems = ("No such option: --resume", "no such command: fix", "", "", "Missing option '--scratch'")
    for each, problem in zip(commands(text), (*problems, "Invalid value for '-j'", ""), strict=True):
        assert problem in (found := refusal(*each)), each
        assert bool(found) == bool(problem)
    assert "--paint" in refusal("fly64_dose_overlap.pipeline.jobs", ["train", "--dose", "1", "--paint=x"])


def test_the_benchmarks_print_their_help_and_measure_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--help"])
    monkeypatch.setattr(front, "simulate", None)
    for variable in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(variable, os.environ.get(variable, ""))
    state = random.getstate()
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("benchmarks", run_name="__main__")
    # The formatting of the help draws random numbers.
    random.setstate(state)
    assert not ended.value.code
    assert "Run all benchmarks on one thread" in capsys.readouterr().out


def settings(text: str) -> Iterator[tuple[str, ...]]:
    """Yield what each command of a Markdown text sets by -S; of a sweep every value, one after another."""
    for line in lines_of_code(text):
        given = [word.strip("'").partition("=") for word in re.findall(r"-S ('[^']*'|\S+=[^\s\"]+)", line)]
        values = [[value] if "[" in value else value.split(",") for _, _, value in given]
        for number in range(max(map(len, values), default=0)):
            yield tuple(
                f"{key}={each[number % len(each)]}" for (key, _, _), each in zip(given, values, strict=True)
            )


def test_the_search_for_settings_finds_them() -> None:
    text = "```sh\nx -S a=1,2 -S 'b=[1,2]' \\\n -S c=d # e\n```\nor `-S\nf=g`, `-S`, `-S ...`\n"
    assert list(settings(text)) == [("a=1", "b=[1,2]", "c=d"), ("a=2", "b=[1,2]", "c=d"), ("f=g",)]


def test_parameters_that_commands_set_are_there_and_take_the_value() -> None:
    found = {each for document in DOCUMENTS for each in settings(document.read_text(encoding="utf-8"))}
    assert ("methods.refined.device=cuda",) in found
    assert len(found) > 8
    for each in sorted(found):
        overridden(ROOT / "params.yaml", each)


def test_cells_and_methods_of_commands_are_there() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    items = {*map(str, params["doses"]), *params["overlap"]["views"], *params["methods"]}
    for document in DOCUMENTS:
        for line in lines_of_code(document.read_text(encoding="utf-8")):
            assert {*re.findall(r"--(?:view|method) (\w+)", line)} <= items, document.name
            for stage, item in re.findall(r"dvc \w+ (\w+)@(\S+)", line):
                assert stage in stages, document.name
                assert {*item.split("-")} <= items, document.name


def test_packages_and_versions_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    pinned = {package for each in (project["dependencies"], *extras.values()) for package in each}
    oldest = project["requires-python"].removeprefix(">=")
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert {*re.findall(r"pip install .*?(\w+==[\d.]+)", text)} <= pinned, document.name
        assert {*re.findall(r"'\.\[(\w+)\]'", text)} <= extras.keys(), document.name
        assert {*re.findall(r"Python (\d[\d.]*\d) or newer", text)} <= {oldest}, document.name


def test_columns_that_commands_keep_are_there() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    scores = json.loads((ROOT / "metrics" / "evaluation.json").read_text(encoding="utf-8"))
    for document in DOCUMENTS:
        for names in re.findall(r"--keep '\^\(([\w|]+)\)\$'", document.read_text(encoding="utf-8")):
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
