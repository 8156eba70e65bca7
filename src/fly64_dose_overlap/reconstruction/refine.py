"""Maximum likelihood on from an image that something else made, stopped on held-out photons."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fly64_dose_overlap.reconstruction.held_out import Course, HeldOut, follow, snapshots
from fly64_dose_overlap.reconstruction.posterior import Posterior
from fly64_dose_overlap.reconstruction.problem import Problem


def refine(
    problem: Problem, make_image: Callable[[Problem, float], Tensor], held: HeldOut, epochs: int
) -> tuple[Tensor, Course]:
    """Refine an image by Poisson maximum likelihood for as long as held-out photons agree.

    The number of iterations is found on the photons that may be fitted, from an image made
    of these alone: one made of all photons would have seen the held-out ones. It is then
    spent on all photons. Where the first iteration already fits noise, one is spent.

    Parameters
    ----------
    problem : Problem
    make_image : callable
        Returns the (y, x) complex64 image of a problem that holds the given part of the
        photons.
    held : HeldOut
    epochs : int
        Iterations, at most.

    Returns
    -------
    obj : (y, x) complex64
    course : Course
    """
    fit, validation = held.split(problem)
    solver = Posterior(start=make_image(fit, 1 - held.fraction))
    course = follow(
        solver(fit, held.seed),
        validation,
        epochs=epochs,
        patience=held.patience,
        label="refine, photons held out",
    )
    solver = Posterior(start=make_image(problem, 1.0))
    kept = snapshots(solver, problem, held.seed, {course.epoch}, label="refine")
    return kept[course.epoch], course
