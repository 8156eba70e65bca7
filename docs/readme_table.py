"""Write the result tables of README.md from metrics/matrix.csv, and copy tables and pictures of the report.

Run it after all cells have been made anew::

    dose-overlap matrix && dose-overlap report
    python docs/readme_table.py           # take over what reports/ holds, rewrite the tables of README.md
    python docs/readme_table.py --check   # exit 1 if the tables are not those of the recorded results
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
RESULTS = "metrics/matrix.csv"
REPORTS = ROOT / "reports"
COPIES = {
    "table.csv": ROOT / RESULTS,
    "table.md": ROOT / "docs" / "results.md",
    "dose_response.svg": ROOT / "docs" / "dose_response.svg",
}
"""What is taken over from the report, and where it goes."""
PICTURE = REPORTS / "comparison.png"
COPY = ROOT / "docs" / "comparison.png"
BEGIN = "<!-- result: written by docs/readme_table.py -->"
END = "<!-- end of result -->"
LIMITS = "limit"
PICTURE_WIDTH_PX = 1800
PICTURE_COLOURS = 256

Cell = tuple[int, str]
Scores = dict[Cell, dict[tuple[str, str], float]]
"""By cell, then by method and metric."""


def result_block(text: str) -> str:
    """Return the text between the two marks, from the plain study of a table of the report."""
    scores: Scores = {}
    kinds: dict[str, str] = {}
    for row in csv.DictReader(io.StringIO(text)):
        if not row["variant"]:
            cell = int(row["dose"]), row["view"]
            scores.setdefault(cell, {})[row["method"], row["metric"]] = float(row["mean"])
            kinds[row["method"]] = row["kind"]
    methods = {name: kind for name, kind in kinds.items() if kind != LIMITS}
    limits = [name for name, kind in kinds.items() if kind == LIMITS]
    blocks = [
        "Phase PSNR (dB) on the test half; the best method of each cell is bold:",
        _table(scores, [*limits, *methods], methods, "phase_psnr_db", ".1f", max),
        "Complex NRMSE:",
        _table(scores, [*limits, *methods], methods, "complex_nrmse", ".3f", min),
        "Seconds on the processor for one cell, mean over the doses, and those of the network's training:",
        _times(scores, methods),
    ]
    return "\n\n".join(blocks)


def _table(
    scores: Scores,
    names: list[str],
    methods: dict[str, str],
    metric: str,
    style: str,
    best_of: Callable[[list[float]], float],
) -> str:
    best = {
        cell: format(best_of([found[name, metric] for name in methods if (name, metric) in found]), style)
        for cell, found in scores.items()
    }

    def field(name: str, cell: Cell) -> str:
        value = scores[cell].get((name, metric))
        text = "-" if value is None else format(value, style)
        return f"**{text}**" if name in methods and text == best[cell] else text

    heads = [f"{dose:.0e} {view}".replace("+0", "") for dose, view in scores]
    rows = [
        [name if name in methods else f"*{name}*", *(field(name, cell) for cell in scores)] for name in names
    ]
    return _markdown(["method", *heads], rows)


def _times(scores: Scores, methods: dict[str, str]) -> str:
    views = list(dict.fromkeys(view for _, view in scores))

    def mean(view: str, key: tuple[str, str]) -> str:
        values = [found[key] for cell, found in scores.items() if cell[1] == view and key in found]
        return format(statistics.fmean(values), ".0f") if values else ""

    def field(name: str, view: str) -> str:
        parts = [mean(view, (name, metric)) for metric in ("cpu_seconds", "training_cpu_seconds")]
        return " + ".join(filter(None, parts)) or "-"

    rows = [[name, *(field(name, view) for view in views)] for name in methods]
    return _markdown(["method", *views], rows)


def _markdown(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def split_readme(text: str) -> tuple[str, str, str]:
    """Return what stands before, in and after the block."""
    before, begin, rest = text.partition(BEGIN)
    block, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"README.md: needs the two lines {BEGIN} and {END}")
    return before, block.strip(), after


def recorded(path: str) -> str:
    """Return a file as it is staged or committed; outside a checkout, as it lies there.

    A run on another machine or of another cell changes the file in the working tree, and
    README.md is about the results that the repository records.
    """
    found = subprocess.run(
        ["git", "show", f":./{path}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout if found.returncode == 0 else (ROOT / path).read_text(encoding="utf-8")


def check() -> None:
    """Exit with status 1 if the tables are other than those of the recorded results."""
    expected = result_block(recorded(RESULTS))
    if split_readme(README.read_text(encoding="utf-8"))[1] != expected:
        sys.exit(
            f"README.md: the tables are not those of {RESULTS} as git has it; "
            f"run python docs/readme_table.py, then git add README.md docs {RESULTS}"
        )


def write() -> None:
    """Take over what the report wrote, if it did, and rewrite the tables."""
    for name, target in COPIES.items():
        if (REPORTS / name).is_file():
            shutil.copyfile(REPORTS / name, target)
            print(f"{target.relative_to(ROOT)}: written")
    before, _, after = split_readme(README.read_text(encoding="utf-8"))
    block = result_block((ROOT / RESULTS).read_text(encoding="utf-8"))
    README.write_text(f"{before}{BEGIN}\n\n{block}\n\n{END}{after}", encoding="utf-8", newline="\n")
    print(f"{README.name}: tables written")
    if PICTURE.is_file():
        copy_picture()


def copy_picture() -> None:
    """Copy the comparison picture, small enough for git."""
    with Image.open(PICTURE) as picture:
        height = round(picture.height * PICTURE_WIDTH_PX / picture.width)
        small = picture.convert("RGB").resize((PICTURE_WIDTH_PX, height), Image.Resampling.LANCZOS)
    small.quantize(PICTURE_COLOURS, dither=Image.Dither.NONE).save(COPY, optimize=True)
    print(f"{COPY.relative_to(ROOT)}: {COPY.stat().st_size // 1024} KB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    check() if parser.parse_args().check else write()
