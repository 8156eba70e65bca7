"""Solutions of (d K + 1) x = s for every d at once, seen through fixed linear functionals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DELAY = 10
"""Iterations over which the quadratic form must have stopped growing."""

Field = NDArray[np.complex128]


def real_dot(first: NDArray[np.complexfloating], second: NDArray[np.complexfloating]) -> float:
    """Return the inner product of two complex images as vectors of real numbers."""
    return float(np.vdot(first, second).real)


@dataclass(frozen=True, eq=False)
class Krylov:
    """What Lanczos iterations leave: a small matrix, and the basis as functionals see it."""

    tridiagonal: NDArray[np.float64]
    """(k, k), K in the Krylov basis."""
    seen: NDArray[np.float64]
    """(k, functional), functionals of the basis vectors."""
    start_norm: float
    """Norm of s."""
    residual: float
    """Norm of what the solution leaves of s at the dose of the run, over that of s."""
    converged: bool
    """Whether the tolerance was reached before the iterations ran out."""

    @property
    def iterations(self) -> int:
        """Products with K that were spent."""
        return len(self.tridiagonal)

    def functionals(self, dose: float) -> NDArray[np.float64]:
        """Return the functionals of x = (dose K + 1)^-1 s; of dose x where dose is infinite."""
        return self.start_norm * _coefficients(self.tridiagonal, dose) @ self.seen


def lanczos(
    product: Callable[[Field], Field],
    start: Field,
    see: Callable[[Field], NDArray[np.float64]],
    *,
    null: Field,
    dose: float,
    tolerance: float,
    steps: Iterable[int],
) -> Krylov:
    """Run Lanczos iterations with a real symmetric, positive semidefinite operator.

    The Krylov space of K is that of d K + 1 for every d, so that one run serves all doses
    up to its own (Frommer and Maass, SIAM J. Sci. Comput. 20, 1831, 1999). Of the basis,
    functionals alone are kept. The run ends when s^T x, which only grows, has grown by
    less than ``tolerance`` of itself in `DELAY` iterations (Strakos and Tichy, Electron.
    Trans. Numer. Anal. 13, 56, 2002).

    Parameters
    ----------
    product : callable
        K times a complex image, linear over the real numbers.
    start : (y, x) complex128
        s, orthogonal to ``null``.
    see : callable
        Functionals of an image, (functional,) float64, linear over the real numbers.
    null : (y, x) complex128
        K's known null vector, kept out of the basis against rounding.
    dose : float
        Largest dose to be served; infinite for K^-1 s.
    steps : iterable
        One item per iteration, at most.
    """
    start_norm = real_dot(start, start) ** 0.5
    null = null / real_dot(null, null) ** 0.5
    current, previous = start / start_norm, np.zeros_like(start)
    seen, small = list[NDArray[np.float64]](), _Tridiagonal(dose)
    for _ in steps:
        seen.append(see(current))
        ahead = product(current) - small.beside[-1] * previous
        diagonal = real_dot(current, ahead)
        ahead = ahead - diagonal * current
        ahead -= real_dot(null, ahead) * null
        beside = real_dot(ahead, ahead) ** 0.5
        small.add(diagonal, beside)
        if small.settled(tolerance):
            break
        current, previous = ahead / beside, current
    return Krylov(small.matrix(), np.array(seen), start_norm, small.residual(), small.settled(tolerance))


def _coefficients(tridiagonal: NDArray[np.float64], dose: float) -> NDArray[np.float64]:
    """Return the solution in the Krylov basis for a start of norm one."""
    start = np.eye(len(tridiagonal))[0]
    system = dose * tridiagonal + np.eye(len(start)) if np.isfinite(dose) else tridiagonal
    return np.linalg.solve(system, start).astype(np.float64)


class _Tridiagonal:
    """K in a growing Krylov basis, with the quadratic form s^T x of a start of norm one.

    The form is [(dose T + 1)^-1]_00, or [T^-1]_00 for infinite dose, summed term by term
    from the Cholesky factor.
    """

    def __init__(self, dose: float) -> None:
        self._dose = dose
        self._gain, self._shift = (dose, 1.0) if np.isfinite(dose) else (1.0, 0.0)
        self._diagonal: list[float] = []
        self.beside = [0.0]
        self._pivot = self._weight = 1.0
        self._forms: list[float] = [0.0]

    def add(self, diagonal: float, beside: float) -> None:
        """Append a row, and the element that ties it to the next one."""
        above = self._gain * self.beside[-1]
        self._weight *= (above / self._pivot) ** 2 if self._diagonal else 1.0
        self._pivot = self._gain * diagonal + self._shift - above**2 / self._pivot
        self._forms.append(self._forms[-1] + self._weight / self._pivot)
        self._diagonal.append(diagonal)
        self.beside.append(beside)

    def settled(self, tolerance: float) -> bool:
        """Return whether the last `DELAY` rows added little, or there are no more."""
        if self.beside[-1] <= np.finfo(np.float64).eps * max(self._diagonal):
            return True
        last = self._forms[-1]
        return len(self._diagonal) > DELAY and last - self._forms[-1 - DELAY] < tolerance * last

    def matrix(self) -> NDArray[np.float64]:
        """Return the matrix itself."""
        beside = self.beside[1:-1]
        return np.diag(self._diagonal) + np.diag(beside, 1) + np.diag(beside, -1)

    def residual(self) -> float:
        """Return the norm of what the solution leaves of a start of norm one."""
        return abs(self._gain * self.beside[-1] * float(_coefficients(self.matrix(), self._dose)[-1]))
