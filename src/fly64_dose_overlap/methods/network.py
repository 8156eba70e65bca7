"""The network on the mosaic of groups, trained without ground truth."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fly64_dose_overlap.config import Epochs
from fly64_dose_overlap.learning.correction import CorrectorSettings
from fly64_dose_overlap.learning.estimate import Iterations
from fly64_dose_overlap.learning.mosaic import GroupStart
from fly64_dose_overlap.methods.corrected import Corrected
from fly64_dose_overlap.methods.held_out import HeldOut, follow, snapshots
from fly64_dose_overlap.methods.posterior import Posterior
from fly64_dose_overlap.methods.state import Result, State
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.timing import Stopwatch


class Network(Corrected):
    """Groups of frames reconstructed one by one, stitched, and corrected by a network."""

    name = "network"
    label = "network"
    start_type = GroupStart

    class Settings(CorrectorSettings):
        """Settings of the network on the mosaic."""

        iterations: Iterations = 6
        """Classical iterations on each group before the network."""
        likelihood_epochs: Epochs = 60
        """Iterations of maximum likelihood from its image on, at most."""

    @classmethod
    def headings(cls) -> dict[str, str]:
        """Return the labels of all three results by their names; see `Method.headings`."""
        return {"group_start": "group start", cls.name: cls.label, "network_ml": "network + ML"}

    def results(self, scan: Scan, stop: HeldOut) -> Iterator[Result]:
        """Yield the mosaic, the network's image, and what maximum likelihood makes of that.

        The number of its iterations is found on the photons that may be fitted, from an image made
        of these alone: one made of all photons would have seen the held-out ones. It is then
        spent on all photons; where the first iteration already fits noise, none is.
        """
        watch = Stopwatch()
        imager = self.imager(scan)
        estimate = imager.estimate(scan)
        mosaic = State(torch.from_numpy(estimate.late))
        yield Result("group_start", "group start", "reference", mosaic, {}, timing=watch.read())
        image = imager.image(estimate)
        yield Result(self.name, self.label, self.kind, State(image), self.model, timing=watch.read())
        fit, validation = stop.split(scan)
        first = imager.image(imager.estimate(fit, 1 - stop.fraction))
        course = follow(
            _from_image(first, fit),
            validation,
            epochs=1 + self.settings.likelihood_epochs,
            patience=stop.patience,
            label="network + ML, photons held out (epoch 1 is the image)",
        )
        state = snapshots(_from_image(image, scan), {course.epoch}, label="network + ML")[course.epoch]
        settings = {"epochs": course.epoch - 1, "stop": "held-out photons", **self.model}
        yield Result("network_ml", "network + ML", self.kind, state, settings, course.deviances, watch.read())


def _from_image(image: Tensor, scan: Scan) -> Iterator[State]:
    """Yield an image, then what maximum likelihood makes of it, iteration by iteration."""
    yield State(image)
    yield from map(State, Posterior(start=image)(scan))
