"""Compare halves of a measured scan, by dose and method.

A measured scan has no ground truth. Here it is thinned to parts of its dose, and each method reconstructs
even and odd frames, which share no photon, network, weight of a prior or stop. Two figures say how
far it can be trusted: the half period to which both objects agree, and how well the object of the even
frames explains the odd ones, all of whose photons are asked whatever the dose was. Believe a gain that
is in both.

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
FIGURES = "| {part:g} | {label} | {0:.3g} {unit} | {1:.3g} {unit} | {2:.4f} | {3:.4f} |"


def main() -> None:
    """Print a table, and draw the phase of every method at every part of the dose."""
    parser = argparse.ArgumentParser(description="compare halves of a measured scan, by dose and method")
    parser.add_argument("file", type=Path)
    parser.add_argument("--pixel-nm", type=float, help="side of an object pixel, unless the file says it")
    parser.add_argument("--parts", type=float, nargs="+", default=[1, 0.25], help="of the photons")
    parser.add_argument("--methods", nargs="+", default=["refined", "map", "ml", "epie"])
    parser.add_argument("--epochs", type=int, help="of each method, instead of its own")
    parser.add_argument("--out", type=Path, default=Path("reports/dose_series"))
    chosen = parser.parse_args()
    scan = fdo.read_scan(chosen.file)
    pixel_nm = chosen.pixel_nm or (scan.optics and scan.optics.object_pixel_m * 1e9)
    settings = {} if chosen.epochs is None else {"epochs": chosen.epochs}
    asked = f"{sha256_of(chosen.file)} {pixel_nm} {settings} {fdo.__version__}"
    rows, images = [HEAD], dict[tuple[float, str], np.ndarray]()
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
                for label, figures in zip(file["labels"], file["figures"], strict=True):
                    rows.append(
                        FIGURES.format(*figures, part=part, label=label, unit="nm" if pixel_nm else "Nyquist")
                    )
                images[part, str(file["labels"][-1])] = file["phase"]
    print("\n".join(rows))
    with atomic_path(chosen.out / "phases.png") as path:
        drawn(images).savefig(path)
    print(f"picture: {chosen.out / 'phases.png'}")


def members(found: fdo.Agreement, scan: fdo.Scan) -> dict[str, np.ndarray]:
    """Return labels and figures of every result, and the phase of the last, which held-out photons chose."""
    results = [found, *found.others.values()]
    odd = scan.frames(np.arange(1, len(scan), 2))
    figures = []
    for each in results:
        at = each.cutoffs_nm if each.pixel_nm else each.cutoffs_nyquist
        misfit = fdo.misfit(each.halves["even/odd"][0], odd)
        reached = [np.nan if value is None else value for value in at["even/odd"].values()]
        figures.append([*reached, misfit.deviance, misfit.deviance_floor])
    obj, light = results[-1].result.obj, scan.illumination()
    rows, columns = (np.flatnonzero((light > 0.1 * light.max()).any(axis=axis)) for axis in (1, 0))
    seen = obj[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    phase = np.angle(seen * np.exp(-1j * np.angle(seen.sum()))).astype(np.float32)
    return {
        "labels": np.array([each.result.label for each in results]),
        "figures": np.array(figures),
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
