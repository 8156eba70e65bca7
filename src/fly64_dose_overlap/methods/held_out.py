"""Decide without ground truth: photons that a method did not see tell when it starts to fit noise.

Counts are divided binomially into two independent Poisson sets. The method sees the
first; the likelihood of the second falls while structure is found and rises when noise
is. Known in statistics as data thinning (Neufeld et al., J. Mach. Learn. Res. 25, 2024).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

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
    choice, state = _Choice(patience), None
    for _ in track(range(epochs), total=epochs, label=label, unit="epoch"):
        state = next(states)
        choice.add(deviance(state, validation))
        if choice.made:
            break
    return choice.course(state, label)


def deviance(state: State, validation: Scan) -> float:
    """Return the deviance that tells how well a state explains held-out photons.

    A probe that it has found is brought to the power of theirs.
    """
    found = validation
    if state.probe is not None:
        own = state.probe.numpy()
        power, given = (float((np.abs(each) ** 2).sum(dtype=np.float64)) for each in (validation.probe, own))
        probe = own * np.float32(math.sqrt(power / given))
        found = replace(found, probe=probe)
    if state.positions_px is not None:
        found = replace(found, positions_px=state.positions_px)
    return scan_deviance(found.model, found.counts, state.obj, BACKGROUND_PHOTONS)


class _Choice:
    """The epoch of the lowest deviance, once no lower one has come for some time."""

    def __init__(self, patience: int) -> None:
        self.epoch = 0
        self._patience, self._deviances = patience, [math.inf]

    @property
    def made(self) -> bool:
        return len(self._deviances) - 1 - self.epoch >= self._patience

    def add(self, deviance: float) -> bool:
        """Take up the deviance of the next epoch; return whether it is the lowest."""
        self._deviances.append(deviance)
        if deviance < self._deviances[self.epoch]:
            self.epoch = len(self._deviances) - 1
        return self.epoch == len(self._deviances) - 1

    def course(self, last: State | None, label: str) -> Course:
        found = tuple(self._deviances[1:])
        if last is None or self.epoch == 0:
            problem = f"the deviance of held-out photons is {found[-1]} after each of {len(found)} epochs"
            raise StudyError(label, problem, "do probe and counts belong together?")
        say(f"{label}: held-out photons are explained best after epoch {self.epoch}")
        return Course(self.epoch, found, last)


def follow_beside(
    held_out: Iterator[tuple[float, Timing]],
    states: Iterator[State],
    *,
    epochs: int,
    patience: int,
    label: str,
) -> tuple[Course, dict[int, State], Timing]:
    """Do what `follow` and `snapshots` do, epoch by epoch at the same time.

    Deviances of ``held_out`` photons, with the time that they took, come from elsewhere, ``states``
    from all photons: those of the epoch that is chosen and of the last are kept.
    """
    choice, state, choosing = _Choice(patience), None, Timing()
    kept: dict[int, State] = {}
    for epoch in track(range(1, epochs + 1), total=epochs, label=label, unit="epoch"):
        state = next(states)
        if not choice.made:
            found, choosing = next(held_out)
            if choice.add(found):
                kept = {epoch: state.finite_copy(f"{label}, epoch {epoch}")}
        if epoch == epochs:
            kept[epoch] = state.finite_copy(f"{label}, epoch {epoch}")
    return choice.course(state, label), kept, choosing


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
