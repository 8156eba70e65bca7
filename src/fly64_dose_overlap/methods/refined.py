"""A few joint iterations on all frames, corrected by a network that is trained without ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fly64_dose_overlap.arrays import FrameArray
from fly64_dose_overlap.config import Epochs
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.learning.correction import (
    CoarsePhotons,
    CorrectionTask,
    CorrectorSettings,
    Iterations,
    load_corrector,
    make_imager,
)
from fly64_dose_overlap.learning.estimate import Estimate, GroupedScan
from fly64_dose_overlap.learning.trainer import train
from fly64_dose_overlap.methods.base import Learned, Training
from fly64_dose_overlap.methods.held_out import HeldOut
from fly64_dose_overlap.methods.posterior import BACKGROUNDS, Graduated, flat_object, weight_of
from fly64_dose_overlap.methods.state import Result, State
from fly64_dose_overlap.progress import track
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.timing import Stopwatch, Timing


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


class Refined(Learned):
    """The joint estimate of all frames, corrected by a network."""

    name = "refined"
    label = "refined"

    class Settings(CorrectorSettings):
        """Settings of the network on joint iterations."""

        epochs: Epochs = 4
        iterations: Iterations = 30
        """Maximum a posteriori iterations on all frames before the network."""
        weight: Annotated[float, Field(ge=0, le=1000)] = 0.4
        """Weight of their prior, over about the root of twice the photons per pixel."""
        coarse_photons: CoarsePhotons | None = None
        """Photons per pixel that leave half of the coarse correction to the network; null: all
        of it at any dose."""

    def train(
        self, scan: Scan, training: Training, truth: NDArray[np.complex64] | None = None
    ) -> tuple[dict[str, Any], Timing]:
        """Train on thinned counts of the scan; see `Learned`."""
        settings: Refined.Settings = self.settings
        task = CorrectionTask(
            self.name,
            settings,
            scan,
            JointStart(settings.iterations, settings.weight),
            {"iterations": settings.iterations, "weight": settings.weight},
            seed=training.seed,
            coarse_photons=settings.coarse_photons,
            monitor=training.monitor,
        )
        return train(task, settings, **training.places())

    def load(self, bundle: Path) -> None:
        """Take up a trained model; see `Learned`."""
        self._network, self._info = load_corrector(bundle, self.name)
        self._model = {"model_sha256": sha256_of(bundle)}

    def run(self, scan: Scan, seed: int) -> Iterator[State]:
        """Yield the corrected image; nothing is random."""
        start = JointStart(int(self._info.start["iterations"]), float(self._info.start["weight"]))
        imager = make_imager(scan, self._network, self._info, start, self.settings)
        yield State(imager.image(imager.estimate(scan)))

    def results(self, scan: Scan, stop: HeldOut) -> Iterator[Result]:
        """Yield the corrected image."""
        watch = Stopwatch()
        (state,) = self.run(scan, stop.seed)
        state = state.finite_copy(self.label)
        yield Result(self.name, self.label, self.kind, state, dict(self._model), timing=watch.read())
