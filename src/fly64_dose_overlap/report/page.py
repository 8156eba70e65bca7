"""The report: one page that needs nothing else, and its tables for other programs."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from fly64_dose_overlap.files.atomic import write_text_atomic
from fly64_dose_overlap.progress import say, track
from fly64_dose_overlap.report import figures, findings, tables
from fly64_dose_overlap.report.remains import remains_of
from fly64_dose_overlap.report.robustness import robustness_charts
from fly64_dose_overlap.report.study import Cell, Study
from fly64_dose_overlap.report.viewer import Viewer, viewer_of
from fly64_dose_overlap.scores.catalogue import printed

PACKAGES = ("fly64-dose-overlap", "torch", "numpy", "scipy", "scikit-image", "ptychi")
HOW_TO_GET = "dvc exp pull origin, or run the cell here: dvc repro"
_TEMPLATE = "report.html.j2"


def write_page(studies: Sequence[Study], out: Path, *, seconds: Mapping[str, float]) -> None:
    """Write index.html, table.csv, table.md and dose_response.svg, a picture of the largest study.

    Studies of the working tree come first; ``seconds`` on the processor are by the SHA-256 of
    what was made.
    """
    largest = max(studies, key=lambda study: len(study.done))
    write_text_atomic(out / "table.csv", tables.csv_text(studies, seconds))
    write_text_atomic(out / "table.md", markdown_text(studies, seconds))
    write_text_atomic(out / "dose_response.svg", figures.dose_response_picture(largest))
    write_text_atomic(out / "index.html", page(studies, seconds))


def page(studies: Sequence[Study], seconds: Mapping[str, float]) -> str:
    """Return the page as HTML."""
    environment = Environment(
        loader=PackageLoader(__package__ or "", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown, trials = divide(studies)
    largest = max(shown, key=lambda study: len(study.done))
    return environment.get_template(_TEMPLATE).render(
        lead=findings.headline(largest),
        beyond=findings.beyond(largest),
        frames=findings.frames(largest),
        pictured=(pictured := _pictured(shown)),
        remains=remains_of(*pictured[:2]) if pictured else None,
        diagnosis=findings.diagnosis(pictured[1]) if pictured else "",
        how_to_get=HOW_TO_GET,
        studies=[
            _content(each, seconds) for each in track(shown, total=len(shown), label="draw", unit="part")
        ],
        trials=tables.trials_table(trials, _plain(shown)) if trials else None,
        robustness=robustness_charts(studies),
        versions={"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    )


def divide(studies: Sequence[Study]) -> tuple[list[Study], list[Study]]:
    """Return the studies that have a section of their own, and those whose runs share one table."""
    done = [study for study in studies if study.done]
    shown = [study for study in done if not study.is_trial] or done
    return shown, [study for study in studies if study not in shown]


def _plain(studies: Sequence[Study]) -> Study | None:
    return next((study for study in studies if study.committed), None)


def _pictured(studies: Sequence[Study]) -> tuple[Study, Cell, Viewer] | None:
    """Return the first cell whose reconstructions are at hand, with its pictures."""
    for study in studies:
        for cell in study.done:
            if viewer := viewer_of(study, cell):
                return study, cell, viewer
    say(f"report: no reconstructions are here to be shown; get them: {HOW_TO_GET}")
    return None


def _content(study: Study, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return what the template shows of a study."""
    overview, *summary = tables.summary_tables(study)
    several = len(study.done) > 1
    return {
        "study": study,
        "headline": findings.headline(study),
        "conventions": findings.conventions(study.conventions),
        "lines": figures.lines_of(study),
        "charts": figures.response_charts(study) if several else [],
        "further": figures.further_charts(study) if several else [],
        "overview": overview if several else tables.cell_table(study.done[0], printed(study.conventions[0])),
        "summary": summary if several else [],
        "deltas": tables.delta_tables(study),
        "cells": [tables.cell_table(cell) for cell in study.done],
        "measured": _measured(study, seconds),
        "runs": tables.runs_table(study),
        "params": yaml.safe_dump(study.done[0].first.params, sort_keys=False),
        "data": dict(sorted(pair for cell in study.done for pair in cell.first.data.items())),
    }


def _measured(study: Study, seconds: Mapping[str, float]) -> list[tables.Table]:
    found = [tables.dose_table(study), tables.overlap_table(study), tables.time_table(study, seconds)]
    return [table for table in found if table.rows]


def markdown_text(studies: Sequence[Study], seconds: Mapping[str, float]) -> str:
    """Return headline, summary, differences, measured values and times of every study as Markdown."""
    shown, trials = divide(studies)
    parts = ["# Dose and overlap"]
    for study in shown:
        parts += [f"## {findings.capital(study.title)}", f"{study.status}.", findings.headline(study)]
        parts.append(findings.frames(study))
        parts += [f"Changed parameters: {', '.join(study.changes)}."] if study.changes else []
        parts.append(findings.conventions(study.conventions))
        compared = [tables.brief_table(study), *tables.summary_tables(study), *tables.delta_tables(study)]
        for table in (*compared, *_measured(study, seconds)):
            parts += [f"### {table.title}", *filter(None, [table.note]), tables.markdown(table)]
    if trials:
        table = tables.trials_table(trials, _plain(shown))
        parts += ["## Trials", table.note, tables.markdown(table)]
    return "\n\n".join(parts) + "\n"
