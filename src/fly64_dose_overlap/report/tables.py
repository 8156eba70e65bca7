"""The tables of a study, for HTML, Markdown and CSV alike."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fly64_dose_overlap.report.metrics import (
    ALL,
    AMPLITUDE_PSNR,
    COMPLEX_NRMSE,
    DELTAS,
    DOSE_EFFICIENCY,
    FRC50,
    FRC50_NM,
    MISSING,
    PHASE_MAE,
    PHASE_MS_SSIM,
    PHASE_PSNR,
    PHASE_SSIM,
    Metric,
)
from fly64_dose_overlap.report.study import BAYESIAN_LIMIT, LIMIT, NETWORK, Cell, Study, Value

SUMMARY = (PHASE_PSNR, AMPLITUDE_PSNR, COMPLEX_NRMSE, FRC50, DOSE_EFFICIENCY)
DELTA_SUMMARY = (PHASE_PSNR, PHASE_SSIM, PHASE_MS_SSIM, COMPLEX_NRMSE, PHASE_MAE)
CSV_HEAD = (
    "commit",
    "variant",
    "dose",
    "view",
    "method",
    "kind",
    "metric",
    "mean",
    "standard_deviation",
    "n",
    "network_minus_method",
)

TIMES = ("cpu_seconds", "training_cpu_seconds")
"""Times in the CSV, of the run of the lowest seed."""


@dataclass(frozen=True)
class Entry:
    """A field of a table.

    Attributes
    ----------
    text : str
    mark : str
        ``best``, ``better``, ``worse``, ``absent`` or empty.
    """

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
    """A table.

    Attributes
    ----------
    title : str
    note : str
        How it is to be read.
    corner : str
        Title of the first column.
    columns : tuple of (str, str)
        Group and title of each further column; groups of equal name stand side by side.
    rows : tuple of Row
    """

    title: str
    note: str
    corner: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Groups of columns with their number of columns; empty if no column has a group."""
        found: list[tuple[str, int]] = []
        for group, _ in self.columns:
            if found and found[-1][0] == group:
                found[-1] = (group, found[-1][1] + 1)
            else:
                found.append((group, 1))
        return found if any(group for group, _ in found) else []


def write_value(value: Value | None, metric: Metric, *, count: bool = True) -> str:
    """Return a mean, with spread and number of repeats where they differ.

    A method that no network is part of gives the same with every seed of training.

    Examples
    --------
    >>> write_value(Value(24.1, 0.25, 3), PHASE_PSNR), write_value(Value(24.1, None, 1), PHASE_PSNR)
    ('24.10 ± 0.25 (n = 3)', '24.10')
    """
    if value is None:
        return MISSING
    text = metric.write(value.mean)
    if value.spread:
        text += f" ± {value.spread:{metric.style}}" + (f" (n = {value.n})" if count else "")
    return text


def summary_tables(study: Study) -> list[Table]:
    """Return one table for each headline score: methods by cells, with the physical limit."""
    return [_summary(study, metric) for metric in SUMMARY]


def _summary(study: Study, metric: Metric) -> Table:
    found = [cell.value(method, metric) for cell in study.done for method in cell.methods]
    values = [value for value in found if value]
    repeats = {value.n for value in values}

    def entry(cell: Cell, method: str) -> Entry:
        text = write_value(cell.value(method, metric), metric, count=len(repeats) > 1)
        if metric is FRC50 and (half_period := cell.value(method, FRC50_NM)):
            text += f" ({FRC50_NM.write(half_period.mean)} nm)"
        return Entry(text, "best" if method in cell.best(metric) else "")

    rows = _limit_rows(study, metric) + _method_rows(study, list(study.methods), entry)
    way = "Higher is better" if metric.higher_is_better else "Lower is better"
    note = f"{way}; the best method of each cell is marked."
    if len(repeats) == 1 and any(value.spread for value in values):
        note += f" Mean ± standard deviation of {repeats.pop()} trainings with different seeds."
    return Table(metric.title, note, "method", *_grid(study, rows))


def delta_tables(study: Study) -> list[Table]:
    """Return one table for each score: network minus every other method, by cells."""
    return [_delta(study, metric) for metric in DELTA_SUMMARY]


def _delta(study: Study, metric: Metric) -> Table:
    others = [method for method in study.methods if method != NETWORK]
    rows = _method_rows(study, others, lambda cell, method: delta_entry(cell.delta(method, metric), metric))
    title = f"{metric.title}: {NETWORK} minus method"
    return Table(title, f"{metric.direction.capitalize()}.", "method", *_grid(study, rows))


def delta_entry(value: float | None, metric: Metric) -> Entry:
    """Return a difference, marked by whether it favours the network.

    Examples
    --------
    >>> delta_entry(-0.005, COMPLEX_NRMSE)
    Entry(text='-0.0050', mark='better')
    """
    text = metric.write_delta(value)
    if value is None or float(text) == 0:
        return Entry(text)
    return Entry(text, "better" if metric.is_better(value, 0) else "worse")


def cell_table(cell: Cell) -> Table:
    """Return all scores of all methods in one cell."""
    limits = [
        Row(name, "limit", tuple(Entry(metric.write(cell.limit(metric, name))) for metric in ALL))
        for name in (LIMIT, BAYESIAN_LIMIT)
        if cell.limit(PHASE_PSNR, name) is not None
    ]
    best = {metric.key: cell.best(metric) for metric in ALL}
    rows = [
        Row(
            method,
            kind,
            tuple(
                Entry(
                    write_value(cell.value(method, metric), metric, count=False),
                    "best" if method in best[metric.key] else "",
                )
                for metric in ALL
            ),
        )
        for method, kind in cell.methods.items()
    ]
    columns = tuple(("", metric.title) for metric in ALL)
    return Table(
        "All scores", "The best method of each column is marked.", "method", columns, (*limits, *rows)
    )


def cell_delta_table(cell: Cell) -> Table:
    """Return network minus every other method for all scores of one cell."""
    rows = tuple(
        Row(method, kind, tuple(delta_entry(cell.delta(method, metric), metric) for metric in DELTAS))
        for method, kind in cell.methods.items()
        if method != NETWORK
    )
    columns = tuple((metric.direction, metric.title) for metric in DELTAS)
    return Table("Network minus method", "", "method", columns, rows)


def dose_table(study: Study) -> Table:
    """Return the measured doses of the test halves."""
    rows: list[Row] = []
    for dose in study.doses:
        found = next((cell.first.measured_dose for cell in study.done if cell.dose == dose), {})
        test, whole = found.get("test", {}), found.get("whole", {})
        fields = [
            test.get("photons_per_frame_mean"),
            test.get("photons_per_frame_min"),
            test.get("photons_per_frame_max"),
            test.get("frames"),
            whole.get("photons_per_frame_mean"),
        ]
        rows.append(Row(f"{dose:,}", "", tuple(map(_number, fields))))
    columns = (
        ("test half, photons per frame", "mean"),
        ("test half, photons per frame", "min"),
        ("test half, photons per frame", "max"),
        ("test half", "frames"),
        ("whole scan, photons per frame", "mean"),
    )
    note = "Nominal and measured; one factor scales the whole scan."
    return Table("Measured dose", note, "nominal", columns, tuple(rows))


def overlap_table(study: Study) -> Table:
    """Return the measured overlap of the test halves."""
    keys = (
        "gridsize",
        "n_images_subsampled",
        "n_training_groups",
        "metric_1_group_based_avg",
        "metric_2_image_based_avg",
        "metric_3_group_to_group_avg",
    )
    rows: list[Row] = []
    for cell in study.done:
        test = cell.first.measured_overlap.get("test", {})
        fluence = test.get("fluence", {})
        values = [*(test.get(key) for key in keys), fluence.get("photons_per_pixel_mean")]
        rows.append(Row(f"{cell.dose:,} {cell.view}", "", tuple(map(_number, values))))
    columns = (
        ("", "group side"),
        ("", "frames"),
        ("", "groups"),
        ("overlap", "1: in groups"),
        ("overlap", "2: of images"),
        ("overlap", "3: of groups"),
        ("", "photons per pixel"),
    )
    note = "Test half; overlap as the area fraction of probe discs, averaged over neighbours."
    return Table("Measured overlap", note, "cell", columns, tuple(rows))


def time_table(study: Study, seconds: Mapping[str, float]) -> Table:
    """Return the time that each method took in each cell; those not measured here are shown as such.

    Parameters
    ----------
    study : Study
    seconds : mapping of str to float
        Time on the processor by the SHA-256 of what was made.
    """
    rows = tuple(
        Row(method, kind, (Entry(kind), *(Entry(_time(cell, method, seconds)) for cell in study.done)))
        for method, kind in study.methods.items()
    )
    columns = (("", "kind"), *((f"{cell.dose:,}", cell.view) for cell in study.done))
    note = "Seconds on the processor for the test half; for networks the training of the cell is added."
    return Table("Method time", note, "method", columns, rows)


def _time(cell: Cell, method: str, seconds: Mapping[str, float]) -> str:
    own, training = _seconds(cell, method, seconds)
    if own is None:
        return MISSING
    return f"{own:.3g} + {training:.3g}" if training is not None else f"{own:.3g}"


def _seconds(cell: Cell, method: str, seconds: Mapping[str, float]) -> tuple[float | None, float | None]:
    """Return the time of a method itself and of the training of its network, where they are known."""
    scores = cell.first.methods.get(method, {})
    model = scores.get("settings", {}).get("model_sha256")
    return seconds.get(scores.get("sha256", "")), seconds.get(model) if model else None


def runs_table(study: Study) -> Table:
    """Return every experiment with its state, seeds and git revision."""
    rows: list[Row] = []
    for run in study.runs:
        fields = (run.state, f"{run.dose:,}", run.view, str(run.seed), run.revision[:10])
        mark = "worse" if run.state == "failed" else ""
        rows.append(Row(run.name, "", (Entry(fields[0], mark), *map(Entry, fields[1:]))))
    columns = tuple(("", title) for title in ("state", "dose", "view", "train.seed", "git revision"))
    return Table("Experiments", "", "experiment", columns, tuple(rows))


def markdown(table: Table) -> str:
    """Return a table as Markdown; the best value is bold."""
    titles = [f"{group} {title}".strip() for group, title in table.columns]
    lines = [
        f"| {' | '.join(map(_escaped, (table.corner, *titles)))} |",
        f"|---|{'---:|' * len(titles)}",
    ]
    for row in table.rows:
        texts = (_escaped(entry.text) for entry in row.entries)
        marked = [
            f"**{text}**" if entry.mark == "best" else text
            for text, entry in zip(texts, row.entries, strict=True)
        ]
        lines.append(f"| {_escaped(row.head)} | {' | '.join(marked)} |")
    return "\n".join(lines)


def csv_text(studies: Sequence[Study], seconds: Mapping[str, float]) -> str:
    """Return every score of every study in full precision, one a line, and times as in `time_table`."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for study in studies:
        for cell in study.done:
            head = (study.commit, study.variant, cell.dose, cell.view)
            for name in (LIMIT, BAYESIAN_LIMIT):
                for metric in ALL:
                    limit = cell.limit(metric, name)
                    if limit is not None:
                        writer.writerow([*head, name, "limit", metric.key, limit, None, None, None])
            for method, kind in cell.methods.items():
                for metric in ALL:
                    value = cell.value(method, metric)
                    if value:
                        delta = cell.delta(method, metric)
                        scores = (metric.key, value.mean, value.spread, value.n, delta)
                        writer.writerow([*head, method, kind, *scores])
                for name, time in zip(TIMES, _seconds(cell, method, seconds), strict=True):
                    if time is not None:
                        writer.writerow([*head, method, kind, name, time, None, 1, None])
    return file.getvalue()


def _grid(study: Study, rows: Sequence[Row]) -> tuple[tuple[tuple[str, str], ...], tuple[Row, ...]]:
    columns = tuple((f"{cell.dose:,} photons per frame", cell.view) for cell in study.cells.values())
    return columns, tuple(rows)


def _method_rows(study: Study, methods: Sequence[str], entry: Callable[[Cell, str], Entry]) -> list[Row]:
    kinds = study.methods
    return [
        Row(
            method,
            kinds[method],
            tuple(
                entry(cell, method) if cell.runs else Entry(cell.state, "absent")
                for cell in study.cells.values()
            ),
        )
        for method in methods
    ]


def _limit_rows(study: Study, metric: Metric) -> list[Row]:
    if not metric.limit:
        return []
    cells = study.cells.values()
    return [
        Row(name, "limit", tuple(Entry(metric.write(cell.limit(metric, name))) for cell in cells))
        for name in study.limits
    ]


def _number(value: float | None) -> Entry:
    if value is None:
        return Entry(MISSING)
    return Entry(
        f"{value:,}" if isinstance(value, int) else f"{value:,.3f}" if abs(value) < 100 else f"{value:,.1f}"
    )


def _escaped(text: str) -> str:
    for sign in "\\|*_<>`[":
        text = text.replace(sign, f"\\{sign}")
    return text
