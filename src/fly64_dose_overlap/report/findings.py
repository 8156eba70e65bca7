"""What the scores of a study say, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fly64_dose_overlap.report.study import BAYESIAN_LIMIT, ITERATIVE, LEARNED, LIMIT, Cell, Study
from fly64_dose_overlap.scores.catalogue import COMPLEX_NRMSE, PHASE_PSNR


def headline(study: Study) -> str:
    """Say who leads, by how much, how far from the physical limit, and who has the smaller complex error."""
    leader, cells = study.leader, study.done
    led = [cell for cell in cells if leader in cell.best(PHASE_PSNR)]
    if not led:
        return "No method has a phase score: the phase of the truth is flat."
    if len(cells) == 1:
        value = PHASE_PSNR.write(_psnr(cells[0], leader))
        text = f"{capital(leader)} leads at {cells[0].title}, with a phase PSNR of {value} dB"
    else:
        count = f"all {len(cells)}" if len(led) == len(cells) else f"{len(led)} of {len(cells)}"
        text = f"{capital(leader)} leads in phase PSNR in {count} cells of dose and overlap"
    limit = limit_of(study)
    distances = _distances(study, limit)
    shown = "the Bayesian limit (limit with prior)" if limit == BAYESIAN_LIMIT else "the physical limit"
    parts = [*_lead(study), *([f"{_span(distances)} {shown}"] if distances else [])]
    return text + (f": {' and '.join(parts)}" if parts else "") + "." + _smaller_errors(leader, led)


def _smaller_errors(leader: str, led: Sequence[Cell]) -> str:
    """Say which methods have a smaller complex NRMSE than the leader in cells that it leads in phase PSNR."""
    least = [best for cell in led if (best := cell.best(COMPLEX_NRMSE)) and leader not in best]
    counts = Counter(min(best) for best in least).most_common()
    if not counts:
        return ""
    (name, count), *others = counts
    where = "that cell" if len(led) == 1 else f"{count} of those {len(led)} cells"
    further = "".join(f", {other} in {times}" for other, times in others)
    return f" {capital(name)} has the smaller {COMPLEX_NRMSE.name} in {where}{further}."


def beyond(study: Study) -> str:
    """Say why the leader may lie above the limit that it is compared with; empty if it does not."""
    if not any(distance > 0 for distance in _distances(study, limit_of(study))):
        return ""
    return (
        "Above that limit it knows something that the limit does not allow for, such as how "
        "neighbouring pixels depend on each other."
    )


def limit_of(study: Study) -> str:
    """Return the limit to compare the leader with: the one with a prior, if it needs one anywhere."""
    needs_prior = any(distance > 0 for distance in _distances(study, LIMIT))
    return BAYESIAN_LIMIT if needs_prior and BAYESIAN_LIMIT in study.limits else LIMIT


def _distances(study: Study, limit: str) -> list[float]:
    """Return how far the leader lies above a limit in each cell that has it, dB of phase PSNR."""
    pairs = [(_psnr(cell, study.leader), cell.limit(PHASE_PSNR, limit)) for cell in study.done]
    return [psnr - bound for psnr, bound in pairs if psnr is not None and bound is not None]


def by_interest(study: Study) -> list[str]:
    """Return the methods in the order in which to show them where not all have room.

    The leader, its strongest rival, those that readers know, and then by rank.
    """
    rivals = [rival for _, rival in _rivals(study)[1]]
    return list(dict.fromkeys([study.leader, *rivals[:1], *study.known, *study.methods]))


def _rivals(study: Study) -> tuple[str, list[tuple[Cell, str]]]:
    """Return the other kind of method than the leader's, and the strongest of it in each cell that has it."""
    kind = LEARNED if study.methods[study.leader] == ITERATIVE else ITERATIVE
    return kind, [(cell, rival) for cell in study.done if (rival := cell.strongest(kind))]


def _lead(study: Study) -> list[str]:
    kind, rivals = _rivals(study)
    found = [study.delta(cell, rival, PHASE_PSNR) for cell, rival in rivals]
    margins = [margin for margin in found if margin is not None]
    if not margins:
        return []
    usual, count = Counter(rival for _, rival in rivals).most_common(1)[0]
    which = usual if count == len(rivals) else f"{usual} in {count} of {len(rivals)}"
    return [f"{_span(margins)} the best {kind} method ({which})"]


def _span(differences: Sequence[float]) -> str:
    """Return a range of differences in words.

    Examples
    --------
    >>> _span([0.4, 1.23]), _span([-0.1, 0.2]), _span([-3.0])
    ('0.40 to 1.23 dB above', '0.10 dB below to 0.20 dB above', '3.00 dB below')
    """
    low, high = min(differences), max(differences)
    if (low < 0) != (high < 0):
        return f"{-low:.2f} dB below to {high:.2f} dB above"
    least, most = sorted((f"{abs(low):.2f}", f"{abs(high):.2f}"), key=float)
    return f"{least if least == most else f'{least} to {most}'} dB {'below' if low < 0 else 'above'}"


def _psnr(cell: Cell, method: str) -> float | None:
    value = cell.value(method, PHASE_PSNR)
    return value.mean if value else None


def capital(text: str) -> str:
    """Return text as a sentence begins; a name with capitals of its own, as rPIE, stays as it is.

    Examples
    --------
    >>> capital("phase PSNR"), capital("rPIE"), capital("refined")
    ('Phase PSNR', 'rPIE', 'Refined')
    """
    first = text.split(" ", 1)[0]
    return text[0].upper() + text[1:] if first.islower() else text


def diagnosis(cell: Cell) -> str:
    """Say what is likely wrong with the instrument as methods were told it; empty where nobody looked."""
    found = cell.first.evaluation.get("diagnosis")
    return f"By its frames alone: {found['sentence']}." if found else ""


def frames(study: Study) -> str:
    """Say whether frames were measured or simulated, and what scores are against."""
    references = [found for cell in study.done if (found := cell.first.evaluation.get("reference"))]
    if not references:
        return "Frames were simulated, and scores are against the true object."
    names = dict.fromkeys(item["against"] for item in study.conventions)
    noise = [found["noise"]["phase_psnr_db"] for found in references]
    own = [value for value in noise if value is not None]
    at = f", whose own noise lies at a phase PSNR of {_range(own, '.1f')} dB" if own else ""
    return (
        f"Frames were measured, and thinned to each dose. Scores are against {', '.join(names)}{at}; "
        "no photon is in both."
    )


def conventions(found: Sequence[dict[str, Any]]) -> str:
    """Say how scores were taken, from what one or more evaluations hold about it."""
    regions = [item["region"] for item in found]
    of_half = {item["split"] == "test" for item in found} == {True}
    others = list(dict.fromkeys(item["against"] for item in found if item.get("frames") == "measured"))
    kept = "Test half only" if of_half else "All frames, which networks were trained on too"
    peaks = [item["peak"] for item in found]
    return (
        f"{kept}. Region: {_range([r['pixels'] for r in regions], ',')} pixels lit by more than "
        f"{_range([r['illumination_threshold'] for r in regions], 'g')} of the largest illumination. "
        f"Peak of PSNR and SSIM: the {'reference' if others else 'truth'}'s own range in that region, "
        f"amplitude {_range([p['amplitude'] for p in peaks], '.3f')}, "
        f"phase {_range([p['phase'] for p in peaks], '.3f')} rad. "
        f"Every method is aligned alike: {'; '.join(dict.fromkeys(item['alignment'] for item in found))}. "
        f"MS-SSIM on {_range([item['ms_ssim_scales'] for item in found], 'd')} scales."
    )


def _range(values: Sequence[float], style: str) -> str:
    return " to ".join(dict.fromkeys(format(value, style) for value in (min(values), max(values))))
