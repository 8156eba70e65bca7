"""Compare halves of a measured scan, by dose and method.

A measured scan has no ground truth. Here it is thinned to parts of its dose, and each method reconstructs
two halves of the frames, which share no photon, network, weight of a prior or stop. Two figures say how
far it can be trusted: the half period to which both objects agree, and how well the object of the first
half explains the frames of the second, all of whose photons are asked whatever the dose was. Believe a
gain that is in both.

    python examples/dose_series.py FILE --pixel-nm 0.899 --parts 1 0.5 0.25 0.1 --methods refined map ml epie

What is finished lies in ``--out`` and is not made again: a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import yaml

import fly64_dose_overlap as fdo
from fly64_dose_overlap.files.atomic import atomic_path, sha256_of
from fly64_dose_overlap.files.npz_writer import write_npz
from fly64_dose_overlap.progress import say

HEAD = """| part of the dose | method | half-bit | one seventh | deviance of unseen frames | that of noise |
|---:|---|---:|---:|---:|---:|"""
SOURCES = (Path(__file__), *sorted(Path(fdo.__file__).parent.rglob("*.py")))
"""Code that decides the results: what another one made is not taken up."""


def main() -> None:
    """Print a table, and draw the phase of every method at every part of the dose."""
    parser = argparse.ArgumentParser(description="compare halves of a measured scan, by dose and method")
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--pixel-nm", type=above_zero, help="side of an object pixel, unless the file says it"
    )
    parser.add_argument("--parts", type=part, nargs="+", default=[1, 0.25], help="of the photons, up to 1")
    without_truth = sorted({*fdo.methods()} - {"supervised"})
    chosen = ["refined", "map", "ml", "epie"]
    parser.add_argument("--methods", nargs="+", default=chosen, choices=without_truth)
    parser.add_argument("--epochs", type=positive, help="of each method, instead of its own")
    parser.add_argument("--mend", type=yaml.safe_load, help="as base.mend, such as '{turn: [invert_y]}'")
    parser.add_argument("--out", type=Path, default=Path("reports/dose_series"))
    try:
        compare(parser.parse_args())
    except (fdo.StudyError, OSError) as error:
        parser.exit(1, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "stopped; what is finished is kept, and the same command goes on\n")


def above_zero(text: str) -> float:
    """Return a positive number."""
    if (value := float(text)) > 0:
        return value
    raise argparse.ArgumentTypeError(f"must be above 0, got {text}")


def part(text: str) -> float:
    """Return a part of the photons."""
    if 0 < (value := float(text)) <= 1:
        return value
    raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text}")


def positive(text: str) -> int:
    """Return a positive whole number."""
    if (value := int(text)) > 0:
        return value
    raise argparse.ArgumentTypeError(f"must be above 0, got {text}")


def compare(chosen: argparse.Namespace) -> None:
    """Do what the command line has chosen."""
    chosen.out.mkdir(parents=True, exist_ok=True)
    scan = fdo.read_scan(chosen.file, mend=chosen.mend)
    pixel_nm = chosen.pixel_nm or (scan.optics and scan.optics.object_pixel_m * 1e9)
    settings = {} if chosen.epochs is None else {"epochs": chosen.epochs}
    code = [sha256_of(path) for path in SOURCES]
    asked = f"{sha256_of(chosen.file)} {chosen.mend} {settings} {code}"
    rows, doubts, images = [HEAD], list[str](), dict[tuple[float, str], np.ndarray]()
    for part in dict.fromkeys(chosen.parts):
        thinned = scan if part == 1 else fdo.thin(scan, part)
        for method in dict.fromkeys(chosen.methods):
            name = hashlib.sha256(f"{asked} {part} {method}".encode()).hexdigest()[:12]
            kept = chosen.out / f"{method}-{part:g}-{name}.npz"
            if (finished := read(kept)) is None:
                say(f"{method} at {part:g} of the dose")
                finished = members(fdo.agreement(thinned, method, **settings), scan)
                write_npz(kept, finished)
            each_result = (finished[key] for key in ("labels", "figures", "doubts"))
            for label, figures, doubt in zip(*each_result, strict=True):
                reached = [shown(each, pixel_nm) for each in figures[:2]]
                cells = (f"{part:g}", label, *reached, *(f"{each:.4f}" for each in figures[2:]))
                rows.append(f"| {' | '.join(cells)} |")
                doubts += [f"{label} at {part:g} of the dose: {doubt}"] * bool(doubt)
            images[part, str(finished["labels"][-1])] = finished["phase"]
    print("\n".join([*rows, *doubts]))
    picture = chosen.out / f"phases-{hashlib.sha256(f'{asked} {list(images)}'.encode()).hexdigest()[:12]}.png"
    with atomic_path(picture) as path:
        drawn(images).savefig(path)
    print(f"picture: {picture}")


def read(kept: Path) -> Mapping[str, np.ndarray] | None:
    """Return what was kept of a method, or None if there is nothing whole."""
    if not kept.is_file():
        return None
    try:
        with np.load(kept) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        say(f"{kept} is damaged and made again")
        return None


def shown(cutoff: float, pixel_nm: float | None) -> str:
    """Return to which half period two halves agree; a cutoff of Nyquist is that of a pixel."""
    if np.isnan(cutoff):
        return "-"
    if pixel_nm is None:
        return f"{cutoff:.3g} Nyquist"
    return f"{pixel_nm / cutoff:.3g} nm" if cutoff else "none"


def members(found: fdo.Agreement, scan: fdo.Scan) -> dict[str, np.ndarray]:
    """Return labels and figures of every result, and the phase of the last, which held-out photons chose."""
    results = [found, *found.others.values()]
    unseen = np.isin(scan.scan_index, found.halves["frames"][1].scan.scan_index)
    others = scan.frames(np.flatnonzero(unseen))
    figures = []
    for each in results:
        misfit = fdo.misfit(each.halves["frames"][0], others)
        reached = [value if each.is_fit else np.nan for value in each.cutoffs_nyquist["frames"].values()]
        figures.append([*reached, misfit.deviance, misfit.deviance_floor])
    obj, light = results[-1].result.obj, scan.illumination()
    rows, columns = (np.flatnonzero((light > 0.1 * light.max()).any(axis=axis)) for axis in (1, 0))
    seen = obj[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    phase = np.angle(seen * np.exp(-1j * np.angle(seen.sum()))).astype(np.float32)
    return {
        "labels": np.array([each.result.label for each in results]),
        "figures": np.array(figures),
        "doubts": np.array([each.doubt for each in results]),
        "phase": phase,
    }


def drawn(images: dict[tuple[float, str], np.ndarray]) -> plt.Figure:
    """Draw phases, a row for each part of the dose, all in the grey levels of the first."""
    parts, labels = (list(dict.fromkeys(key[axis] for key in images)) for axis in (0, 1))
    low, high = np.percentile(next(iter(images.values())), (0.5, 99.5))
    size = (3 * len(labels), 3.2 * len(parts))
    figure, axes = plt.subplots(
        len(parts), len(labels), figsize=size, dpi=150, squeeze=False, layout="constrained"
    )
    for row, part in zip(axes, parts, strict=True):
        for panel, label in zip(row, labels, strict=True):
            panel.imshow(images[part, label], cmap="gray", vmin=low, vmax=high)
            panel.set(title=f"{label}, {part:g} of the dose", xticks=[], yticks=[])
    return figure


if __name__ == "__main__":
    main()
