"""The files and the printed table of one evaluated cell."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fly64_dose_overlap.files.atomic import atomic_path, write_json_atomic
from fly64_dose_overlap.files.npz_writer import write_npz
from fly64_dose_overlap.files.stream import ArrayStream
from fly64_dose_overlap.provenance import dumps
from fly64_dose_overlap.report.findings import conventions
from fly64_dose_overlap.report.picture import REFERENCE, TRUTH, comparison_picture, frc_picture
from fly64_dose_overlap.report.remains import members_of
from fly64_dose_overlap.report.study import BAYESIAN_LIMIT, LIMIT, PREFERRED
from fly64_dose_overlap.scores.catalogue import (
    AMPLITUDE_PSNR,
    COMPLEX_NRMSE,
    DOSE_EFFICIENCY,
    FRC50,
    HALVES_HALF_BIT,
    PHASE_PSNR,
    PHASE_SSIM,
    R_OVER_FLOOR,
)
from fly64_dose_overlap.scores.evaluation import Evaluation, pixel_nm
from fly64_dose_overlap.scores.limit import Limit

MOST_PICTURED = 5
"""More would not be legible at the width of README.md."""
TABLE_WIDTH = 100
"""Of the printed table where no terminal says how wide it is."""


def write_report(
    evaluation: Evaluation,
    truth: NDArray[np.complex64],
    limit: Limit,
    dose: int,
    title: str,
    *,
    metrics_dir: Path,
    reports_dir: Path,
) -> Path:
    """Write scores, FRC curves, aligned reconstructions and pictures; return the comparison picture.

    The truth is (y, x), the limit that of the same scan, the dose in photons per frame, and the title names
    the cell. ``metrics_dir`` takes small text files,
    ``reports_dir`` large files.
    """
    write_json_atomic(metrics_dir / "evaluation.json", evaluation.metrics)
    rings = next(iter(evaluation.curves.values()))
    names = ["nyquist_fraction", "half_bit", "limit", *evaluation.curves]
    columns = [rings.nyquist_fraction, rings.threshold("half-bit"), limit.frc(dose)]
    columns += [curve.frc for curve in evaluation.curves.values()]
    with atomic_path(metrics_dir / "frc.csv") as temporary:
        np.savetxt(temporary, np.stack(columns, axis=1), "%.6f", ",", header=",".join(names), comments="")
    members: dict[str, Any] = {"objectGuess": truth}
    for key, field in evaluation.aligned.items():
        single = (rows.astype(np.complex64) for rows in field.blocks())
        members[f"{key}_aligned"] = ArrayStream(field.shape, np.complex64, single)
    members["region"] = evaluation.region.mask
    members |= members_of(evaluation)
    members["_metadata"] = np.array(dumps(evaluation.scan.record))
    write_npz(reports_dir / "reconstruction.npz", members)
    order = ranked(evaluation.metrics["methods"])
    methods = {scores["key"]: name for name, scores in evaluation.metrics["methods"].items()}
    drawn = pictured(list(methods))
    labels = {key: methods[key] for key in sorted(drawn, key=lambda key: order.index(methods[key]))}
    captions = {name: _caption(evaluation.metrics["methods"][name]) for name in labels.values()}
    fields = {name: evaluation.aligned[key] for key, name in labels.items()}
    picture = reports_dir / "comparison.png"
    region, pixel = evaluation.region, pixel_nm(evaluation.scan.record)
    measured = evaluation.metrics["conventions"].get("frames") == "measured"
    first = REFERENCE if measured else TRUTH
    about = f"{title}\nbelow each name: {PHASE_PSNR.name}, and {COMPLEX_NRMSE.name}"
    comparison_picture(
        picture, truth, fields, region, title=about, captions=captions, pixel_nm=pixel, first=first
    )
    curves = {name: evaluation.curves[key] for key, name in labels.items()}
    frc_picture(reports_dir / "frc.png", curves, title=title)
    return picture


def pictured(keys: Sequence[str]) -> list[str]:
    """Return the short names of the methods that are drawn: the preferred ones, then others as they come.

    Examples
    --------
    >>> pictured(["flat_object", "map", "refined"])
    ['refined', 'map', 'flat_object']
    """
    preferred = [key for key in PREFERRED if key in keys]
    return [*preferred, *(key for key in keys if key not in preferred)][:MOST_PICTURED]


def ranked(methods: dict[str, dict[str, Any]]) -> list[str]:
    """Return the names of methods as the report has them: that of the highest phase PSNR first.

    Examples
    --------
    >>> ranked({"a": {"phase": {"psnr_db": 20}}, "b": {}, "c": {"phase": {"psnr_db": 21}}})
    ['c', 'a', 'b']
    """

    def height(name: str) -> float:
        value = PHASE_PSNR.of(methods[name])
        return float("-inf") if value is None else value

    return sorted(methods, key=height, reverse=True)


def print_table(metrics: dict[str, Any], title: str) -> None:
    """Print the scores that a terminal has room for, one line a method, and the conventions behind them."""
    methods = metrics["methods"]
    table = Table(title=title, show_edge=False, pad_edge=False)
    table.add_column("method", no_wrap=True)
    measured = metrics["conventions"].get("frames") == "measured"
    columns = [PHASE_PSNR, AMPLITUDE_PSNR, PHASE_SSIM, COMPLEX_NRMSE, FRC50]
    columns.append(R_OVER_FLOOR if measured else DOSE_EFFICIENCY)
    if any("halves" in scores for scores in methods.values()):
        columns.append(HALVES_HALF_BIT)
    for score in columns:
        table.add_column(score.label.replace(" ", "\n"), justify="right")
    for method in ranked(methods):
        table.add_row(method, *(score.write(score.of(methods[method])) for score in columns))
    for name, bounds in ((LIMIT, metrics["limit"]), (BAYESIAN_LIMIT, metrics["limit"]["bayesian"])):
        table.add_row(name, *(score.write(score.bound(bounds)) for score in columns), style="dim")
    # FORCE_COLOR, as CI sets it, makes a pipe a terminal to rich.
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    console.print(table)
    if diagnosis := metrics.get("diagnosis"):
        console.print(f"Instrument: {diagnosis['sentence']}.", soft_wrap=True, highlight=False, markup=False)
    console.print(conventions([metrics["conventions"]]), soft_wrap=True, highlight=False)


def _caption(scores: dict[str, Any]) -> str:
    psnr, nrmse = (score.write(score.of(scores)) for score in (PHASE_PSNR, COMPLEX_NRMSE))
    return f"{psnr} dB\nNRMSE {nrmse}"
