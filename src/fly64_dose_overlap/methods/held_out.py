"""Decide without ground truth: photons that a method did not see tell when it starts to fit noise.

Counts are divided binomially into two independent Poisson sets. The method sees the
first; the likelihood of the second falls while structure is found and rises when noise
is. Known in statistics as data thinning (Neufeld et al., J. Mach. Learn. Res. 25, 2024).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.methods.state import State
from fly64_dose_overlap.physics.likelihood import scan_deviance
from fly64_dose_overlap.progress import say, track
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.timing import Stopwatch, Timing

BACKGROUND_PHOTONS = 0.02
"""Of the shifted deviance of held-out photons: small, since a tenth of the photons is little."""
LEAST_PHOTONS = 100
"""Of a whole scan, held out."""


@dataclass(frozen=True)
class HeldOut:
    """How photons are held out and when waiting ends.

    Attributes
    ----------
    fraction : float
        Part of the photons that validates.
    patience : int, epochs
        A method is stopped when its validation has not improved for this long.
    seed : int
        Of the division of the photons, and of the method itself.
    """

    fraction: float = 0.1
    patience: int = 10
    seed: int = 42

    def split(self, scan: Scan) -> tuple[Scan, Scan]:
        """Return the scan to fit and the one to validate on; the same for every method.

        Raises
        ------
        StudyError
            If fewer than `LEAST_PHOTONS` are held out, of which no epoch can be chosen.
        """
        fit, validation = scan.divide(1 - self.fraction, generator(self.seed, "reconstruct", "held-out"))
        photons = validation.photons_per_frame * len(validation)
        if photons < LEAST_PHOTONS:
            problem = f"{self.fraction} of the photons are {photons:.0f}, at least {LEAST_PHOTONS} are needed"
            raise StudyError("held_out_fraction", problem, "raise it, or take more frames or a higher dose")
        return fit, validation

    def described(self, course: Course) -> dict[str, Any]:
        """Return what a result says of its stop."""
        return {"held_out_fraction": self.fraction, "held_out_epoch": course.epoch, "seed": self.seed}


@dataclass(frozen=True, eq=False)
class Course:
    """What a method reached while photons were held out.

    Attributes
    ----------
    epoch : int
        Epoch of the lowest deviance, from 1.
    deviances : tuple of float
        Mean Poisson deviance per detector pixel of the held-out photons, by epoch.
    last : State
        Of the last epoch, from the photons that were fitted.
    """

    epoch: int
    deviances: tuple[float, ...]
    last: State


def follow(states: Iterator[State], validation: Scan, *, epochs: int, patience: int, label: str) -> Course:
    """Run a method until held-out photons say that it gets worse, or for all its epochs.

    ``states`` come from the photons that may be fitted, ``validation`` holds the others.

    Raises
    ------
    StudyError
        If no epoch explains them with a finite deviance.
    """
    best, best_epoch = math.inf, 0
    deviances: list[float] = []
    state = None
    for epoch in track(range(1, epochs + 1), total=epochs, label=label, unit="epoch"):
        state = next(states)
        deviances.append(scan_deviance(validation.model, validation.counts, state.obj, BACKGROUND_PHOTONS))
        if deviances[-1] < best:
            best, best_epoch = deviances[-1], epoch
        if epoch - best_epoch >= patience:
            break
    if state is None or best_epoch == 0:
        problem = f"the deviance of held-out photons is {deviances[-1]} after each of {len(deviances)} epochs"
        raise StudyError(label, problem, "do probe and counts belong together?")
    say(f"{label}: held-out photons are explained best after epoch {best_epoch}")
    return Course(best_epoch, tuple(deviances), state)


def snapshots(states: Iterator[State], epochs: set[int], *, label: str) -> dict[int, State]:
    """Run a method on all photons and keep its state after some epochs.

    Raises
    ------
    StudyError
        If one of them is not finite.
    """
    last = max(epochs)
    kept: dict[int, State] = {}
    for epoch in track(range(1, last + 1), total=last, label=label, unit="epoch"):
        state = next(states)
        if epoch in epochs:
            kept[epoch] = state.finite_copy(f"{label}, epoch {epoch}")
    return kept


def last_state(states: Iterator[State], *, label: str) -> tuple[State, Timing]:
    """Return the last state that a method yields, and how long it took to come.

    Raises
    ------
    StudyError
        If there is none, or it is not finite.
    """
    watch = Stopwatch()
    state = None
    for found in states:
        state = found
    if state is None:
        raise StudyError(label, "run yields no state", "it must yield one at the end, or after every epoch")
    return state.finite_copy(label), watch.read()
