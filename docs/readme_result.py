"""Write the result into README.md and docs/index.md, from what the repository records.

The sentence about all cells is that of the report, the rest is the default cell's. Run it
after both have been made anew, and stage what it reads before::

    dose-overlap matrix && dose-overlap report && dvc repro
    python docs/readme_result.py --copy    # take over tables and pictures from reports/
    git add params.yaml metrics docs
    python docs/readme_result.py           # rewrite the texts between the marks
    python docs/readme_result.py --check   # exit 1 if they are not those of the recorded scores

Times are those of this machine, for what was computed on it; ``--check`` leaves them aside.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import yaml
from PIL import Image
from scipy.spatial import KDTree

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "docs/index.md")
RESULTS = "docs/results.md"
COPIES = {
    "table.md": RESULTS,
    "dose_response.svg": "docs/dose_response.svg",
    "comparison.png": "docs/comparison.png",
}
"""What is taken over from reports/, and where it goes."""
COLOUR_MAPS = ("gray", "viridis", "RdBu_r")
"""Those of the picture of the default cell."""
BEGIN = "<!-- result: written by docs/readme_result.py -->"
END = "<!-- end of result -->"
ROWS = {
    "refined": "network on joint iterations, no ground truth",
    "map": "Poisson likelihood and total variation",
    "ml": "Poisson likelihood alone",
    "lsqml": "least-squares maximum likelihood of pty-chi",
}
TIMINGS = Path(".dvc/tmp/timings")
UNKNOWN = "-"


def recorded(path: str) -> str:
    """Return a file as it is staged or committed; outside a checkout, as it lies there.

    A run of another cell changes the file in the working tree, and README.md is about the
    results that the repository records.
    """
    found = subprocess.run(
        ["git", "show", f":./{path}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout if found.returncode == 0 else (ROOT / path).read_text(encoding="utf-8")


def result_text() -> str:
    """Return the sentence, the table and the limits."""
    params = yaml.safe_load(recorded("params.yaml"))
    scores = json.loads(recorded("metrics/evaluation.json"))
    by_key = {each["key"]: {"label": label, **each} for label, each in scores["methods"].items()}
    shown = [by_key[key] for key in ROWS if key in by_key]
    limit = scores["limit"]
    lines = [f"**{study_sentence(recorded(RESULTS))}**", ""]
    lines += [_sentence(params, shown, list(by_key.values()), limit), "", *_table(shown), ""]
    lines.append(
        f"Limits of this scan, phase PSNR: {limit['phase_psnr_db']:.1f} dB for an unbiased method "
        f"(Cramér-Rao), {limit['bayesian']['phase_psnr_db']:.1f} dB with a Gaussian prior of the object's "
        "own contrast (Bayesian, van Trees)."
    )
    return "\n".join(lines)


def study_sentence(results: str) -> str:
    """Return what the report says about all cells of the plain study, which is its first commit's."""
    study = next((part for part in results.split("\n## ") if part.startswith("Commit")), "")
    paragraphs = study.partition("\n### ")[0].strip().split("\n\n")
    if len(paragraphs) < 3:
        sys.exit(f"{RESULTS}: says nothing about a commit; make it: dose-overlap report")
    return paragraphs[2]


def _sentence(
    params: dict[str, Any], shown: list[dict[str, Any]], every: list[dict[str, Any]], limit: dict[str, Any]
) -> str:
    best = max(shown, key=_psnr)
    rivals = [each for each in every if each["kind"] == "iterative" and each["key"] != best["key"]]
    rival = max(rivals, key=_psnr)
    other = "other " if best["kind"] == "iterative" else ""
    with_prior = _apart(_psnr(best) - limit["bayesian"]["phase_psnr_db"])
    text = (
        f"At {params['dose']:,} photons per frame and {params['view']} overlap, {best['label']} reaches "
        f"a phase PSNR of {_psnr(best):.1f} dB, {_apart(_psnr(best) - _psnr(rival))} {rival['label']}, "
        f"the best {other}iterative method, and {with_prior} the limit for a method whose only prior is the "
        "object's contrast"
    )
    plain = next((each for each in shown if each["key"] == "ml"), None)
    if plain is None or plain is best:
        return f"{text}."
    without = _apart(_psnr(plain) - limit["phase_psnr_db"])
    return f"{text}; {plain['label']}, which has no prior, lies {without} the limit for unbiased methods."


def _psnr(method: dict[str, Any]) -> float:
    return method["phase"]["psnr_db"]


def _apart(difference: float) -> str:
    return f"{abs(difference):.1f} dB {'above' if difference > 0 else 'below'}"


def _table(shown: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| method | phase PSNR (dB) | complex NRMSE | FRC50 (Nyquist) | CPU s |",
        "|---|---:|---:|---:|---:|",
    ]
    for each in shown:
        name = f"{each['label']}: {ROWS[each['key']]}"
        values = f"{_psnr(each):.2f} | {each['complex_nrmse']:.4f} | {each['frc']['frc50']:.2f}"
        lines.append(f"| {name} | {values} | {_cpu_seconds(each)} |")
    return lines


def _cpu_seconds(method: dict[str, Any]) -> str:
    """Return the time that a reconstruction took here, with that of the training if there was one."""
    digests = [method.get("sha256"), method["settings"].get("model_sha256")]
    files = [ROOT / TIMINGS / f"{digest}.json" for digest in digests if digest]
    if not all(file.is_file() for file in files):
        return UNKNOWN
    seconds = [json.loads(file.read_text(encoding="utf-8"))["cpu_seconds"] for file in files]
    return " + ".join(f"{value:.0f}" for value in seconds)


def split(document: str, text: str) -> tuple[str, str, str]:
    """Return what stands before, in and after the marks."""
    before, begin, rest = text.partition(BEGIN)
    block, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{document}: needs the two lines {BEGIN} and {END}")
    return before, block.strip(), after


def without_times(block: str) -> str:
    """Return a result with the last column of its table empty."""
    return re.sub(r"(?m)^(\|.*\|)[^|\n]*\|$", r"\1", block)


def check() -> None:
    """Exit with status 1 if a document shows other scores than the repository records."""
    expected = without_times(result_text())
    for document in DOCUMENTS:
        block = split(document, (ROOT / document).read_text(encoding="utf-8"))[1]
        if without_times(block) != expected:
            sys.exit(
                f"{document}: shows other scores than metrics/evaluation.json; "
                "run python docs/readme_result.py"
            )


def write() -> None:
    """Rewrite the texts."""
    block = result_text()
    for document in DOCUMENTS:
        path = ROOT / document
        before, _, after = split(document, path.read_text(encoding="utf-8"))
        path.write_text(f"{before}{BEGIN}\n\n{block}\n\n{END}{after}", encoding="utf-8", newline="\n")
        print(f"{document}: result written")


def copy() -> None:
    """Take over what the report and the last run of the default cell wrote.

    A PNG gets 255 colours, of the three colour maps of the picture and no others: with all
    colours a picture of noise is too large for git, and with those that Pillow would choose
    the colour bar is another.
    """
    for name, target in COPIES.items():
        source = ROOT / "reports" / name
        if not source.is_file():
            continue
        if source.suffix == ".png":
            _in_few_colours(source).save(ROOT / target, optimize=True)
        else:
            shutil.copyfile(source, ROOT / target)
        print(f"{target}: copied")


def _in_few_colours(source: Path) -> Image.Image:
    """Return a picture with each pixel in the nearest of 85 colours of each map."""
    each = np.linspace(0, 255, 85).round().astype(int)
    colours = np.concatenate([mpl.colormaps[name](each, bytes=True)[:, :3] for name in COLOUR_MAPS])
    with Image.open(source) as picture:
        pixels = np.asarray(picture.convert("RGB"), float)
    nearest = KDTree(colours.astype(float)).query(pixels)[1]
    found = Image.fromarray(nearest.astype(np.uint8))
    found.putpalette(colours.tobytes())
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    parser.add_argument("--copy", action="store_true", help="take over tables and pictures only")
    chosen = parser.parse_args()
    if chosen.copy:
        copy()
    elif chosen.check:
        check()
    else:
        write()
