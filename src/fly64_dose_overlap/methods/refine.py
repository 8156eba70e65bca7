"""Maximum likelihood on from an image that something else made, stopped on held-out photons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from fly64_dose_overlap.methods.held_out import HeldOut, follow, snapshots
from fly64_dose_overlap.methods.posterior import Posterior
from fly64_dose_overlap.methods.problem import Problem


@dataclass(frozen=True, eq=False)
class FromImage:
    """A `Solver`: an image, then what maximum likelihood makes of it, iteration by iteration.

    Attributes
    ----------
    image : (y, x) complex64
    """

    image: Tensor

    def __call__(self, problem: Problem, seed: int) -> Iterator[Tensor]:
        """Yield the image itself, then the object after every iteration; nothing is random."""
        yield self.image
        yield from Posterior(start=self.image)(problem, seed)


def refine(
    problem: Problem, make_image: Callable[[Problem, float], Tensor], held: HeldOut, epochs: int
) -> tuple[Tensor, int, tuple[float, ...]]:
    """Refine an image by Poisson maximum likelihood for as long as held-out photons agree.

    The number of iterations is found on the photons that may be fitted, from an image made
    of these alone: one made of all photons would have seen the held-out ones. It is then
    spent on all photons; where the first iteration already fits noise, none is.

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
    iterations : int
        That were spent.
    deviances : tuple of float
        Mean Poisson deviance per detector pixel of the held-out photons: of the image, then
        after each iteration.
    """
    fit, validation = held.split(problem)
    course = follow(
        FromImage(make_image(fit, 1 - held.fraction))(fit, held.seed),
        validation,
        epochs=1 + epochs,
        patience=held.patience,
        label="refine, photons held out (epoch 1 is the image)",
    )
    solver = FromImage(make_image(problem, 1.0))
    kept = snapshots(solver, problem, held.seed, {course.epoch}, label="refine")
    return kept[course.epoch], course.epoch - 1, course.deviances
