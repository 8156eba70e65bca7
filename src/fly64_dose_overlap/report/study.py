"""A study as the report sees it: cells of dose and view, each with its repeats."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.scores.catalogue import PHASE_PSNR, SCORES, Score
from fly64_dose_overlap.yaml_text import at

LIMIT = "limit"
BAYESIAN_LIMIT = "limit with prior"
LIMITS = (LIMIT, BAYESIAN_LIMIT)

PREFERRED = ("refined", "map", "lsqml", "ml", "network", "supervised")
"""Short names of methods that are shown before others where not all have room."""

LEARNED, ITERATIVE, REFERENCE = "learned", "iterative", "reference"

SUCCESS, FAILED, MISSING = "success", "failed", "missing"

Curve = list[tuple[float, float]]
"""Step and value of each point."""
Bounds = dict[str, Any]
"""Physical limit of one dose and view, as in metrics/evaluation.json."""


@dataclass(frozen=True, eq=False)
class Run:
    """One cell that was run, or that was to be."""

    name: str
    revision: str
    """Where git keeps its files."""
    state: str
    """``success``, ``queued``, ``running``, ``failed``, or why its result does not count."""
    dose: int
    """Nominal photons per frame."""
    view: str
    seed: int
    """Of the training."""
    params: dict[str, Any]
    evaluation: dict[str, Any] = field(default_factory=dict[str, Any])
    """Content of metrics/evaluation.json; empty without a result."""
    frc: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """Columns of metrics/frc.csv by name."""
    curves: dict[str, Curve] = field(default_factory=dict[str, Curve])
    """Training curves by name."""
    measured_dose: dict[str, Any] = field(default_factory=dict[str, Any])
    """Content of metrics/dose/DOSE.json."""
    measured_overlap: dict[str, Any] = field(default_factory=dict[str, Any])
    """Content of metrics/overlap/DOSE-VIEW.json."""
    data: dict[str, str] = field(default_factory=dict[str, str])
    """MD5 of each dataset that the result depends on."""
    reconstruction: Path | None = None
    """The file with its aligned reconstructions, if that is at hand."""

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        """Scores by method, in the file's order."""
        return self.evaluation["methods"]

    def is_scored_like(self, other: Run) -> bool:
        """Whether both were made of the same data, as far as that is recorded, and scored in the same way."""
        shared = self.data.keys() & other.data.keys()
        same = all(self.data[path] == other.data[path] for path in shared)
        return bool(shared) and same and self.evaluation["conventions"] == other.evaluation["conventions"]

    def key(self, method: str) -> str:
        """Return the name of a method in metrics/frc.csv and reports/reconstruction.npz."""
        return self.methods.get(method, {}).get("key", method.replace(" ", "_"))


@dataclass(frozen=True)
class Value:
    """Mean of a score over ``n`` repeats; the standard deviation (n - 1) of a single one is None."""

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
    if not (there := [value for value in values if value is not None]):
        return None
    spread = statistics.stdev(there) if len(there) > 1 else None
    return Value(statistics.fmean(there), spread, len(there))


def _height(values: Sequence[Value | None]) -> float:
    """Return the mean of some values for a ranking, in which no value is the lowest."""
    found = average([value.mean for value in values if value])
    return found.mean if found else float("-inf")


@dataclass(frozen=True, eq=False)
class Cell:
    """One dose with one view."""

    dose: int
    """Nominal photons per frame."""
    view: str
    runs: tuple[Run, ...]
    """Those with a result, by seed: repeats, which differ in the seed of training only."""
    state: str
    """``success``, ``missing``, or the state of the runs that have no result."""
    bounds: Bounds | None
    """The physical limit, which may be known before anything is run."""

    @property
    def title(self) -> str:
        """Dose and view in words."""
        return f"{self.dose:,} photons per frame, {self.view}"

    @property
    def first(self) -> Run:
        """The run of the lowest seed, whose curves and pictures stand for the cell."""
        return self.runs[0]

    @cached_property
    def methods(self) -> dict[str, str]:
        """Kind of each method, that of the highest phase PSNR first."""
        found = [each for run in self.runs for each in run.methods.items()]
        kinds = {name: str(scores.get("kind", REFERENCE)) for name, scores in found}
        order = sorted(kinds, key=lambda name: _height([self.value(name, PHASE_PSNR)]), reverse=True)
        return {name: kinds[name] for name in order}

    @cached_property
    def _values(self) -> dict[tuple[str, str], Value | None]:
        names = {name for run in self.runs for name in run.methods}
        return {
            (name, score.key): average([score.of(run.methods.get(name, {})) for run in self.runs])
            for name, score in product(names, SCORES)
        }

    def value(self, method: str, score: Score) -> Value | None:
        """Return a score of a method, averaged over the repeats."""
        return self._values.get((method, score.key))

    def limit(self, score: Score, name: str = LIMIT) -> float | None:
        """Return the physical limit of a score, None where there is none."""
        bounds = self.bounds or {}
        return score.bound(bounds.get("bayesian") if name == BAYESIAN_LIMIT else bounds)

    def height(self, name: str, score: Score) -> Value | None:
        """Return a score of a method, or of a limit, by its name."""
        return average([self.limit(score, name)]) if name in LIMITS else self.value(name, score)

    def best(self, score: Score) -> set[str]:
        """Return the methods with the best value as it is printed; several if they tie."""
        values = {name: value.mean for name in self.methods if (value := self.value(name, score))}
        if not values:
            return set()
        best = (max if score.higher_is_better else min)(values.values())
        return {name for name, value in values.items() if score.write(value) == score.write(best)}

    def strongest(self, kind: str) -> str | None:
        """Return the method of the highest phase PSNR among those of a kind."""
        return next((name for name, its in self.methods.items() if its == kind), None)


@dataclass(frozen=True, eq=False)
class Study:
    """Cells that differ in dose, view and seed only."""

    title: str
    commit: str
    """Git revision that the runs start from."""
    variant: str
    """Digest that tells runs with other parameters or code; empty for the plain ones."""
    changes: tuple[str, ...]
    """Parameters in which they differ from the commit."""
    runs: tuple[Run, ...]
    """In whatever state."""
    cells: dict[tuple[int, str], Cell]
    """By dose and view, doses ascending; cells without a result too."""
    committed: bool = True
    """False for the results of the working tree."""

    @cached_property
    def doses(self) -> list[int]:
        """Doses, ascending."""
        return list(dict.fromkeys(dose for dose, _ in self.cells))

    @cached_property
    def views(self) -> list[str]:
        """Views, in the order of params.yaml."""
        return list(dict.fromkeys(view for _, view in self.cells))

    @cached_property
    def done(self) -> list[Cell]:
        """Cells with a result."""
        return [cell for cell in self.cells.values() if cell.runs]

    @property
    def is_trial(self) -> bool:
        """Whether these are single runs with parameters of their own, and no matrix to be filled."""
        done, total = len(self.done), len(self.cells)
        return bool(self.variant) and (2 * done < total or done < 2 <= total)

    @cached_property
    def methods(self) -> dict[str, str]:
        """Kind of each method of any cell: those that win the most cells first, then by phase PSNR."""
        kinds = {name: kind for cell in self.done for name, kind in cell.methods.items()}
        wins = Counter(name for cell in self.done for name in cell.best(PHASE_PSNR))

        def rank(name: str) -> tuple[int, float]:
            return wins[name], _height([cell.value(name, PHASE_PSNR) for cell in self.done])

        return {name: kinds[name] for name in sorted(kinds, key=rank, reverse=True)}

    @cached_property
    def leader(self) -> str:
        """The method that has the highest phase PSNR in most cells."""
        return next(iter(self.methods))

    @cached_property
    def limits(self) -> list[str]:
        """Names of the limits that any cell has."""
        cells = self.cells.values()
        return [n for n in LIMITS if any(cell.limit(PHASE_PSNR, n) is not None for cell in cells)]

    @property
    def known(self) -> list[str]:
        """The methods of `PREFERRED` that are there, in its order."""
        keys = {name: self.done[0].first.key(name) for name in self.methods}
        return [name for key in PREFERRED for name in keys if keys[name] == key]

    @property
    def conventions(self) -> list[dict[str, Any]]:
        """How the scores of each cell were taken."""
        return [cell.first.evaluation["conventions"] for cell in self.done]

    @property
    def part(self) -> str:
        """Of which frames the results are."""
        return "the test half" if all(each["split"] == "test" for each in self.conventions) else "all frames"

    def delta(self, cell: Cell, method: str, score: Score) -> float | None:
        """Return leader minus method in a cell, from the means over repeats."""
        first, second = cell.value(self.leader, score), cell.value(method, score)
        return first.mean - second.mean if first and second else None

    def overlap(self, view: str) -> float | None:
        """Return metric 2 of a view's overlap, image to image, of the frames that are scored, at any dose."""
        for cell in self.done:
            if cell.view == view and (measured := cell.first.measured_overlap.get("test")):
                return measured.get("metric_2_image_based_avg")
        return None

    @property
    def status(self) -> str:
        """Say whether the matrix is complete, and what is not there; a trial has none to complete."""
        total, done = len(self.cells), len(self.done)
        text = f"{'complete' if done == total else 'incomplete'}: {done} of {total} cells"
        without = [cell for cell in self.cells.values() if not cell.runs]
        if self.is_trial:
            text, without = "trial", [cell for cell in without if cell.state != MISSING]
        for state in dict.fromkeys(cell.state for cell in without):
            names = [f"{cell.dose}-{cell.view}" for cell in without if cell.state == state]
            text += f"; {state}: {', '.join(names)}"
        failed = [r.name for r in self.runs if r.state == FAILED and self.cells[r.dose, r.view].runs]
        return f"{text}; failed repeats: {', '.join(failed)}" if failed else text


def make_study(
    title: str,
    commit: str,
    runs: Sequence[Run],
    *,
    doses: Collection[int] = (),
    views: Sequence[str] = (),
    variant: str = "",
    changes: tuple[str, ...] = (),
    limits: Mapping[tuple[int, str], Bounds] | None = None,
    committed: bool = True,
) -> Study:
    """Gather runs into cells.

    Of the runs of one cell and seed the one with the most methods stands for all, the earlier
    one if they have as many. ``doses`` and ``views`` say which cells there should be besides
    those of the runs, ``limits`` the physical limits that are known by dose and view; a result
    brings its own. The rest is as in `Study`.

    Raises
    ------
    StudyError
        If a result is of something else than the test half or all frames, or has no method.
    """
    kept: list[Run] = []
    taken: set[tuple[int, str, int]] = set()
    for run in sorted(runs, key=lambda run: -len(run.evaluation.get("methods", ()))):
        if run.state == SUCCESS:
            where = f"{run.name}: metrics/evaluation.json"
            if (split := at(run.evaluation, "conventions.split")) not in ("test", "all"):
                raise StudyError(where, f"must be of the test half or all frames, got {split!r}")
            if not run.evaluation.get("methods"):
                raise StudyError(where, "has no method", "evaluate it again")
            if (key := (run.dose, run.view, run.seed)) in taken:
                continue
            taken.add(key)
        kept.append(run)
    all_doses = sorted({*doses, *(run.dose for run in kept)})
    all_views = dict.fromkeys([*views, *(run.view for run in kept)])
    cells: dict[tuple[int, str], Cell] = {}
    for dose, view in product(all_doses, all_views):
        own = [run for run in kept if (run.dose, run.view) == (dose, view)]
        done = sorted((run for run in own if run.state == SUCCESS), key=lambda run: run.seed)
        state = SUCCESS if done else next((run.state for run in own), MISSING)
        bounds = done[0].evaluation.get("limit") if done else (limits or {}).get((dose, view))
        cells[dose, view] = Cell(dose, view, tuple(done), state, bounds)
    return Study(title, commit, variant, changes, tuple(kept), cells, committed)
