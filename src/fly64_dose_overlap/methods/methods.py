"""The iterative methods of the study by name, each with its stop that needs no ground truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from fly64_dose_overlap.config import MethodName, ReconstructParams
from fly64_dose_overlap.files.dataset import Dataset
from fly64_dose_overlap.files.reconstruction import Reconstruction
from fly64_dose_overlap.methods.held_out import Course, HeldOut, follow, snapshots
from fly64_dose_overlap.methods.posterior import Graduated, going_on, weight_of
from fly64_dose_overlap.methods.problem import Problem, Solver, load_problem
from fly64_dose_overlap.provenance import with_step
from fly64_dose_overlap.results.timings import Stopwatch, Timing

LABELS: dict[MethodName, str] = {
    "lsqml": "LSQML",
    "lsqml_compact": "LSQML compact",
    "rpie": "rPIE",
    "epie": "ePIE",
    "ad_poisson": "AD Poisson",
    "ml": "ML",
    "map": "MAP",
}
"""Names of the methods in tables."""

FIRST_WEIGHT = 0.4
"""Where the search for the weight of the prior begins, see `weight_of`."""
WEIGHT_FACTOR = 2.0
MOST_WEIGHTS = 9
GOING_ON = 1 / 3
"""Part of its epochs that MAP spends on each weight but the first, from what the first one found."""


@dataclass(frozen=True, eq=False)
class Result:
    """One object that a method gives.

    Attributes
    ----------
    suffix : str
        Tells the results of one method apart; empty or "held_out".
    obj : (y, x) complex64
    course : Course
        What the method reached while photons were held out.
    settings : dict
        JSON-able.
    timing : Timing
        What this object alone took to make.
    """

    suffix: str
    obj: Tensor
    course: Course
    settings: dict[str, Any]
    timing: Timing


def reconstruct(
    dataset: Dataset, method: MethodName, params: ReconstructParams
) -> list[tuple[Reconstruction, Timing]]:
    """Reconstruct all frames of a dataset by one method.

    The object in the dataset, the truth, gives the size of the grid and nothing else.

    Parameters
    ----------
    dataset : Dataset
    method : str
        One of `LABELS`.
    params : ReconstructParams

    Returns
    -------
    list of (Reconstruction, Timing)
        For an iteration that overfits: after all its epochs, and after the epoch at which
        held-out photons were explained best (``<method>_held_out``). For ``map``: the one
        with the weight of the prior that held-out photons chose.
    """
    problem = load_problem(dataset)
    held = HeldOut(params.held_out_fraction, params.patience, params.seed)
    epochs = params.epochs[method]
    if method == "map":
        results = list(maximum_a_posteriori(problem, held, epochs))
    else:
        solver = solver_of(method, epochs)
        results = list(fixed_and_held_out(solver, problem, held, epochs, label=LABELS[method]))
    return [(_reconstruction(result, dataset, problem, method, params), result.timing) for result in results]


def solver_of(method: MethodName, epochs: int) -> Solver:
    """Return the method as an iteration; pty-chi takes seconds to import, and others need it not."""
    if method == "ml":
        return Graduated(0.0, epochs)
    from fly64_dose_overlap.methods.ptychi_solver import METHODS

    return METHODS[method]


def fixed_and_held_out(
    solver: Solver, problem: Problem, held: HeldOut, epochs: int, *, label: str
) -> Iterator[Result]:
    """Yield a method's object after a fixed number of epochs, and after the one that validation chooses."""
    fit, validation = held.split(problem)
    watch = Stopwatch()
    course = follow(
        solver(fit, held.seed),
        validation,
        epochs=epochs,
        patience=held.patience,
        label=f"{label}, photons held out",
    )
    choosing = watch.read()
    watch = Stopwatch()
    kept = snapshots(solver, problem, held.seed, {epochs, course.epoch}, label=label)
    running = watch.read()
    stopped = choosing + running.scaled(course.epoch / epochs)
    settings = {"epochs": course.epoch, "stop": "held-out photons"}
    yield Result("", kept[epochs], course, {"epochs": epochs, "stop": "fixed"}, running)
    yield Result("held_out", kept[course.epoch], course, settings, stopped)


def maximum_a_posteriori(problem: Problem, held: HeldOut, epochs: int) -> Iterator[Result]:
    """Yield the maximum a posteriori object; held-out photons choose the weight of its prior.

    All of ``epochs`` are spent once, on the first weight and the photons that may be fitted. Other
    weights go on from there for `GOING_ON` of them, and so does the chosen one on all photons.
    """
    watch = Stopwatch()
    fit, validation = held.split(problem)
    further = max(1, round(GOING_ON * epochs))
    first: Course | None = None

    def attempt(relative: float) -> Course:
        nonlocal first
        weight = weight_of(relative, fit)
        solver = going_on(weight, first.last) if first else Graduated(weight, epochs)
        most = further if first else epochs
        label = f"MAP, prior {relative:.3g}, photons held out"
        course = follow(solver(fit, held.seed), validation, epochs=most, patience=most, label=label)
        first = first or course
        return course

    courses = search(attempt, FIRST_WEIGHT)
    relative = best_between({weight: course.deviances[-1] for weight, course in courses.items()})
    course = min(courses.values(), key=lambda found: found.deviances[-1])
    solver = going_on(weight_of(relative, problem), course.last)
    obj = snapshots(solver, problem, held.seed, {further}, label=f"MAP, prior {relative:.3g}")[further]
    weights = {f"{weight:.6g}": found.deviances[-1] for weight, found in sorted(courses.items())}
    settings = {
        "epochs": epochs,
        "further_epochs": further,
        "relative_weight": relative,
        "held_out_deviance_by_weight": weights,
    }
    yield Result("", obj, course, settings, watch.read())


def search(attempt: Callable[[float], Course], first: float) -> dict[float, Course]:
    """Go downhill in factors of two from a first weight until the lowest deviance lies between two others."""
    found = {first: attempt(first)}
    for factor in (WEIGHT_FACTOR, 1 / WEIGHT_FACTOR):
        best = first
        while len(found) < MOST_WEIGHTS:
            weight = best * factor
            found[weight] = attempt(weight)
            if found[weight].deviances[-1] >= found[best].deviances[-1]:
                break
            best = weight
        if best != first:
            break
    return found


def best_between(deviances: dict[float, float]) -> float:
    """Return the weight at the vertex of the parabola through the lowest deviance and its neighbours.

    Examples
    --------
    >>> round(best_between({1.0: 4.0, 2.0: 1.0, 4.0: 4.0}), 6)
    2.0
    """
    weights = sorted(deviances)
    index = min(range(len(weights)), key=lambda i: deviances[weights[i]])
    if index in (0, len(weights) - 1):
        return weights[index]
    left, middle, right = (deviances[weights[i]] for i in (index - 1, index, index + 1))
    curvature = left - 2 * middle + right
    offset = 0.5 * (left - right) / curvature if curvature > 0 else 0.0
    return weights[index] * WEIGHT_FACTOR**offset


def _reconstruction(
    result: Result, dataset: Dataset, problem: Problem, method: MethodName, params: ReconstructParams
) -> Reconstruction:
    name = f"{method}_{result.suffix}" if result.suffix else method
    label = f"{LABELS[method]} {result.suffix.replace('_', '-')}".strip()
    settings = {
        **result.settings,
        "held_out_fraction": params.held_out_fraction,
        "held_out_epoch": result.course.epoch,
        "seed": params.seed,
    }
    return Reconstruction(
        method=name,
        label=label,
        kind="iterative",
        obj=result.obj.cpu().numpy().astype(np.complex64),
        probe=problem.probe.cpu().numpy(),
        positions_px=dataset.positions_px,
        loss=np.array(result.course.deviances),
        settings=settings,
        record=with_step(dataset.record, "reconstruct", label, **settings),
    )
