"""Write the result table of README.md from metrics/evaluation.json, and copy the picture.

Run it after the default cell has been recorded anew::

    python docs/readme_table.py           # rewrite the table, copy reports/comparison.png
    python docs/readme_table.py --check   # exit 1 if the table is not that of the recorded results
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
METRICS = "metrics/evaluation.json"
PARAMS = "params.yaml"
PICTURE = ROOT / "reports" / "comparison.png"
COPY = ROOT / "docs" / "comparison.png"
BEGIN = "<!-- result: written by docs/readme_table.py -->"
END = "<!-- end of result -->"
KINDS = ("learned", "iterative", "reference")
PICTURE_WIDTH_PX = 1800
PICTURE_COLOURS = 256

COLUMNS: dict[str, tuple[tuple[str, ...], str]] = {
    "phase PSNR (dB)": (("phase", "psnr_db"), ".2f"),
    "amplitude PSNR (dB)": (("amplitude", "psnr_db"), ".2f"),
    "phase SSIM": (("phase", "ssim"), ".3f"),
    "amplitude SSIM": (("amplitude", "ssim"), ".3f"),
    "phase MS-SSIM": (("phase", "ms_ssim"), ".3f"),
    "amplitude MS-SSIM": (("amplitude", "ms_ssim"), ".3f"),
    "FRC 0.5 (Nyquist)": (("frc", "frc50"), ".3f"),
    "FRC half-bit (Nyquist)": (("frc", "frc_half_bit"), ".3f"),
    "complex NRMSE": (("complex_nrmse",), ".4f"),
    "dose efficiency": (("dose_efficiency",), ".2f"),
}
"""Columns of the table: title, path of the value among a method's scores, format."""


def result_block(metrics: dict[str, Any], params: dict[str, Any]) -> str:
    """Return the text between the two marks."""
    methods: dict[str, Any] = metrics["methods"]
    lines = [
        f"Test half of the scan, {params['dose']:,} photons per frame, view {params['view']}:",
        "",
        f"| method | {' | '.join(COLUMNS)} |",
        f"|---|{'---:|' * len(COLUMNS)}",
    ]
    order = sorted(methods, key=lambda name: KINDS.index(methods[name]["kind"]))
    lines += [f"| {name} | {' | '.join(_cells(methods[name]))} |" for name in order]
    for name, bound in (("limit", metrics["limit"]), ("limit with prior", metrics["limit"]["bayesian"])):
        known = {
            "phase PSNR (dB)": f"{bound['phase_psnr_db']:.2f}",
            "amplitude PSNR (dB)": f"{bound['amplitude_psnr_db']:.2f}",
            "complex NRMSE": f"{bound['nrmse']:.4f}",
        }
        lines.append(f"| *{name}* | {' | '.join(known.get(column, '') for column in COLUMNS)} |")
    return "\n".join(lines)


def _cells(scores: dict[str, Any]) -> list[str]:
    cells: list[str] = []
    for path, style in COLUMNS.values():
        value: Any = scores
        for key in path:
            value = value[key]
        cells.append("-" if value is None else format(value, style))
    return cells


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
    """Exit with status 1 if the table is another than that of the recorded results."""
    expected = result_block(json.loads(recorded(METRICS)), yaml.safe_load(recorded(PARAMS)))
    if split_readme(README.read_text(encoding="utf-8"))[1] != expected:
        sys.exit(
            f"README.md: the table is not that of {METRICS} as git has it; "
            f"run python docs/readme_table.py, then git add README.md docs {METRICS} {PARAMS}"
        )


def write() -> None:
    """Rewrite the table from the working tree and copy the picture, if there is one."""
    metrics = json.loads((ROOT / METRICS).read_text(encoding="utf-8"))
    params = yaml.safe_load((ROOT / PARAMS).read_text(encoding="utf-8"))
    before, _, after = split_readme(README.read_text(encoding="utf-8"))
    block = result_block(metrics, params)
    README.write_text(f"{before}{BEGIN}\n\n{block}\n\n{END}{after}", encoding="utf-8", newline="\n")
    print(f"{README.name}: table written")
    if PICTURE.is_file():
        copy_picture()
    else:
        print(f"{PICTURE.relative_to(ROOT)} is not there, {COPY.relative_to(ROOT)} stays as it is")


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
