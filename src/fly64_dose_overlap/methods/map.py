"""Maximum a posteriori reconstruction, its prior weighed by photons held back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from fly64_dose_overlap.methods.base import Iteration, settings_of
from fly64_dose_overlap.methods.held_out import Course, HeldOut, follow, snapshots
from fly64_dose_overlap.methods.posterior import FIRST_WEIGHT, Graduated, Posterior, weight_of
from fly64_dose_overlap.methods.state import Result, State
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.timing import Stopwatch

WEIGHT_FACTOR = 2.0
MOST_WEIGHTS = 9
GOING_ON = 1 / 3
"""Part of its epochs that are spent on each weight but the first, from what the first one found."""


class MaximumAPosteriori(Iteration):
    """L-BFGS on the Poisson likelihood and total variation (`Posterior`)."""

    name = "map"
    label = "MAP"
    Settings = settings_of(epochs=90)

    def run(self, scan: Scan, seed: int) -> Iterator[State]:
        """Yield the object after every iteration, with the first weight of the search; nothing is random."""
        del seed
        return map(State, Graduated(weight_of(FIRST_WEIGHT, scan), self.settings.epochs)(scan))

    def results(self, scan: Scan, stop: HeldOut) -> Iterator[Result]:
        """Yield one result, with the weight of the prior that explains held-out photons best.

        All epochs are spent once, on the first weight and the photons that may be fitted. Other
        weights go on from there for `GOING_ON` of them, and so does the chosen one on all photons.
        """
        watch = Stopwatch()
        fit, validation = stop.split(scan)
        epochs = self.settings.epochs
        further = max(1, round(GOING_ON * epochs))
        label = partial("{}, prior {:.3g}, photons held out".format, self.label)
        states = self.run(fit, stop.seed)
        first = follow(states, validation, epochs=epochs, patience=epochs, label=label(FIRST_WEIGHT))

        def attempt(relative: float) -> Course:
            states = map(State, Posterior(weight_of(relative, fit), first.last.obj)(fit))
            return follow(states, validation, epochs=further, patience=further, label=label(relative))

        courses = search(attempt, FIRST_WEIGHT, first)
        relative = best_between({weight: course.deviances[-1] for weight, course in courses.items()})
        course = min(courses.values(), key=lambda found: found.deviances[-1])
        states = map(State, Posterior(weight_of(relative, scan), course.last.obj)(scan))
        state = snapshots(states, {further}, label=f"{self.label}, prior {relative:.3g}")[further]
        weights = {f"{weight:.6g}": found.deviances[-1] for weight, found in sorted(courses.items())}
        settings = {
            **self.settings.model_dump(),
            "further_epochs": further,
            "relative_weight": relative,
            "held_out_deviance_by_weight": weights,
            **stop.described(course),
        }
        yield Result(self.name, self.label, self.kind, state, settings, course.deviances, watch.read())


def search(attempt: Callable[[float], Course], first: float, course: Course) -> dict[float, Course]:
    """Go downhill in factors of two until the lowest deviance lies between two others.

    ``attempt`` follows a weight; ``course`` is that of the ``first``.
    """
    found = {first: course}
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
