"""The files and the printed table of one evaluated cell."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fly64_dose_overlap.files.atomic import atomic_path, write_json_atomic
from fly64_dose_overlap.files.npz_writer import write_npz
from fly64_dose_overlap.files.stream import ArrayStream
from fly64_dose_overlap.provenance import Record, dumps
from fly64_dose_overlap.scores.evaluation import Evaluation
from fly64_dose_overlap.scores.limit import Limit
from fly64_dose_overlap.scores.picture import comparison_picture, frc_picture

PICTURED = ("network", "refined", "supervised", "map", "lsqml", "group_start", "flat_object")
"""Short names of the methods in the pictures, as far as they are there: all would not fit."""
UNCURVED = ("flat_object",)

COLUMNS = {
    "amp PSNR dB": ("amplitude", "psnr_db", ".2f"),
    "phase PSNR dB": ("phase", "psnr_db", ".2f"),
    "amp SSIM": ("amplitude", "ssim", ".3f"),
    "phase SSIM": ("phase", "ssim", ".3f"),
    "amp MS-SSIM": ("amplitude", "ms_ssim", ".3f"),
    "phase MS-SSIM": ("phase", "ms_ssim", ".3f"),
    "FRC50 / Nyquist": ("frc", "frc50", ".3f"),
    "NRMSE": ("complex_nrmse", None, ".4f"),
    "dose efficiency": ("dose_efficiency", None, ".2f"),
}
"""Columns of the table: title, keys of the score and format."""


def write_report(
    evaluation: Evaluation,
    truth: NDArray[np.complex64],
    record: Record,
    limit: Limit,
    dose: int,
    title: str,
    *,
    metrics_dir: Path,
    reports_dir: Path,
) -> Path:
    """Write scores, FRC curves, aligned reconstructions and pictures; return the comparison picture.

    Parameters
    ----------
    evaluation : Evaluation
    truth : (y, x) complex64
    record : dict
        Provenance of the data.
        The test half.
    limit : Limit
        Of the same scan.
    dose : int, photons per frame
    title : str
        Names the cell.
    metrics_dir, reports_dir : Path
        Folders of the small text files and of the large files.
    """
    write_json_atomic(metrics_dir / "evaluation.json", evaluation.metrics)
    _write_curves(metrics_dir / "frc.csv", evaluation, limit.frc(dose))
    members: dict[str, Any] = {"objectGuess": truth}
    for key, field in evaluation.aligned.items():
        single = (rows.astype(np.complex64) for rows in field.blocks())
        members[f"{key}_aligned"] = ArrayStream(field.shape, np.complex64, single)
    members["region"] = evaluation.region.mask
    members["_metadata"] = np.array(dumps(record))
    write_npz(reports_dir / "reconstruction.npz", members)
    labels = {scores["key"]: name for name, scores in evaluation.metrics["methods"].items()}
    shown = [key for key in PICTURED if key in labels]
    captions = {labels[key]: _caption(evaluation.metrics["methods"][labels[key]]) for key in shown}
    fields = {labels[key]: evaluation.aligned[key] for key in shown}
    picture = reports_dir / "comparison.png"
    comparison_picture(picture, truth, fields, evaluation.region, title=title, captions=captions)
    curves = {labels[key]: evaluation.curves[key] for key in shown if key not in UNCURVED}
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
    for name, bound in (("limit", metrics["limit"]), ("limit with prior", metrics["limit"]["bayesian"])):
        table.add_row(name, *(_bound(bound, *keys) for keys in COLUMNS.values()), style="dim")
    console = Console(width=None if Console().is_terminal else 150)
    console.print(table)
    conventions = metrics["conventions"]
    region, peak = conventions["region"], conventions["peak"]
    console.print(
        f"test half, {region['pixels']} pixels ({region['covered_fraction']:.0%} of the scan's box) "
        f"with more than {region['illumination_threshold']:g} of the largest illumination; "
        "peaks are the truth's own range: "
        f"amplitude {peak['amplitude']:.3f}, phase {peak['phase']:.3f} rad; "
        f"MS-SSIM on {conventions['ms_ssim_scales']} scales; "
        f"all methods aligned alike: {conventions['alignment']}",
        soft_wrap=True,
        highlight=False,
    )


def _cell(scores: dict[str, Any], first: str, second: str | None, style: str) -> str:
    value = scores[first] if second is None else scores[first][second]
    return "-" if value is None else format(value, style)


def _bound(bound: dict[str, Any], first: str, second: str | None, style: str) -> str:
    """Return the physical limit of a score, a dash where there is none."""
    key = "nrmse" if first == "complex_nrmse" else f"{first}_{second}"
    value = bound.get(key)
    return "-" if value is None else format(value, style)


def _caption(scores: dict[str, Any]) -> str:
    return f"phase PSNR {_cell(scores, 'phase', 'psnr_db', '.1f')} dB, NRMSE {scores['complex_nrmse']:.3f}"


def _write_curves(path: Path, evaluation: Evaluation, limit: NDArray[np.float64]) -> None:
    curves = evaluation.curves
    rings = next(iter(curves.values()))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["nyquist_fraction", "half_bit", "limit", *curves])
        columns = [rings.nyquist_fraction, rings.threshold("half-bit"), limit]
        columns += [curve.frc for curve in curves.values()]
        for row in zip(*columns, strict=True):
            writer.writerow([f"{value:.6f}" for value in row])
