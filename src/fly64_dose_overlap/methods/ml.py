"""Poisson maximum likelihood of the object."""

from __future__ import annotations

from collections.abc import Iterator

from fly64_dose_overlap.methods.base import Iteration, settings_of
from fly64_dose_overlap.methods.posterior import Graduated
from fly64_dose_overlap.methods.state import State
from fly64_dose_overlap.scan import Scan


class MaximumLikelihood(Iteration):
    """L-BFGS on the shifted Poisson likelihood, with a background that falls in steps (`Graduated`)."""

    name = "ml"
    label = "ML"
    Settings = settings_of(epochs=60)

    def run(self, scan: Scan, seed: int) -> Iterator[State]:
        """Yield the object after every iteration; nothing is random."""
        del seed
        return map(State, Graduated(0.0, self.settings.epochs)(scan))
