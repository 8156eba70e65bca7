"""README.md shows the recorded results, and names only what is there."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fly64_dose_overlap.config import ViewName, parse_params
from tiny_study import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPT = ROOT / "docs" / "readme_table.py"
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
VIEWS: tuple[ViewName, ...] = ("baseline", "dense", "sparse")
TOP_LEVEL = r"(?:\.ci|\.dvc|\.venv|benchmarks|data|docs|metrics|models|reconstructions|reports|src|tests)"
PATH = re.compile(
    rf"(?<![\w./=:-])({TOP_LEVEL}(?:/[\w.*<>{{}},-]+)+|[\w-]+\.(?:yaml|lock|toml|cff|md))(?![\w/])"
)
CODE = re.compile(r"```\w*\n(.*?)```|`([^`\n]+)`|\]\(([^)\s#]+)", flags=re.DOTALL)


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
    return (ROOT / path).exists() or (document.parent / path).exists() or ignored_by_git(path)


def recorded_params() -> dict[str, Any]:
    """Return the parameters as staged or committed: an experiment of one's own changes the file."""
    shown = subprocess.run(
        ["git", "show", ":./params.yaml"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    text = shown.stdout if shown.returncode == 0 else (ROOT / "params.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def keys(content: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of all values."""
    found: list[str] = []
    for key, value in content.items():
        name = f"{prefix}{key}"
        found += keys(value, f"{name}.") if isinstance(value, dict) else [name]
    return found


def run_script(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(root / "docs" / SCRIPT.name), *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the files that the script reads and writes, outside any checkout."""
    for name in ("README.md", "docs/results.md", f"docs/{SCRIPT.name}"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    return tmp_path


def test_the_table_is_that_of_the_recorded_results() -> None:
    result = run_script(ROOT, "--check")
    assert (result.returncode, result.stderr) == (0, "")


def test_other_results_are_noticed_and_written(copy: Path) -> None:
    # The metrics of the working tree may be those of a run of one's own.
    assert run_script(copy).returncode == 0
    assert run_script(copy, "--check").returncode == 0
    file = copy / "docs" / "results.md"
    text = file.read_text()
    shown = re.search(r"### In short.*?\| refined .*?(\d+\.\d{2})", text, re.DOTALL)
    assert shown
    text = text[: shown.start(1)] + "98.77" + text[shown.end(1) :]
    file.write_text(text)
    refused = run_script(copy, "--check")
    assert refused.returncode == 1
    assert "run python docs/readme_table.py" in refused.stderr
    assert run_script(copy).returncode == 0
    assert "98.77" in (copy / "README.md").read_text()
    assert run_script(copy, "--check").returncode == 0


def test_the_search_for_paths_finds_them() -> None:
    text = "`docs/a.md`, `python docs/b.py x`, [c](docs/c.md), docs/d.md\n```sh\ncat data/<x>/e.npz\n```\n"
    assert paths_named(text) == {"docs/a.md", "docs/b.py", "docs/c.md", "data/<x>/e.npz"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_paths_exist(document: Path) -> None:
    named = paths_named(document.read_text(encoding="utf-8"))
    assert sorted(path for path in named if not exists(path, document)) == []


def test_links_lead_to_files() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)\s#]+)", document.read_text(encoding="utf-8")):
            assert "://" in target or (document.parent / target).is_file(), f"{document.name}: {target}"


def test_named_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        named = set(
            re.findall(r"(?:^|`)make ([a-z][\w-]*)", document.read_text(encoding="utf-8"), re.MULTILINE)
        )
        assert named <= targets, document.name
    assert {"repro", "test"} <= targets


def test_named_modules_exist() -> None:
    for document in DOCUMENTS:
        for module in re.findall(
            r"(?:-m|from) (fly64_dose_overlap[\w.]*)", document.read_text(encoding="utf-8")
        ):
            assert importlib.util.find_spec(module), f"{document.name}: {module}"


def test_every_parameter_is_in_the_table_with_its_default() -> None:
    section = README.partition("## Parameters")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `([^`]+)` \| ([^|]*) \|", section, re.MULTILINE))
    content = recorded_params()
    views = content["overlap"].pop("views")
    epochs = content["reconstruct"].pop("epochs")
    expected = {name: _value(content, name) for name in keys(content)}
    for key in ("s_img", "n_groups", "gridsize"):
        expected[f"overlap.views.<view>.{key}"] = ", ".join(_text(views[name][key]) for name in VIEWS)
    expected["reconstruct.epochs.<method>"] = ", ".join(map(_text, epochs.values()))
    assert rows == expected


def _value(content: dict[str, Any], name: str) -> str:
    value: Any = content
    for part in name.split("."):
        value = value[part]
    return ", ".join(map(_text, value)) if isinstance(value, list) else _text(value)


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def test_the_views_document_names_the_sampling_of_the_parameters() -> None:
    text = (ROOT / "docs" / "design" / "views.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| (\w+) \| ([\d.]+) \|", text.partition("## Why")[0], re.MULTILINE))
    views = parse_params(recorded_params()).overlap.views
    assert {name: float(value) for name, value in table.items()} == {n: v.s_img for n, v in views.items()}


def test_the_documents_stay_free_of_a_machine() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"(?<![\w.])/(?:home|tmp|work|root)/", document.read_text(encoding="utf-8"))
