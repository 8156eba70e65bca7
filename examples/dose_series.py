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
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

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
    parser.add_argument("--parts", type=above_zero, nargs="+", default=[1, 0.25], help="of the photons")
    parser.add_argument(
        "--methods", nargs="+", default=["refined", "map", "ml", "epie"], choices=fdo.methods()
    )
    parser.add_argument("--epochs", type=int, help="of each method, instead of its own")
    parser.add_argument("--out", type=Path, default=Path("reports/dose_series"))
    chosen = parser.parse_args()
    try:
        compare(chosen)
    except fdo.StudyError as error:
        parser.exit(1, f"{error}\n")


def above_zero(text: str) -> float:
    """Return a positive number."""
    if (value := float(text)) > 0:
        return value
    raise ValueError(text)


def compare(chosen: argparse.Namespace) -> None:
    """Do what the command line has chosen."""
    scan = fdo.read_scan(chosen.file)
    pixel_nm = chosen.pixel_nm or (scan.optics and scan.optics.object_pixel_m * 1e9)
    settings = {} if chosen.epochs is None else {"epochs": chosen.epochs}
    code = [sha256_of(path) for path in SOURCES]
    asked = f"{sha256_of(chosen.file)} {pixel_nm} {settings} {code}"
    rows, doubts, images = [HEAD], list[str](), dict[tuple[float, str], np.ndarray]()
    for part in chosen.parts:
        thinned = scan if part == 1 else fdo.thin(scan, part)
        for method in chosen.methods:
            name = hashlib.sha256(f"{asked} {part} {method}".encode()).hexdigest()[:12]
            kept = chosen.out / f"{method}-{part:g}-{name}.npz"
            if not kept.is_file():
                say(f"{method} at {part:g} of the dose")
                found = fdo.agreement(thinned, method, pixel_nm=pixel_nm, **settings)
                chosen.out.mkdir(parents=True, exist_ok=True)
                write_npz(kept, members(found, scan))
            with np.load(kept) as file:
                for label, figures, doubt in zip(
                    file["labels"], file["figures"], file["doubts"], strict=True
                ):
                    unit = "nm" if pixel_nm else "Nyquist"
                    reached = ["-" if np.isnan(each) else f"{each:.3g} {unit}" for each in figures[:2]]
                    cells = (f"{part:g}", label, *reached, *(f"{each:.4f}" for each in figures[2:]))
                    rows.append(f"| {' | '.join(cells)} |")
                    doubts += [f"{label} at {part:g} of the dose: {doubt}"] * bool(doubt)
                images[part, str(file["labels"][-1])] = file["phase"]
    print("\n".join([*rows, *doubts]))
    picture = chosen.out / f"phases-{hashlib.sha256(f'{asked} {list(images)}'.encode()).hexdigest()[:12]}.png"
    with atomic_path(picture) as path:
        drawn(images).savefig(path)
    print(f"picture: {picture}")


def members(found: fdo.Agreement, scan: fdo.Scan) -> dict[str, np.ndarray]:
    """Return labels and figures of every result, and the phase of the last, which held-out photons chose."""
    results = [found, *found.others.values()]
    unseen = np.isin(scan.scan_index, found.halves["frames"][1].scan.scan_index)
    others = scan.frames(np.flatnonzero(unseen))
    figures = []
    for each in results:
        at = each.cutoffs_nm if each.pixel_nm else each.cutoffs_nyquist
        misfit = fdo.misfit(each.halves["frames"][0], others)
        known = each.is_fit
        reached = [value if known and value else np.nan for value in at["frames"].values()]
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
