"""The files and the printed table of one evaluated cell."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fly64_dose_overlap.data.atomic import atomic_path, write_json_atomic
from fly64_dose_overlap.data.contract import Dataset
from fly64_dose_overlap.data.npz import write_npz
from fly64_dose_overlap.evaluation.reconstruct import FLAT, Reconstructions
from fly64_dose_overlap.evaluation.scoring import Evaluation
from fly64_dose_overlap.provenance import dumps
from fly64_dose_overlap.scoring.picture import comparison_picture, frc_picture

COLUMNS = {
    "amp PSNR dB": ("amplitude", "psnr_db", ".2f"),
    "phase PSNR dB": ("phase", "psnr_db", ".2f"),
    "amp SSIM": ("amplitude", "ssim", ".3f"),
    "phase SSIM": ("phase", "ssim", ".3f"),
    "amp MS-SSIM": ("amplitude", "ms_ssim", ".3f"),
    "phase MS-SSIM": ("phase", "ms_ssim", ".3f"),
    "FRC50 / Nyquist": ("frc", "frc50", ".3f"),
    "NRMSE": ("complex_nrmse", None, ".4f"),
}
"""Columns of the table: title, keys of the score and format."""


def write_report(
    evaluation: Evaluation,
    reconstructions: Reconstructions,
    dataset: Dataset,
    title: str,
    *,
    metrics_dir: Path,
    reports_dir: Path,
) -> Path:
    """Write scores, FRC curves, reconstructions and pictures; return the comparison picture.

    Parameters
    ----------
    evaluation : Evaluation
    reconstructions : dict of (y, x) complex64
        As they came from each method, before alignment.
    dataset : Dataset
        The test half.
    title : str
        Names the cell.
    metrics_dir, reports_dir : Path
        Folders of the small text files and of the large files.
    """
    write_json_atomic(metrics_dir / "evaluation.json", evaluation.metrics)
    _write_curves(metrics_dir / "frc.csv", evaluation)
    members: dict[str, Any] = {"objectGuess": dataset.obj}
    for name, reconstruction in reconstructions.items():
        key = name.replace(" ", "_")
        members[key] = reconstruction
        members[f"{key}_aligned"] = evaluation.aligned[name].astype(np.complex64)
    members["region"] = evaluation.region.mask
    members["_metadata"] = np.array(dumps(dataset.record))
    write_npz(reports_dir / "reconstruction.npz", members)
    picture = reports_dir / "comparison.png"
    captions = {name: _caption(scores) for name, scores in evaluation.metrics["methods"].items()}
    comparison_picture(
        picture, dataset.obj, evaluation.aligned, evaluation.region, title=title, captions=captions
    )
    curves = {name: curve for name, curve in evaluation.curves.items() if name != FLAT}
    frc_picture(reports_dir / "frc.png", curves, title=title)
    return picture


def print_table(metrics: dict[str, Any], title: str) -> None:
    """Print the scores, one line a method, and the conventions behind them."""
    table = Table(title=title)
    table.add_column("method")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for method, scores in metrics["methods"].items():
        table.add_row(method, *(_cell(scores, *keys) for keys in COLUMNS.values()))
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table)
    conventions = metrics["conventions"]
    region, peak = conventions["region"], conventions["peak"]
    console.print(
        f"test half, {region['pixels']} pixels ({region['covered_fraction']:.0%} of the scan's box) "
        f"with more than {region['illumination_threshold']:g} of the largest illumination; "
        "peaks are the truth's own range: "
        f"amplitude {peak['amplitude']:.3f}, phase {peak['phase']:.3f} rad; "
        f"MS-SSIM on {conventions['ms_ssim_scales']} scales of the rectangle, "
        f"{conventions['ms_ssim_filled_fraction']:.0%} of it outside the region and taken as right; "
        f"all methods aligned alike: {conventions['alignment']}",
        soft_wrap=True,
        highlight=False,
    )


def _cell(scores: dict[str, Any], first: str, second: str | None, style: str) -> str:
    value = scores[first] if second is None else scores[first][second]
    return "-" if value is None else format(value, style)


def _caption(scores: dict[str, Any]) -> str:
    return f"phase PSNR {_cell(scores, 'phase', 'psnr_db', '.1f')} dB, NRMSE {scores['complex_nrmse']:.3f}"


def _write_curves(path: Path, evaluation: Evaluation) -> None:
    curves = evaluation.curves
    rings = next(iter(curves.values()))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["nyquist_fraction", "half_bit", *(name.replace(" ", "_") for name in curves)])
        columns = [rings.nyquist_fraction, rings.threshold("half-bit"), *(c.frc for c in curves.values())]
        for row in zip(*columns, strict=True):
            writer.writerow([f"{value:.6f}" for value in row])
