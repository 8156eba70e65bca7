"""README.md shows the recorded result in a page."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tiny_study import ROOT

MOST_BYTES = 6000
SCRIPT = "docs/readme_result.py"
EVALUATION = "metrics/evaluation.json"


def run_script(root: Path, *arguments: str) -> tuple[int, str]:
    """Run the script of a folder in this process; return its exit status and what it ends with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [SCRIPT, *arguments])
        try:
            runpy.run_path(str(root / SCRIPT), run_name="__main__")
        except SystemExit as end:
            return 1, str(end.code)
    return 0, ""


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
    result = subprocess.run(
        [sys.executable, str(ROOT / SCRIPT), "--check"], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_other_scores_are_noticed_and_written(copy: Path) -> None:
    assert run_script(copy) == (0, "")
    assert run_script(copy, "--check") == (0, "")
    change_scores(copy, refined=28.04, map=26.5, ml=24.7)
    status, told = run_script(copy, "--check")
    assert status == 1
    assert "run python docs/readme_result.py" in told
    assert run_script(copy) == (0, "")
    assert run_script(copy, "--check") == (0, "")
    for document in ("README.md", "docs/index.md"):
        text = (copy / document).read_text(encoding="utf-8")
        assert "refined reaches a phase PSNR of 28.0 dB, 1.5 dB above MAP, the best iterative" in text
        assert "2.0 dB above the limit for a method whose only prior is the object's contrast" in text
        assert "ML, which has no prior, lies 0.3 dB below the limit for unbiased methods" in text


def test_an_iterative_leader_is_compared_with_the_next(copy: Path) -> None:
    change_scores(copy, refined=25.0, map=26.5, ml=24.7, lsqml=20.0)
    assert run_script(copy) == (0, "")
    text = (copy / "README.md").read_text(encoding="utf-8")
    assert "MAP reaches a phase PSNR of 26.5 dB, 1.8 dB above ML, the best other iterative" in text


def test_the_table_has_four_rows_and_times_where_they_are_known(copy: Path) -> None:
    content = change_scores(copy, refined=28.0, map=26.5, ml=24.7, lsqml=20.0)
    refined = next(each for each in content["methods"].values() if each["key"] == "refined")
    timings = copy / ".dvc" / "tmp" / "timings"
    timings.mkdir(parents=True)
    for digest, seconds in ((refined["sha256"], 9.6), (refined["settings"]["model_sha256"], 86.0)):
        (timings / f"{digest}.json").write_text(json.dumps({"seconds": 1.0, "cpu_seconds": seconds}))
    assert run_script(copy) == (0, "")
    text = (copy / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (refined|MAP|ML|LSQML):.*\| (.+) \|$", text, re.MULTILINE)
    assert rows == [("refined", "10 + 86"), ("MAP", "-"), ("ML", "-"), ("LSQML", "-")]
    # Another machine has other times, or none, and the scores are the same.
    for file in timings.iterdir():
        file.unlink()
    assert run_script(copy, "--check") == (0, "")


def test_the_first_sentence_is_that_of_the_report_about_all_cells(copy: Path) -> None:
    file = copy / "docs" / "results.md"
    text = file.read_text(encoding="utf-8")
    sentence = re.search(r"\n\n(\S[^\n]+ leads in [^\n]+)\n", text)
    assert sentence
    file.write_text(text.replace(sentence[1], "Another leads."), encoding="utf-8")
    assert run_script(copy, "--check")[0] == 1
    assert run_script(copy) == (0, "")
    assert "**Another leads.**" in (copy / "README.md").read_text(encoding="utf-8")
    file.write_text("# Nothing\n", encoding="utf-8")
    assert "make it: dose-overlap report" in run_script(copy)[1]


def test_tables_and_pictures_are_taken_over(copy: Path) -> None:
    (copy / "reports").mkdir()
    (copy / "reports" / "table.md").write_text("# Other results\n", encoding="utf-8")
    assert run_script(copy, "--copy") == (0, "")
    assert (copy / "docs" / "results.md").read_text(encoding="utf-8") == "# Other results\n"


def test_the_five_lines_of_python_are_there() -> None:
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block
    assert len([line for line in block[1].splitlines() if line]) <= 5


def test_the_picture_has_the_colours_of_its_colour_bars() -> None:
    with Image.open(ROOT / "docs" / "comparison.png") as picture:
        # Colours as numbers: the rows of an array are many times slower to sort.
        red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB")).astype(np.int64), -1, 0)
    numbers: NDArray[np.int64] = np.unique((red << 16) + (green << 8) + blue)
    found = np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], axis=1)
    maps = {
        name: mpl.colormaps[name](range(256), bytes=True)[:, :3] for name in ("gray", "viridis", "RdBu_r")
    }
    colours = np.concatenate(list(maps.values())).astype(int)
    distance = np.abs(found[:, None] - colours).max(axis=2)
    assert distance.min(axis=1).max() == 0, "no colour is of another map"
    for name, each in maps.items():
        ends = each[[0, 255]].astype(int)
        assert np.abs(found[:, None] - ends).max(axis=2).min(axis=0).max() == 0, f"{name}: an end is missing"
