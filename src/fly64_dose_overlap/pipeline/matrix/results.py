"""The table of the matrix, and the record of what was executed for it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fly64_dose_overlap.files.atomic import write_json_atomic
from fly64_dose_overlap.pipeline.cells import EVALUATION
from fly64_dose_overlap.pipeline.matrix.dvc_queue import stages_run
from fly64_dose_overlap.pipeline.matrix.history import result_of
from fly64_dose_overlap.pipeline.matrix.plan import Experiment
from fly64_dose_overlap.pipeline.matrix.watch import FAILED, KEPT, Line
from fly64_dose_overlap.yaml_text import at

RECORD = Path(".dvc/tmp/matrix.json")
"""Cells of the last matrix with their states and the stages that DVC executed for each."""
DATA_STAGES = ("base", "reference", "expose", "overlap")
TABLE_WIDTH = 180
SHOWN = ("flat object", "group start", "supervised", "network", "refined", "MAP", "ML")
"""Methods with a column of their own, as far as a cell has them; the report shows all."""
PTYCHI = ("LSQML", "rPIE", "ePIE", "AD Poisson")


def print_table(experiments: Sequence[Experiment], lines: Sequence[Line], commit: str) -> None:
    """Print phase PSNR by method with the limit, and the headline method's other scores, a row per cell."""
    scores = {line.name: result_of(commit, line.name, EVALUATION) for line in lines if line.state != FAILED}
    splits = {at(score, "conventions.split") for score in scores.values()}
    part = "of all frames" if splits == {"all"} else "on the test half"
    methods = [name for name in SHOWN if any(name in score["methods"] for score in scores.values())]
    table = Table(
        title=f"phase PSNR (dB) {part}; SSIM (phase) and complex NRMSE: refined, else network",
        caption="best pty-chi: the highest of its methods and stops; all methods: dose-overlap report",
    )
    scored = (*methods, "best pty-chi", "limit", "SSIM", "NRMSE")
    for title in ("experiment", "state", "dose", "view", *scored):
        table.add_column(title, justify="right" if title in ("dose", *scored) else "left")
    for each, line in zip(experiments, lines, strict=True):
        values = _values(scores[line.name], methods) if line.name in scores else []
        table.add_row(line.name, line.state, str(each.cell.dose), each.cell.view, *values)
    # FORCE_COLOR, as CI sets it, makes a pipe a terminal to rich.
    Console(width=None if sys.stdout.isatty() else TABLE_WIDTH).print(table)


def _values(score: dict[str, Any], methods: Sequence[str]) -> list[str]:
    psnr = {name: each["phase"]["psnr_db"] for name, each in score["methods"].items()}
    others = (psnr[name] for name in psnr if name.startswith(PTYCHI) and psnr[name] is not None)
    values = [*(psnr.get(name) for name in methods), max(others, default=None)]
    values.append(score["limit"]["phase_psnr_db"])
    shown = ["" if value is None else f"{value:.2f}" for value in values]
    return [*shown, f"{score['ssim']:.3f}", f"{score['nrmse']:.4f}"]


def write_record(experiments: Sequence[Experiment], lines: Sequence[Line], commit: str) -> str:
    """Write what was executed for each cell; return in one line which stages ran.

    ``stages`` is None where the log is elsewhere.
    """
    entries: list[dict[str, Any]] = [
        {
            "name": line.name,
            "dose": each.cell.dose,
            "view": each.cell.view,
            "seed": each.cell.seed,
            "state": line.state,
            "stages": _executed(line),
            "log": None if line.log is None else str(line.log),
        }
        for each, line in zip(experiments, lines, strict=True)
    ]
    write_json_atomic(RECORD, {"baseline": commit, "cells": entries})
    known = [entry["stages"] for entry in entries if entry["stages"] is not None]
    executed = Counter(stage.split("@")[0] for stages in known for stage in stages)
    ran = ", ".join(f"{stage} {count}" for stage, count in sorted(executed.items())) or "nothing"
    made = sum(executed[stage] for stage in DATA_STAGES)
    unknown = len(entries) - len(known)
    elsewhere = f"; logs of {unknown} cells are not here" if unknown else ""
    return f"executed: {ran}; datasets made: {made or 'none'}{elsewhere} ({RECORD})"


def _executed(line: Line) -> list[str] | None:
    if line.state == KEPT:
        return []
    return stages_run(line.log) if line.log is not None and line.log.exists() else None
