"""Maximum a posteriori reconstruction of object, probe and positions together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from fly64_dose_overlap.config import Epochs
from fly64_dose_overlap.methods.base import Iteration, IterationSettings
from fly64_dose_overlap.methods.joint_posterior import JointPosterior
from fly64_dose_overlap.methods.posterior import FIRST_WEIGHT
from fly64_dose_overlap.methods.state import State
from fly64_dose_overlap.scan import Scan


class JointSettings(IterationSettings):
    """Of the joint reconstruction."""

    epochs: Epochs = 180
    probe: bool = True
    """Whether the probe is found, from the scan's own."""
    position_px: Annotated[float, Field(gt=0, le=10)] | None = 1.0
    """Standard deviation of each coordinate about the scan's own, object pixels; null: they are right."""


class Joint(Iteration):
    """L-BFGS on the Poisson likelihood and total variation, over object, probe and positions."""

    name = "joint"
    label = "Joint MAP"
    Settings = JointSettings

    def run(self, scan: Scan, seed: int) -> Iterator[State]:
        """Yield object, probe and positions after every iteration; nothing is random."""
        del seed
        chosen = self.settings
        return JointPosterior(FIRST_WEIGHT, chosen.probe, chosen.position_px, chosen.epochs)(scan)
