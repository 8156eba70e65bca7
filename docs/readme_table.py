"""Take the result of README.md over from the report of `dose-overlap report`.

Run it after the cells have been made anew::

    dose-overlap matrix && dose-overlap report
    python docs/readme_table.py           # copy what reports/ holds, rewrite the tables of README.md
    python docs/readme_table.py --check   # exit 1 if README.md shows other tables than docs/results.md

Cells with other parameters, as of `dose-overlap matrix -S base.object_kind=texture`, come after
the plain ones in docs/results.md and are not in README.md. Pictures are copied as they are: a
palette would change their colours.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
REPORTS = ROOT / "reports"
RESULTS = "docs/results.md"
COPIES = {"table.md": ROOT / RESULTS, "dose_response.svg": ROOT / "docs" / "dose_response.svg"}
"""What is taken over from the report, and where it goes."""
PICTURE = REPORTS / "comparison.png"
COPY = ROOT / "docs" / "comparison.png"
BEGIN = "<!-- result: written by docs/readme_table.py -->"
END = "<!-- end of result -->"
SECTION = "In short"
"""What README.md shows of the report's tables."""
UNIT = " photons per frame "


def result_block(results: str) -> str:
    """Return the text between the two marks: the sentence and the short table of the plain study."""
    study = next((part for part in results.split("\n## ") if part.startswith("Commit")), "")
    head, _, rest = study.partition(f"\n### {SECTION}\n")
    if not rest:
        sys.exit(f"{RESULTS}: has no table {SECTION!r} of a commit; make it: dose-overlap report")
    sentence = head.strip().split("\n\n")[2]
    table = rest.partition("\n### ")[0]
    return f"**{sentence}**\n\n{table.strip().replace(UNIT, ' ')}"


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
    if split_readme(README.read_text(encoding="utf-8"))[1] != result_block(recorded(RESULTS)):
        sys.exit(
            f"README.md: the tables are not those of {RESULTS} as git has it; "
            f"run python docs/readme_table.py, then git add README.md docs"
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
        shutil.copyfile(PICTURE, COPY)
        print(f"{COPY.relative_to(ROOT)}: {COPY.stat().st_size // 1024} KB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    if parser.parse_args().check:
        check()
    else:
        write()
