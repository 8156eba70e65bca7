"""The report: one page that needs nothing else, and its tables for other programs."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from fly64_dose_overlap.files.atomic import write_text_atomic
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.report import tables
from fly64_dose_overlap.report.collect import collect_studies
from fly64_dose_overlap.report.figures import Charts, Picture, draw_charts
from fly64_dose_overlap.report.images import reconstructions
from fly64_dose_overlap.report.metrics import PHASE_PSNR
from fly64_dose_overlap.report.study import LIMIT, NETWORK, Cell, Study
from fly64_dose_overlap.results.repository import repository_root
from fly64_dose_overlap.results.timings import cpu_seconds

PACKAGES = ("fly64-dose-overlap", "torch", "numpy", "scipy", "scikit-image", "ptychi", "dvc")
MOST_PICTURE_CHARACTERS = 5_000_000
"""Reconstructions stop here; with their curves, a full study and some variants stay below 8 MB."""
_TEMPLATE = "report.html.j2"


def write_report(
    root: Path,
    out: Path,
    *,
    revisions: Sequence[str] = ("HEAD",),
) -> list[Study]:
    """Write index.html, table.csv, table.md and dose_response.svg of all experiments of some commits.

    The picture is the first chart of the first study that has a result.

    Parameters
    ----------
    root : Path
        Folder of the repository.
    out : Path
        Folder to write to.
    revisions : sequence of str
        Commits that the experiments started from.

    Returns
    -------
    list of Study
        What was found, failed runs included.

    Raises
    ------
    StudyError
        If there is no result, or a file is damaged.
    """
    studies = collect_studies(root, revisions)
    seconds = cpu_seconds(repository_root(root))
    write_text_atomic(out / "table.csv", tables.csv_text(studies, seconds))
    write_text_atomic(out / "table.md", markdown_text(studies, seconds))
    charts = {study: draw_charts(study) for study in studies if study.done}
    picture = next(iter(charts.values())).responses[0].content
    write_text_atomic(out / "dose_response.svg", picture.decode())
    write_text_atomic(out / "index.html", page(studies, charts, _images(root, studies), seconds))
    for study in studies:
        say(f"{study.title}: {study.status}")
    return studies


def _images(root: Path, studies: Sequence[Study]) -> dict[Cell, Picture]:
    found: dict[Cell, Picture] = {}
    size = 0
    for cell in (cell for study in studies for cell in study.done):
        picture = reconstructions(root, cell) if size < MOST_PICTURE_CHARACTERS else None
        if picture:
            found[cell] = picture
            size += len(picture.source)
    return found


def page(
    studies: Sequence[Study],
    charts: Mapping[Study, Charts],
    images: Mapping[Cell, Picture],
    timings: Mapping[str, float],
) -> str:
    """Return the page as HTML, with those charts and images that are given."""
    environment = Environment(
        loader=PackageLoader(__package__ or "", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    contents = [_content(study, charts, images, timings) for study in studies]
    return environment.get_template(_TEMPLATE).render(studies=contents, versions=versions())


def _content(
    study: Study,
    charts: Mapping[Study, Charts],
    images: Mapping[Cell, Picture],
    timings: Mapping[str, float],
) -> dict[str, Any]:
    """Return what the template shows of a study."""
    content: dict[str, Any] = {"study": study, "runs": tables.runs_table(study)}
    if not study.done:
        return content
    return content | {
        "findings": findings(study),
        "conventions": conventions(study),
        "summary": tables.summary_tables(study),
        "deltas": tables.delta_tables(study),
        "charts": charts.get(study, Charts()),
        "measured": [tables.dose_table(study), tables.overlap_table(study)],
        "time": tables.time_table(study, timings),
        "cells": [
            {
                "cell": cell,
                "picture": images.get(cell),
                "tables": [tables.cell_table(cell), tables.cell_delta_table(cell)] if cell.runs else [],
                "conventions": cell_conventions(cell) if cell.runs else "",
            }
            for cell in study.cells.values()
        ],
        "params": yaml.safe_dump(study.done[0].first.params, sort_keys=False),
        "hashes": _hashes(study),
    }


def findings(study: Study) -> list[str]:
    """Say in a few sentences what the table of the phase PSNR shows.

    Compared are the network and every other learned method that is the best somewhere.
    """
    wins = Counter(name for cell in study.done for name in cell.best(PHASE_PSNR))
    shown = ", ".join(f"{name} in {count}" for name, count in wins.most_common())
    found = [f"Highest phase PSNR, of {len(study.done)} cells: {shown}."]
    for method in dict.fromkeys([NETWORK, *(name for name in wins if study.methods[name] == "learned")]):
        best = "the best iterative method of each cell, phase PSNR"
        limit = "the physical limit for unbiased estimators"
        found += _range(method, best, _margins(study, method, Cell.best_iterative_psnr))
        found += _range(method, limit, _margins(study, method, lambda cell: cell.limit(PHASE_PSNR, LIMIT)))
    return found


def _margins(study: Study, method: str, other: Callable[[Cell], float | None]) -> list[float]:
    """Return by how much the phase PSNR of a method is above another value, where both are there."""
    pairs = [(cell.value(method, PHASE_PSNR), other(cell)) for cell in study.done]
    return [value.mean - reference for value, reference in pairs if value and reference is not None]


def _range(method: str, other: str, margins: Sequence[float]) -> list[str]:
    if not margins:
        return []
    least, most = min(margins), max(margins)
    name = method[0].upper() + method[1:]
    return [f"{name} minus {other}: {least:+.2f} to {most:+.2f} dB (positive is better)."]


def conventions(study: Study) -> str:
    """Say how the scores of a study were taken."""
    found = [cell.first.evaluation["conventions"] for cell in study.done]
    regions = [item["region"] for item in found]
    peaks = [item["peak"] for item in found]
    return (
        f"Test half only. Region: {_span([r['pixels'] for r in regions], ',')} pixels lit by more than "
        f"{_span([r['illumination_threshold'] for r in regions], 'g')} of the largest illumination. "
        f"Peak of PSNR and SSIM: the truth's own range in that region, "
        f"amplitude {_span([p['amplitude'] for p in peaks], '.3f')}, "
        f"phase {_span([p['phase'] for p in peaks], '.3f')} rad. "
        f"Every method is aligned alike: {'; '.join(dict.fromkeys(item['alignment'] for item in found))}. "
        f"MS-SSIM on {_span([item['ms_ssim_scales'] for item in found], 'd')} scales."
    )


def cell_conventions(cell: Cell) -> str:
    """Say how the scores of one cell were taken."""
    found = cell.first.evaluation["conventions"]
    region, peak = found["region"], found["peak"]
    return (
        f"Test half; rows {region['rows'][0]} to {region['rows'][1]}, columns {region['columns'][0]} to "
        f"{region['columns'][1]}, {region['pixels']:,} pixels; peaks {peak['amplitude']:.4f} (amplitude) and "
        f"{peak['phase']:.4f} rad (phase); alignment: {found['alignment']}."
    )


def _span(values: Sequence[float], style: str) -> str:
    texts = list(dict.fromkeys(format(value, style) for value in (min(values), max(values))))
    return " to ".join(texts)


def markdown_text(studies: Sequence[Study], timings: Mapping[str, float]) -> str:
    """Return summary, differences, measured values and times of every study as Markdown."""
    parts: list[str] = ["# Dose and overlap"]
    for study in studies:
        parts += [f"## {study.title.capitalize()}", f"{study.status}."]
        parts += [f"Changed parameters: {', '.join(study.changes)}."] if study.changes else []
        if study.done:
            parts += [" ".join(findings(study)), conventions(study)]
            for table in (
                *tables.summary_tables(study),
                *tables.delta_tables(study),
                tables.dose_table(study),
                tables.overlap_table(study),
                tables.time_table(study, timings),
            ):
                parts += [f"### {table.title}", *filter(None, [table.note]), tables.markdown(table)]
    return "\n\n".join(parts) + "\n"


def versions() -> dict[str, str]:
    """Return the versions of Python and the packages that count, in this environment."""
    return {"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _hashes(study: Study) -> dict[str, str]:
    """Return the hash of every dataset of the study."""
    outputs = {
        path: digest
        for cell in study.done
        for path, digest in cell.first.outputs.items()
        if path.startswith("data/")
    }
    return dict(sorted(outputs.items()))
