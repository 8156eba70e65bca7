"""The tables of a study, for HTML, Markdown and CSV alike."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from fly64_dose_overlap.report.findings import by_interest, capital
from fly64_dose_overlap.report.study import FAILED, LIMITS, MISSING, Cell, Run, Study, Value
from fly64_dose_overlap.scores.catalogue import COMPARED, FRC50, FRC50_NM, PHASE_PSNR, SCORES, SUMMARY, Score
from fly64_dose_overlap.scores.catalogue import MISSING as DASH

CSV_HEAD = (
    *("commit", "variant", "dose", "view", "method", "kind"),
    *("metric", "mean", "standard_deviation", "n", "leader_minus_method"),
)
TIMES = ("cpu_seconds", "training_cpu_seconds")
"""Times in the CSV, of the run of the lowest seed."""
BRIEF_ROWS = 4


@dataclass(frozen=True)
class Entry:
    """A field of a table; its mark is ``best``, ``better``, ``worse``, ``absent`` or empty."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """A row: its head, the kind of method that it is about, and its fields."""

    head: str
    kind: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Table:
    """A table for HTML, Markdown and CSV."""

    title: str
    note: str
    """How it is to be read."""
    corner: str
    """Title of the first column."""
    columns: Sequence[tuple[str, str]]
    """Group and title of each further column; groups of equal name stand side by side."""
    rows: Sequence[Row]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Groups of columns with their number of columns; empty if no column has a group."""
        found = [(group, len([*columns])) for group, columns in groupby(self.columns, key=lambda c: c[0])]
        return found if any(group for group, _ in found) else []


def write_value(value: Value | None, score: Score, *, count: bool = True) -> str:
    """Return a mean, with spread and number of repeats where they differ.

    A method that no training is part of gives the same with every seed.

    Examples
    --------
    >>> write_value(Value(24.1, 0.25, 3), PHASE_PSNR), write_value(Value(24.1, None, 1), PHASE_PSNR)
    ('24.10 ± 0.25 (n = 3)', '24.10')
    """
    if value is None:
        return DASH
    text = score.write(value.mean)
    if value.spread:
        text += f" ± {value.spread:{score.style}}" + (f" (n = {value.n})" if count else "")
    return text


def summary_tables(study: Study) -> list[Table]:
    """Return one table for each headline score: methods by cells, under the physical limits."""
    return [_summary(study, score) for score in SUMMARY]


def brief_table(study: Study) -> Table:
    """Return the phase PSNR of a few methods: the leader, its strongest rival, those that readers know."""
    table = _summary(study, PHASE_PSNR)
    wanted = [*study.limits[-1:], *by_interest(study)][:BRIEF_ROWS]
    rows = [row for row in table.rows if row.head in wanted]
    return Table("In short", f"{capital(PHASE_PSNR.label)}. {table.note}", table.corner, table.columns, rows)


def _summary(study: Study, score: Score) -> Table:
    found = [value for cell in study.done for name in cell.methods if (value := cell.value(name, score))]
    repeats = {value.n for value in found}

    def entry(cell: Cell, method: str) -> Entry:
        text = write_value(cell.value(method, score), score, count=len(repeats) > 1)
        if score is FRC50 and (half_period := cell.value(method, FRC50_NM)):
            text += f" ({FRC50_NM.write(half_period.mean)} nm)"
        return Entry(text, "best" if method in cell.best(score) else "")

    note = f"{capital(score.direction)}; the best method of each cell is marked."
    if len(repeats) == 1 and any(value.spread for value in found):
        note += f" Mean ± standard deviation of {repeats.pop()} trainings with different seeds."
    return _by_cell(study, score.label, note, study.methods, entry, score)


def delta_tables(study: Study) -> list[Table]:
    """Return one table for each compared score: the leader minus every other method, by cells."""
    others = [method for method in study.methods if method != study.leader]

    def table(score: Score) -> Table:
        def entry(cell: Cell, method: str) -> Entry:
            return delta_entry(study.delta(cell, method, score), score)

        sign = "positive" if score.higher_is_better else "negative"
        note = f"{capital(score.direction)}: a {sign} difference favours {study.leader}."
        title = f"{score.label}: {study.leader} minus method"
        return _by_cell(study, title, note, others, entry)

    return [table(score) for score in COMPARED] if others else []


def delta_entry(value: float | None, score: Score) -> Entry:
    """Return a difference, marked by whether it favours the first method.

    Examples
    --------
    >>> delta_entry(-0.5, PHASE_PSNR)
    Entry(text='-0.50', mark='worse')
    """
    text = score.write_delta(value)
    if value is None or float(text) == 0:
        return Entry(text)
    return Entry(text, "better" if score.is_better(value, 0) else "worse")


def cell_table(cell: Cell, scores: Sequence[Score] = SCORES) -> Table:
    """Return scores of all methods in one cell, those that any method has."""
    scores = [score for score in scores if any(cell.value(method, score) for method in cell.methods)]
    best = {score.key: cell.best(score) for score in scores}

    def entry(method: str, score: Score) -> Entry:
        text = write_value(cell.value(method, score), score, count=False)
        return Entry(text, "best" if method in best[score.key] else "")

    rows = [
        Row(name, "limit", tuple(Entry(score.write(cell.limit(score, name))) for score in scores))
        for name in LIMITS
        if cell.limit(PHASE_PSNR, name) is not None
    ]
    rows += [Row(n, kind, tuple(entry(n, score) for score in scores)) for n, kind in cell.methods.items()]
    columns = [("", score.label) for score in scores]
    return Table(f"Scores at {cell.title}", "The best of each column is marked.", "method", columns, rows)


def dose_table(study: Study) -> Table:
    """Return the measured doses."""
    rows: list[Row] = []
    for dose in study.doses:
        found = next((cell.first.measured_dose for cell in study.done if cell.dose == dose), {})
        test, whole = found.get("test", {}), found.get("whole", {})
        fields = [*(test.get(f"photons_per_frame_{key}") for key in ("mean", "min", "max"))]
        fields += [test.get("frames"), whole.get("photons_per_frame_mean")]
        rows.append(Row(f"{dose:,}", "", tuple(map(_number, fields))))
    part = study.part.removeprefix("the ")
    columns = [(f"{part}, photons per frame", title) for title in ("mean", "min", "max")]
    columns += [(part, "frames"), ("whole scan, photons per frame", "mean")]
    note = "Nominal and measured; one factor scales the whole scan."
    return Table("Measured dose", note, "nominal", columns, rows)


def overlap_table(study: Study) -> Table:
    """Return the measured overlap."""
    titles = {
        "gridsize": ("", "group side"),
        "n_images_subsampled": ("", "frames"),
        "n_training_groups": ("", "groups"),
        "metric_1_group_based_avg": ("overlap", "1: in groups"),
        "metric_2_image_based_avg": ("overlap", "2: of images"),
        "metric_3_group_to_group_avg": ("overlap", "3: of groups"),
    }
    rows: list[Row] = []
    for cell in study.done:
        test = cell.first.measured_overlap.get("test", {})
        fluence = test.get("fluence", {}).get("photons_per_pixel_mean")
        entries = tuple(map(_number, (*map(test.get, titles), fluence)))
        rows.append(Row(f"{cell.dose:,} {cell.view}", "", entries))
    part = capital(study.part.removeprefix("the "))
    note = f"{part}; overlap as the area fraction of probe discs, averaged over neighbours."
    return Table("Measured overlap", note, "cell", [*titles.values(), ("", "photons per pixel")], rows)


def time_table(study: Study, seconds: Mapping[str, float]) -> Table:
    """Return the times of the methods that were measured here in any cell.

    ``seconds`` on the processor are by the SHA-256 of what was made.
    """

    def entry(cell: Cell, method: str) -> Entry:
        own, training = _seconds(cell, method, seconds)
        more = "" if training is None else f" + {training:.3g}"
        return Entry(DASH if own is None else f"{own:.3g}{more}")

    note = (
        f"Seconds on the processor for {study.part}; for networks the training of the cell is added. "
        f'"{DASH}" was not measured on this machine.'
    )
    timed = [name for name in study.methods if any(entry(cell, name).text != DASH for cell in study.done)]
    return _by_cell(study, "Method time", note, timed, entry)


def _seconds(cell: Cell, method: str, seconds: Mapping[str, float]) -> tuple[float | None, float | None]:
    """Return the time of a method itself and of the training of its network, where they are known."""
    scores = cell.first.methods.get(method, {})
    model = scores.get("settings", {}).get("model_sha256")
    return seconds.get(scores.get("sha256", "")), seconds.get(model) if model else None


def trials_table(trials: Sequence[Study], plain: Study | None) -> Table:
    """Return single runs with parameters of their own, each beside the plain study's same cell."""
    rows: list[Row] = []
    for trial in trials:
        for run in trial.runs:
            done = next((cell for cell in trial.done if run in cell.runs), None)
            best = next(iter(done.methods)) if done else DASH
            value = PHASE_PSNR.of(run.methods[best]) if done else None
            there = plain.cells.get((run.dose, run.view)) if plain else None
            alike = there and done and there.runs and run.is_scored_like(there.first)
            before = there.value(best, PHASE_PSNR) if there and alike else None
            gain = value - before.mean if value is not None and before else None
            changed = "; ".join(trial.changes) or "code or base set"
            texts = (changed, f"{run.dose:,}", run.view, str(run.seed), best, PHASE_PSNR.write(value))
            entries = (*map(Entry, texts), delta_entry(gain, PHASE_PSNR), _state(run))
            rows.append(Row(run.name, "", entries))
    titles = ("changed", "dose", "view", "seed", "best method", PHASE_PSNR.label, "difference", "state")
    note = (
        "Runs with other parameters. The difference is to the same method in the study's same cell, "
        f'"{DASH}" where the two were not scored on the same data in the same way.'
    )
    return Table("Trials", note, "experiment", [("", title) for title in titles], rows)


def runs_table(study: Study) -> Table:
    """Return every run with its state, seed and git revision."""
    rows = [
        Row(r.name, "", (_state(r), *map(Entry, (f"{r.dose:,}", r.view, str(r.seed), r.revision[:10]))))
        for r in study.runs
    ]
    columns = [("", title) for title in ("state", "dose", "view", "seed", "git revision")]
    return Table("Experiments", "", "experiment", columns, rows)


def _state(run: Run) -> Entry:
    return Entry(run.state, "worse" if run.state == FAILED else "")


def markdown(table: Table) -> str:
    """Return a table as Markdown; the best value is bold."""
    titles = [table.corner, *(f"{group} {title}".strip() for group, title in table.columns)]
    lines = [f"| {' | '.join(map(_escaped, titles))} |", f"|---|{'---:|' * len(table.columns)}"]
    for row in table.rows:
        texts = [f"**{_escaped(e.text)}**" if e.mark == "best" else _escaped(e.text) for e in row.entries]
        lines.append(f"| {_escaped(row.head)} | {' | '.join(texts)} |")
    return "\n".join(lines)


def csv_text(studies: Sequence[Study], seconds: Mapping[str, float]) -> str:
    """Return every score of every study in full precision, one a line, and times as in `time_table`."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for study in studies:
        for cell in study.done:
            head = (study.commit, study.variant, cell.dose, cell.view)
            for name, score in ((name, score) for name in LIMITS for score in SCORES):
                if (limit := cell.limit(score, name)) is not None:
                    writer.writerow([*head, name, "limit", score.key, limit, None, None, None])
            for method, kind in cell.methods.items():
                for score in SCORES:
                    if value := cell.value(method, score):
                        fields = (score.key, value.mean, value.spread, value.n)
                        writer.writerow([*head, method, kind, *fields, study.delta(cell, method, score)])
                for name, time in zip(TIMES, _seconds(cell, method, seconds), strict=True):
                    if time is not None:
                        writer.writerow([*head, method, kind, name, time, None, 1, None])
    return file.getvalue()


def _by_cell(
    study: Study,
    title: str,
    note: str,
    methods: Iterable[str],
    entry: Callable[[Cell, str], Entry],
    score: Score | None = None,
) -> Table:
    """Return a table of methods by cells, under the limits of a score.

    Cells that were never tried have no column: what is missing is said once.
    """
    cells = [cell for cell in study.cells.values() if cell.state != MISSING]
    rows: list[Row] = []
    if score and score.limit:
        for name in study.limits:
            bounds = (Entry(score.write(cell.limit(score, name))) for cell in cells)
            rows.append(Row(name, "limit", tuple(bounds)))
    for method in methods:
        entries = (entry(cell, method) if cell.runs else Entry(cell.state, "absent") for cell in cells)
        rows.append(Row(method, study.methods[method], tuple(entries)))
    columns = [(f"{cell.dose:,} photons per frame", cell.view) for cell in cells]
    return Table(title, note, "method", columns, rows)


def _number(value: float | None) -> Entry:
    if value is None:
        return Entry(DASH)
    style = "," if isinstance(value, int) else ",.3f" if abs(value) < 100 else ",.1f"
    return Entry(format(value, style))


def _escaped(text: str) -> str:
    return re.sub(r"[\\|*_<>`[]", r"\\\g<0>", text)
