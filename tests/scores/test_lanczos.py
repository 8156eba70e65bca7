"""Lanczos iterations: one space, every dose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fly64_dose_overlap.scores.lanczos import Field, Krylov, lanczos

SHAPE = (3, 5)
SIZE = 2 * SHAPE[0] * SHAPE[1]


def to_vector(field: Field) -> np.ndarray[Any, Any]:
    return field.ravel().view(np.float64)


def to_field(vector: np.ndarray[Any, Any]) -> Field:
    return np.ascontiguousarray(vector).view(np.complex128).reshape(SHAPE)


def problem() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return a semidefinite matrix, its null vector, and a start orthogonal to that."""
    rng = np.random.default_rng(1)
    vectors = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]
    matrix = vectors @ np.diag([0, *np.geomspace(0.05, 2, SIZE - 1)]) @ vectors.T
    start = vectors[:, 1:] @ rng.normal(size=SIZE - 1)
    return matrix, vectors[:, 0], start


def solve(dose: float, *, steps: int = 100, tolerance: float = 1e-14) -> Krylov:
    matrix, null, start = problem()
    return lanczos(
        lambda field: to_field(matrix @ to_vector(field)),
        to_field(start),
        lambda field: to_vector(field).copy(),
        null=to_field(null),
        dose=dose,
        tolerance=tolerance,
        steps=range(steps),
    )


@pytest.mark.parametrize("dose", [0.0, 0.1, 3.0, 100.0])
def test_one_run_serves_every_dose(dose: float) -> None:
    matrix, _, start = problem()
    wanted = np.linalg.solve(dose * matrix + np.eye(SIZE), start)
    np.testing.assert_allclose(solve(100.0).functionals(dose), wanted, rtol=1e-6, atol=1e-8)


def test_infinite_dose_is_the_pseudo_inverse() -> None:
    matrix, _, start = problem()
    wanted = np.linalg.pinv(matrix, rcond=1e-10) @ start
    np.testing.assert_allclose(solve(np.inf).functionals(np.inf), wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dose", [3.0, np.inf])
def test_residual_is_what_the_solution_leaves(dose: float) -> None:
    matrix, _, start = problem()
    krylov = solve(dose, steps=8)
    found = krylov.functionals(dose)
    left = start - (matrix @ found if np.isinf(dose) else dose * matrix @ found + found)
    assert krylov.residual == pytest.approx(np.linalg.norm(left) / np.linalg.norm(start), rel=1e-6)
    assert krylov.residual > 1e-4
    assert not krylov.converged


def test_the_quadratic_form_grows_to_its_limit() -> None:
    matrix, _, start = problem()
    exact = start @ np.linalg.pinv(matrix, rcond=1e-10) @ start
    forms = [start @ solve(np.inf, steps=steps).functionals(np.inf) for steps in range(1, 25, 3)]
    assert np.all(np.diff(forms) > 0)
    assert forms[-1] < exact * (1 + 1e-9)


def test_it_ends_when_ten_iterations_change_little() -> None:
    matrix, _, start = problem()
    krylov = solve(1.0, tolerance=0.01)
    exact = start @ np.linalg.solve(matrix + np.eye(SIZE), start)
    assert krylov.converged
    assert krylov.iterations < SIZE - 5
    assert start @ krylov.functionals(1.0) == pytest.approx(exact, rel=0.01)
