"""Decide without ground truth: photons that a method did not see tell when it starts to fit noise.

Counts are divided binomially into two independent Poisson sets. The method sees the
first; the likelihood of the second falls while structure is found and rises when noise
is. Known in statistics as data thinning (Neufeld et al., J. Mach. Learn. Res. 25, 2024).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.methods.problem import Problem, Solver
from fly64_dose_overlap.physics.likelihood import scan_deviance
from fly64_dose_overlap.progress import say, track
from fly64_dose_overlap.seeding import generator

BACKGROUND_PHOTONS = 0.02
"""Of the shifted deviance of held-out photons: small, since a tenth of the photons is little."""


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
        Of the division of the photons.
    """

    fraction: float
    patience: int
    seed: int

    def split(self, problem: Problem) -> tuple[Problem, Problem]:
        """Return the problem to fit and the one to validate on; the same for every method."""
        return problem.split_photons(1 - self.fraction, generator(self.seed, "reconstruct", "held-out"))


@dataclass(frozen=True, eq=False)
class Course:
    """What a method reached while photons were held out.

    Attributes
    ----------
    epoch : int
        Epoch of the lowest deviance, from 1.
    deviances : tuple of float
        Mean Poisson deviance per detector pixel of the held-out photons, by epoch.
    last : (y, x) complex64
        Object of the last epoch, from the photons that were fitted.
    """

    epoch: int
    deviances: tuple[float, ...]
    last: Tensor


def follow(
    objects: Iterator[Tensor], validation: Problem, *, epochs: int, patience: int, label: str
) -> Course:
    """Run a method until held-out photons say that it gets worse, or for all its epochs.

    Parameters
    ----------
    objects : iterator of (y, x) complex64
        From a `Solver` on the photons that may be fitted.
    validation : Problem
        The held-out photons.
    epochs, patience : int
    label : str
        Names the work in the progress line.

    Raises
    ------
    StudyError
        If no epoch explains them with a finite deviance.
    """
    model = validation.model()
    best, best_epoch = math.inf, 0
    deviances: list[float] = []
    obj = None
    for epoch in track(range(1, epochs + 1), total=epochs, label=label, unit="epoch"):
        obj = next(objects)
        deviances.append(scan_deviance(model, validation.counts, obj, BACKGROUND_PHOTONS))
        if deviances[-1] < best:
            best, best_epoch = deviances[-1], epoch
        if epoch - best_epoch >= patience:
            break
    if obj is None or best_epoch == 0:
        problem = f"the deviance of held-out photons is {deviances[-1]} after each of {len(deviances)} epochs"
        raise StudyError(label, problem, "do probe and counts belong together?")
    say(f"{label}: held-out photons are explained best after epoch {best_epoch}")
    return Course(best_epoch, tuple(deviances), obj)


def snapshots(
    solver: Solver, problem: Problem, seed: int, epochs: set[int], *, label: str
) -> dict[int, Tensor]:
    """Run a method on all photons and keep its object after some epochs.

    Raises
    ------
    StudyError
        If one of them is not finite.
    """
    last = max(epochs)
    kept: dict[int, Tensor] = {}
    objects = solver(problem, seed)
    for epoch in track(range(1, last + 1), total=last, label=label, unit="epoch"):
        obj = next(objects)
        if epoch in epochs:
            if not bool(torch.isfinite(torch.view_as_real(obj)).all()):
                raise StudyError(label, f"the object is not finite after epoch {epoch}")
            kept[epoch] = obj.clone()
    return kept
