"""A study as the report sees it: cells of dose and view, each with its repeats."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.report.metrics import PHASE_PSNR, Metric

NETWORK = "network"
"""The method that all others are compared with."""
LIMIT = "limit"
BAYESIAN_LIMIT = "limit with prior"

KINDS = ("learned", "iterative", "reference")

SUCCESS = "success"
MISSING = "missing"

Curve = list[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Run:
    """One experiment, or the commit itself.

    Attributes
    ----------
    name, revision : str
        Name in DVC, ``commit`` for the commit itself; git revision.
    state : str
        ``success``, ``queued``, ``running``, ``failed``, or why its result does not count.
    params : dict
        Content of params.yaml.
    evaluation : dict
        Content of metrics/evaluation.json; empty without a result.
    frc : dict of list of float
        Columns of metrics/frc.csv by name.
    curves : dict of list of (step, value)
        Training curves by name.
    measured_dose, measured_overlap : dict
        Content of metrics/dose/<dose>.json and metrics/overlap/<dose>-<view>.json.
    outputs : dict of str
        Hash that dvc.lock gives for each output.
    """

    name: str
    revision: str
    state: str
    params: dict[str, Any]
    evaluation: dict[str, Any] = field(default_factory=dict[str, Any])
    frc: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    curves: dict[str, Curve] = field(default_factory=dict[str, Curve])
    measured_dose: dict[str, Any] = field(default_factory=dict[str, Any])
    measured_overlap: dict[str, Any] = field(default_factory=dict[str, Any])
    outputs: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def dose(self) -> int:
        """Nominal photons per frame."""
        return int(self.params["dose"])

    @property
    def view(self) -> str:
        """Name of the view."""
        return str(self.params["view"])

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return int(self.params["train"]["seed"])

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        """Scores by method, in the file's order."""
        return self.evaluation["methods"]

    def key(self, method: str) -> str:
        """Return the name of a method in metrics/frc.csv and reports/reconstruction.npz."""
        return self.methods.get(method, {}).get("key", method.replace(" ", "_"))


@dataclass(frozen=True)
class Value:
    """Mean of a score over repeats.

    Attributes
    ----------
    mean : float
    spread : float or None
        Standard deviation over the repeats (n - 1 in the denominator); None for a single one.
    n : int
        Number of repeats that have the score.
    """

    mean: float
    spread: float | None
    n: int


def average(values: Sequence[float | None]) -> Value | None:
    """Return mean and spread of what is there.

    Examples
    --------
    >>> average([1.0, 3.0, None])
    Value(mean=2.0, spread=1.4142135623730951, n=2)
    >>> average([None]) is None
    True
    """
    there = [value for value in values if value is not None]
    if not there:
        return None
    spread = statistics.stdev(there) if len(there) > 1 else None
    return Value(statistics.fmean(there), spread, len(there))


@dataclass(frozen=True, eq=False)
class Cell:
    """One dose with one view.

    Attributes
    ----------
    dose : int
        Nominal photons per frame.
    view : str
    runs : tuple of Run
        Those with a result, by seed: repeats, which differ in ``train.seed`` only.
    state : str
        ``success``, ``missing``, or the state of the runs that have no result.
    """

    dose: int
    view: str
    runs: tuple[Run, ...]
    state: str

    @property
    def first(self) -> Run:
        """The run of the lowest seed, whose curves and pictures stand for the cell."""
        return self.runs[0]

    @property
    def methods(self) -> dict[str, str]:
        """Kind of each method, by kind as in `KINDS` and then in the files' order."""
        found = {
            name: str(scores.get("kind", KINDS[-1]))
            for run in self.runs
            for name, scores in run.methods.items()
        }
        return dict(sorted(found.items(), key=lambda item: KINDS.index(item[1])))

    def value(self, method: str, metric: Metric) -> Value | None:
        """Return a score of a method, averaged over the repeats."""
        return average([metric.of(run.methods.get(method, {})) for run in self.runs])

    def limit(self, metric: Metric, name: str = LIMIT) -> float | None:
        """Return the physical limit, which no repeat changes; None where there is none."""
        found: Any = self.first.evaluation.get("limit") if self.runs else None
        if name == BAYESIAN_LIMIT and found:
            found = found.get("bayesian")
        value = found.get(metric.limit) if found and metric.limit else None
        return None if value is None else float(value)

    def photons_per_pixel(self) -> float | None:
        """Return the fluence that the limit belongs to."""
        found: Any = self.first.evaluation.get("limit") if self.runs else None
        return found.get("photons_per_pixel") if found else None

    def overlap(self) -> float | None:
        """Return metric 2 of the overlap, image to image, measured on the test half."""
        test = self.first.measured_overlap.get("test", {}) if self.runs else {}
        return test.get("metric_2_image_based_avg")

    def best(self, metric: Metric) -> set[str]:
        """Return the methods with the best value as it is printed; several if they tie."""
        found = {name: self.value(name, metric) for name in self.methods}
        written = {name: metric.write(value.mean) for name, value in found.items() if value}
        values = {name: value.mean for name, value in found.items() if value}
        if not values:
            return set()
        best = max(values, key=lambda name: values[name] if metric.higher_is_better else -values[name])
        return {name for name, text in written.items() if text == written[best]}

    def best_iterative(self) -> str | None:
        """Return the iterative method of the highest phase PSNR."""
        values = {
            name: value.mean
            for name, kind in self.methods.items()
            if kind == "iterative" and (value := self.value(name, PHASE_PSNR))
        }
        return max(values, key=lambda name: values[name], default=None)

    def best_iterative_psnr(self) -> float | None:
        """Return the highest phase PSNR of an iterative method, in dB."""
        best = self.best_iterative()
        value = self.value(best, PHASE_PSNR) if best else None
        return value.mean if value else None

    def delta(self, method: str, metric: Metric) -> float | None:
        """Return network minus method, from the means over repeats."""
        first, second = self.value(NETWORK, metric), self.value(method, metric)
        return first.mean - second.mean if first and second else None


@dataclass(frozen=True, eq=False)
class Study:
    """All cells of one commit and one variant.

    Attributes
    ----------
    commit : str
        Git revision that the experiments start from.
    variant : str
        Digest that tells experiments with other parameters or code; empty for the plain ones.
    changes : tuple of str
        Parameters in which the variant differs from the commit.
    runs : tuple of Run
        In whatever state.
    cells : dict of Cell
        By dose and view, doses ascending; cells without a result too.
    """

    commit: str
    variant: str
    changes: tuple[str, ...]
    runs: tuple[Run, ...]
    cells: dict[tuple[int, str], Cell]

    @property
    def title(self) -> str:
        """Name of the study."""
        plain = f"commit {self.commit[:7]}"
        return f"{plain}, variant {self.variant}" if self.variant else plain

    @property
    def doses(self) -> list[int]:
        """Doses, ascending."""
        return list(dict.fromkeys(dose for dose, _ in self.cells))

    @property
    def views(self) -> list[str]:
        """Views, in the order of params.yaml."""
        return list(dict.fromkeys(view for _, view in self.cells))

    @property
    def done(self) -> list[Cell]:
        """Cells with a result."""
        return [cell for cell in self.cells.values() if cell.runs]

    @property
    def methods(self) -> dict[str, str]:
        """Kind of each method of any cell, in the files' order."""
        longest_first = sorted(self.done, key=lambda cell: -len(cell.methods))
        return {name: kind for cell in longest_first for name, kind in cell.methods.items()}

    @property
    def limits(self) -> list[str]:
        """Names of the limits that any cell has."""
        return [
            name
            for name in (LIMIT, BAYESIAN_LIMIT)
            if any(cell.limit(PHASE_PSNR, name) is not None for cell in self.done)
        ]

    @property
    def status(self) -> str:
        """Say whether the matrix is complete, and what is not there."""
        total, done = len(self.cells), len(self.done)
        text = f"{'complete' if done == total else 'incomplete'}: {done} of {total} cells"
        without = [cell for cell in self.cells.values() if not cell.runs]
        for state in dict.fromkeys(cell.state for cell in without):
            names = [f"{cell.dose}-{cell.view}" for cell in without if cell.state == state]
            text += f"; {state}: {', '.join(names)}"
        failed = [
            run.name for run in self.runs if run.state == "failed" and self.cells[run.dose, run.view].runs
        ]
        return f"{text}; failed repeats: {', '.join(failed)}" if failed else text


def make_study(commit: str, variant: str, runs: Sequence[Run], *, baseline: dict[str, Any]) -> Study:
    """Gather the runs of one variant into cells.

    Parameters
    ----------
    commit, variant : str
    runs : sequence of Run
        An earlier one stands for later ones of the same cell and seed.
    baseline : dict
        Parameters of the commit, which say which cells there should be.

    Raises
    ------
    StudyError
        If a result is not of the test half, or lacks the network.
    """
    kept: list[Run] = []
    for run in runs:
        if run.state == SUCCESS:
            _check(run)
            if any(_key(run) == _key(other) and other.state == SUCCESS for other in kept):
                continue
        kept.append(run)
    doses = sorted({*baseline["doses"], *(run.dose for run in kept)})
    views = list(dict.fromkeys([*baseline["overlap"]["views"], *(run.view for run in kept)]))
    cells = {(dose, view): _cell(dose, view, kept) for dose in doses for view in views}
    changes = next((_changes(baseline, run.params) for run in kept), ()) if variant else ()
    return Study(commit, variant, changes, tuple(kept), cells)


def _key(run: Run) -> tuple[int, str, int]:
    return run.dose, run.view, run.seed


def _cell(dose: int, view: str, runs: Sequence[Run]) -> Cell:
    own = [run for run in runs if (run.dose, run.view) == (dose, view)]
    done = sorted((run for run in own if run.state == SUCCESS), key=lambda run: run.seed)
    state = SUCCESS if done else next((run.state for run in own), MISSING)
    return Cell(dose, view, tuple(done), state)


def _check(run: Run) -> None:
    where = f"{run.name}: metrics/evaluation.json"
    split = run.evaluation["conventions"]["split"]
    if split != "test":
        raise StudyError(where, f"must be of the test half, got {split!r}")
    if NETWORK not in run.methods:
        raise StudyError(where, f"has no method {NETWORK!r}, only {', '.join(run.methods) or 'nothing'}")


def settings(params: dict[str, Any]) -> dict[str, Any]:
    """Return all parameters by dotted name, without those that tell the cells of one study apart."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            flat[prefix] = value

    walk("", params)
    return {key: value for key, value in flat.items() if key not in ("dose", "doses", "view", "train.seed")}


def _changes(baseline: dict[str, Any], params: dict[str, Any]) -> tuple[str, ...]:
    before, after = settings(baseline), settings(params)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return tuple(f"{key}: {before.get(key)} → {after.get(key)}" for key in keys)
