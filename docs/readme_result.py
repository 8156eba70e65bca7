"""Write the result into README.md and docs/index.md, from what the repository records.

Run it after the default cell has been made anew, with the files that it reads staged or committed::

    dvc repro && git add params.yaml metrics
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

import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "docs/index.md")
PICTURE = Path("reports/comparison.png")
COPY = Path("docs/comparison.png")
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
PICTURE_WIDTH_PX = 1800
PICTURE_COLOURS = 256


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
    lines = [_sentence(params, shown, list(by_key.values()), limit), "", *_table(shown), ""]
    lines.append(
        f"Limits of this scan, phase PSNR: {limit['phase_psnr_db']:.1f} dB for an unbiased method "
        f"(Cramér-Rao), {limit['bayesian']['phase_psnr_db']:.1f} dB with a Gaussian prior of the object's "
        "own contrast (van Trees)."
    )
    return "\n".join(lines)


def _sentence(
    params: dict[str, Any], shown: list[dict[str, Any]], every: list[dict[str, Any]], limit: dict[str, Any]
) -> str:
    best = max(shown, key=_psnr)
    rivals = [each for each in every if each["kind"] == "iterative" and each["key"] != best["key"]]
    rival = max(rivals, key=_psnr)
    other = "other " if best["kind"] == "iterative" else ""
    with_prior = _apart(_psnr(best) - limit["bayesian"]["phase_psnr_db"])
    text = (
        f"At {params['dose']:,} photons per frame and {params['view']} overlap, **{best['label']}** reaches "
        f"a phase PSNR of **{_psnr(best):.1f} dB**, {_apart(_psnr(best) - _psnr(rival))} {rival['label']}, "
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
    """Rewrite the texts, and take over the picture of a run."""
    block = result_text()
    for document in DOCUMENTS:
        path = ROOT / document
        before, _, after = split(document, path.read_text(encoding="utf-8"))
        path.write_text(f"{before}{BEGIN}\n\n{block}\n\n{END}{after}", encoding="utf-8", newline="\n")
        print(f"{document}: result written")
    if (ROOT / PICTURE).is_file():
        copy_picture(ROOT / PICTURE, ROOT / COPY)


def copy_picture(source: Path, target: Path) -> None:
    """Copy the picture, small enough for git."""
    from PIL import Image

    with Image.open(source) as picture:
        if picture.width <= PICTURE_WIDTH_PX:
            shutil.copyfile(source, target)
            return
        height = round(picture.height * PICTURE_WIDTH_PX / picture.width)
        small = picture.convert("RGB").resize((PICTURE_WIDTH_PX, height), Image.Resampling.LANCZOS)
    small.quantize(PICTURE_COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    if parser.parse_args().check:
        check()
    else:
        write()
