"""A few joint iterations on all frames, corrected by a network that is trained without ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Annotated

from pydantic import Field

from fly64_dose_overlap.arrays import FrameArray
from fly64_dose_overlap.config import Epochs
from fly64_dose_overlap.learning.correction import CoarsePhotons, CorrectorSettings
from fly64_dose_overlap.learning.estimate import Estimate, GroupedScan, Iterations, Start
from fly64_dose_overlap.methods.corrected import Corrected
from fly64_dose_overlap.methods.posterior import BACKGROUNDS, Graduated, flat_object, weight_of
from fly64_dose_overlap.progress import track

Weight = Annotated[float, Field(ge=0, le=1000)]


@dataclass(frozen=True)
class JointStart(Start):
    """A `Start`: maximum a posteriori of all frames at once, not run to its end.

    The early image is the last one under a background of a good part of a photon.
    """

    iterations: Iterations
    weight: Weight
    """Of the prior, the same at every dose: the relative one of `weight_of`."""

    def __call__(self, grouped: GroupedScan, counts: FrameArray, *, fraction: float, label: str) -> Estimate:
        """Return the estimate; see `Start`."""
        scan = grouped.scan.with_counts(counts, fraction)
        solver = Graduated(weight_of(self.weight, scan), self.iterations)
        turn = max(1, round(self.iterations * sum(part for _, part in BACKGROUNDS[:-1])))
        early = late = flat_object(scan)
        objects = islice(solver(scan), self.iterations)
        iterations = track(objects, total=self.iterations, label=label, unit="iteration")
        for iteration, obj in enumerate(iterations, start=1):
            late = obj
            if iteration <= turn:
                early = obj.clone()
        return Estimate(early.numpy(), late.numpy(), grouped.fluence * fraction)


class Refined(Corrected):
    """The joint estimate of all frames, corrected by a network."""

    name = "refined"
    label = "refined"
    start_type = JointStart

    class Settings(CorrectorSettings):
        """Settings of the network on joint iterations."""

        epochs: Epochs = 4
        iterations: Iterations = 60
        """Maximum a posteriori iterations on all frames before the network."""
        weight: Weight = 0.4
        """Weight of their prior, over about the root of twice the photons per pixel."""
        coarse_photons: CoarsePhotons | None = 10.0
        """Photons per pixel that leave half of the coarse correction of the phase to the network;
        null: all of it at any dose."""
