"""Maximum likelihood on from an image of something else."""

from __future__ import annotations

import torch
from fly64_dose_overlap.methods.problem import Problem, load_problem
from fly64_dose_overlap.methods.refine import refine

import tiny_scan
from fly64_dose_overlap.methods.held_out import HeldOut
from fly64_dose_overlap.physics.likelihood import scan_deviance

TRUTH = torch.from_numpy(tiny_scan.scan_dataset().obj)


def test_an_image_is_improved_and_only_seen_photons_are_used() -> None:
    problem = load_problem(tiny_scan.scan_dataset())
    held = HeldOut(0.1, 3, seed=1)
    seen: list[tuple[float, float]] = []

    def half_right(part: Problem, fraction: float) -> torch.Tensor:
        seen.append((fraction, float(part.counts[:].sum() / problem.counts[:].sum())))
        return 1 + 0.5 * (TRUTH - 1)

    obj, iterations, deviances = refine(problem, half_right, held, epochs=6)
    assert [fraction for fraction, _ in seen] == [0.9, 1.0]
    assert all(abs(fraction - share) < 0.01 for fraction, share in seen)
    assert 1 <= iterations <= 6
    assert iterations == min(range(len(deviances)), key=deviances.__getitem__)
    model = problem.model()
    start = 1 + 0.5 * (TRUTH - 1)
    assert scan_deviance(model, problem.counts, obj) < scan_deviance(model, problem.counts, start)


def test_an_image_without_noise_is_left_as_it_is() -> None:
    problem = load_problem(tiny_scan.scan_dataset())
    obj, iterations, deviances = refine(problem, lambda *_: TRUTH, HeldOut(0.1, 3, seed=1), epochs=6)
    assert iterations == 0
    assert len(deviances) == 1 + 3
    assert torch.equal(obj, TRUTH)
