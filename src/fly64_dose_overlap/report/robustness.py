"""How much scores lose to errors of the instrument, and what finding them wins back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fly64_dose_overlap.report.figures import Chart, Line, drawn_panel, lines_of
from fly64_dose_overlap.report.study import Cell, Study
from fly64_dose_overlap.scores.catalogue import PHASE_PSNR
from fly64_dose_overlap.yaml_text import at

ERRORS = {
    "defocus_error_um": "defocus error (um)",
    "astigmatism_um": "astigmatism (um)",
    "modes": "modes that are told",
    "position_error_px": "position error (px rms)",
    "photon_scale_error": "error of the probe's power",
    "flux_error": "error of the light of frames",
}
"""Keys of section ``calibration``, and what they are called."""
INSTRUMENT = ("calibration.", "refine.", "probe.")
"""Beginnings of the parameters in which runs of one panel may differ."""
MOST_METHODS = 4

Point = tuple[float, bool, Cell]
"""An error, whether methods looked for it, and the cell."""


def robustness_charts(studies: Sequence[Study]) -> list[Chart]:
    """Return a chart with a panel for each error of each dose and view of which several sizes were run."""
    points: dict[tuple[int, str, tuple[str, ...], str], list[Point]] = {}
    for study in studies:
        others = tuple(change for change in study.changes if not change.startswith(INSTRUMENT))
        for cell in study.done:
            for key, error, refined in _errors(cell.first.params):
                points.setdefault((cell.dose, cell.view, others, key), []).append((error, refined, cell))
    panels, changed = list[str](), dict[str, None]()
    for (dose, view, others, key), found in sorted(points.items(), key=lambda item: item[0]):
        if len({error for error, _, _ in found}) > 1:
            _draw(panels, f"{dose:,}, {view}", ERRORS[key], found, _lines(studies, found))
            changed |= dict.fromkeys(others)
    note = "Broken lines: methods take what they are told for right; full lines: they look for it (refine)."
    if changed:
        note += f" Of runs with {', '.join(changed)}."
    return [Chart("robustness against errors of the instrument", note, tuple(panels))] if panels else []


def _errors(params: dict[str, Any]) -> list[tuple[str, float, bool]]:
    """Return the errors that a run says something of: its only one, or, if it has none, each."""
    found = {key: float(at(params, f"calibration.{key}") or 0) for key in ERRORS}
    own = [key for key, value in found.items() if value]
    refine: dict[str, Any] = at(params, "refine") or {}
    refined = any(refine.values())
    # Of a run without errors it isn't known here how many modes there are.
    known = own or [key for key in found if key != "modes"]
    return [(key, found[key], refined) for key in known] if len(own) < 2 else []


def _lines(studies: Sequence[Study], found: list[Point]) -> list[Line]:
    """Return the lines of the methods that are best in any of the cells."""
    looks = {line.name: line for study in reversed(studies) if study.done for line in lines_of(study)}
    best = dict.fromkeys(name for _, _, cell in found for name in list(cell.methods)[:2])
    known = dict.fromkeys([*best, *(name for _, _, cell in found for name in cell.methods)])
    return [looks[name] for name in known if name in looks][:MOST_METHODS]


def _draw(panels: list[str], title: str, label: str, found: list[Point], lines: list[Line]) -> None:
    with drawn_panel(panels, "robustness", title, label) as axis:
        for line in lines:
            for wanted in (False, True):
                values = {
                    error: value.mean
                    for error, refined, cell in found
                    if refined == wanted and (value := cell.value(line.name, PHASE_PSNR))
                }
                axis.plot(
                    *zip(*sorted(values.items()), strict=True) if values else ([], []),
                    line.marker,
                    color=line.colour,
                    linestyle="-" if wanted else "--",
                    linewidth=line.width,
                    markersize=3.5,
                    label=line.name if wanted else None,
                )
        axis.set(title=title, xlabel=label, ylabel=PHASE_PSNR.label)
        axis.legend(fontsize=7)
