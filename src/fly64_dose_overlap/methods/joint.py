"""The estimate of a few joint iterations, which a network then corrects."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from fly64_dose_overlap.learning.scan import Estimate, Scan
from fly64_dose_overlap.methods.posterior import BACKGROUNDS, Graduated, weight_of
from fly64_dose_overlap.methods.problem import Problem
from fly64_dose_overlap.physics.counts import Counts
from fly64_dose_overlap.progress import track


@dataclass(frozen=True)
class JointStart:
    """A `Start`: maximum a posteriori of all frames at once, not run to its end.

    The early image is the last one under a background of a good part of a photon.

    Attributes
    ----------
    iterations : int
    weight : float
        Of the prior, the same at every dose: the relative one of `weight_of`.
    """

    iterations: int
    weight: float

    def __call__(self, scan: Scan, counts: Counts, *, fraction: float, label: str) -> Estimate:
        """Return the estimate; see `Start`."""
        rows, columns = scan.fluence.shape
        problem = Problem(counts, scan.probe[None] * fraction**0.5, scan.positions_px, (rows, columns))
        solver = Graduated(weight_of(self.weight, problem), self.iterations)
        turn = max(1, round(self.iterations * sum(part for _, part in BACKGROUNDS[:-1])))
        early = late = problem.flat_object()
        objects = islice(solver(problem, 0), self.iterations)
        iterations = track(objects, total=self.iterations, label=label, unit="iteration")
        for iteration, obj in enumerate(iterations, start=1):
            late = obj
            if iteration <= turn:
                early = obj.clone()
        return Estimate(early.cpu().numpy(), late.cpu().numpy(), scan.fluence * fraction)
