"""README.md shows the recorded result in a page, and docs/parameters.md every parameter."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import yaml
from PIL import Image

from fly64_dose_overlap.config import parse_params
from tiny_study import ROOT

MOST_BYTES = 6000
SCRIPT = "docs/readme_result.py"
EVALUATION = "metrics/evaluation.json"
VIEWS = ("baseline", "dense", "sparse")
LEARNED = ("network", "refined", "supervised")


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
    line = [sys.executable, str(root / SCRIPT), *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the files that the script reads and writes, outside any checkout."""
    for name in ("README.md", "docs/index.md", "docs/results.md", SCRIPT, "params.yaml", EVALUATION):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    return tmp_path


def change_scores(root: Path, **scores: float) -> dict[str, Any]:
    """Write phase PSNRs of some methods, by name, and of both limits."""
    file = root / EVALUATION
    content = json.loads(file.read_text(encoding="utf-8"))
    content["limit"]["phase_psnr_db"] = scores.pop("limit", 25.0)
    content["limit"]["bayesian"]["phase_psnr_db"] = scores.pop("limit_with_prior", 26.0)
    for method in content["methods"].values():
        method["phase"]["psnr_db"] = scores.get(method["key"], 5.0)
    file.write_text(json.dumps(content), encoding="utf-8")
    return content


def test_the_page_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= MOST_BYTES


def test_the_result_is_that_of_the_recorded_scores() -> None:
    result = run_script(ROOT, "--check")
    assert (result.returncode, result.stderr) == (0, "")


def test_other_scores_are_noticed_and_written(copy: Path) -> None:
    assert run_script(copy).returncode == 0
    assert run_script(copy, "--check").returncode == 0
    change_scores(copy, refined=28.04, map=26.5, ml=24.7)
    refused = run_script(copy, "--check")
    assert refused.returncode == 1
    assert "run python docs/readme_result.py" in refused.stderr
    assert run_script(copy).returncode == 0
    assert run_script(copy, "--check").returncode == 0
    for document in ("README.md", "docs/index.md"):
        text = (copy / document).read_text(encoding="utf-8")
        assert "refined reaches a phase PSNR of 28.0 dB, 1.5 dB above MAP, the best iterative" in text
        assert "2.0 dB above the limit for a method whose only prior is the object's contrast" in text
        assert "ML, which has no prior, lies 0.3 dB below the limit for unbiased methods" in text


def test_an_iterative_leader_is_compared_with_the_next(copy: Path) -> None:
    change_scores(copy, refined=25.0, map=26.5, ml=24.7, lsqml=20.0)
    assert run_script(copy).returncode == 0
    text = (copy / "README.md").read_text(encoding="utf-8")
    assert "MAP reaches a phase PSNR of 26.5 dB, 1.8 dB above ML, the best other iterative" in text


def test_the_table_has_four_rows_and_times_where_they_are_known(copy: Path) -> None:
    content = change_scores(copy, refined=28.0, map=26.5, ml=24.7, lsqml=20.0)
    refined = next(each for each in content["methods"].values() if each["key"] == "refined")
    timings = copy / ".dvc" / "tmp" / "timings"
    timings.mkdir(parents=True)
    for digest, seconds in ((refined["sha256"], 9.6), (refined["settings"]["model_sha256"], 86.0)):
        (timings / f"{digest}.json").write_text(json.dumps({"seconds": 1.0, "cpu_seconds": seconds}))
    assert run_script(copy).returncode == 0
    text = (copy / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (refined|MAP|ML|LSQML):.*\| (.+) \|$", text, re.MULTILINE)
    assert rows == [("refined", "10 + 86"), ("MAP", "-"), ("ML", "-"), ("LSQML", "-")]
    # Another machine has other times, or none, and the scores are the same.
    for file in timings.iterdir():
        file.unlink()
    assert run_script(copy, "--check").returncode == 0


def test_the_first_sentence_is_that_of_the_report_about_all_cells(copy: Path) -> None:
    file = copy / "docs" / "results.md"
    text = file.read_text(encoding="utf-8")
    sentence = re.search(r"\n\n(\S[^\n]+ leads in [^\n]+)\n", text)
    assert sentence
    file.write_text(text.replace(sentence[1], "Another leads."), encoding="utf-8")
    assert run_script(copy, "--check").returncode == 1
    assert run_script(copy).returncode == 0
    assert "**Another leads.**" in (copy / "README.md").read_text(encoding="utf-8")
    file.write_text("# Nothing\n", encoding="utf-8")
    assert "make it: dose-overlap report" in run_script(copy).stderr


def test_tables_and_pictures_are_taken_over(copy: Path) -> None:
    (copy / "reports").mkdir()
    (copy / "reports" / "table.md").write_text("# Other results\n", encoding="utf-8")
    assert run_script(copy, "--copy").returncode == 0
    assert (copy / "docs" / "results.md").read_text(encoding="utf-8") == "# Other results\n"


def test_the_five_lines_of_python_are_there() -> None:
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block
    assert len([line for line in block[1].splitlines() if line]) <= 5


def table(text: str) -> dict[str, list[str]]:
    """Return the cells behind each key of a Markdown table."""
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", text, re.MULTILINE)
    return {key: re.split(r" *\| *", cells) for key, cells in rows}


def test_every_parameter_is_in_the_table_with_its_default() -> None:
    text = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8").partition("\n## Methods")[0]
    rows = {key: cells[0] for key, cells in table(text).items()}
    content = recorded_params()
    del content["methods"]
    views = content["overlap"].pop("views")
    expected = {name: _value(content, name) for name in keys(content)}
    for key in ("s_img", "n_groups", "gridsize"):
        expected[f"overlap.views.<view>.{key}"] = ", ".join(_text(views[name][key]) for name in VIEWS)
    assert rows == expected


def test_every_setting_of_the_learned_methods_is_in_the_table_with_its_default() -> None:
    text = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8").partition("\n## Methods")[2]
    rows = {key: tuple(cells[: len(LEARNED)]) for key, cells in table(text).items()}
    methods = recorded_params()["methods"]
    names = {key for name in LEARNED for key in methods[name]}
    blank = dict.fromkeys(names, "")
    shown = [blank | {key: _text(value) for key, value in methods[name].items()} for name in LEARNED]
    assert rows == {key: tuple(each[key] for each in shown) for key in names}


def _value(content: dict[str, Any], name: str) -> str:
    value: Any = content
    for part in name.split("."):
        value = value[part]
    return ", ".join(map(_text, value)) if isinstance(value, list) else _text(value)


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def test_the_views_document_names_the_sampling_of_the_parameters() -> None:
    text = (ROOT / "docs" / "design" / "views.md").read_text(encoding="utf-8")
    found = dict(re.findall(r"^\| (\w+) \| ([\d.]+) \|", text.partition("## Why")[0], re.MULTILINE))
    views = parse_params(recorded_params()).overlap.views
    assert {name: float(value) for name, value in found.items()} == {n: v.s_img for n, v in views.items()}


def test_the_picture_has_the_colours_of_its_colour_bars() -> None:
    with Image.open(ROOT / "docs" / "comparison.png") as picture:
        found = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0).astype(int)
    maps = {
        name: mpl.colormaps[name](range(256), bytes=True)[:, :3] for name in ("gray", "viridis", "RdBu_r")
    }
    colours = np.concatenate(list(maps.values())).astype(int)
    distance = np.abs(found[:, None] - colours).max(axis=2)
    assert distance.min(axis=1).max() == 0, "no colour is of another map"
    for name, each in maps.items():
        ends = each[[0, 255]].astype(int)
        assert np.abs(found[:, None] - ends).max(axis=2).min(axis=0).max() == 0, f"{name}: an end is missing"
