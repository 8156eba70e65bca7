"""The network on the mosaic of groups, trained without ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.config import Epochs
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.learning.correction import (
    CorrectionTask,
    CorrectorSettings,
    Imager,
    Iterations,
    load_corrector,
    make_imager,
)
from fly64_dose_overlap.learning.mosaic import GroupStart
from fly64_dose_overlap.learning.trainer import train
from fly64_dose_overlap.methods.base import Learned, Training
from fly64_dose_overlap.methods.held_out import HeldOut, follow, snapshots
from fly64_dose_overlap.methods.posterior import Posterior
from fly64_dose_overlap.methods.state import Result, State
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.timing import Stopwatch, Timing


class Network(Learned):
    """Groups of frames reconstructed one by one, stitched, and corrected by a network."""

    name = "network"
    label = "network"

    class Settings(CorrectorSettings):
        """Settings of the network on the mosaic."""

        iterations: Iterations = 6
        """Classical iterations on each group before the network."""
        likelihood_epochs: Epochs = 60
        """Iterations of maximum likelihood from its image on, at most."""

    def train(
        self, scan: Scan, training: Training, truth: NDArray[np.complex64] | None = None
    ) -> tuple[dict[str, Any], Timing]:
        """Train on thinned counts of the scan; see `Learned`."""
        settings: Network.Settings = self.settings
        start = {"iterations": settings.iterations}
        task = CorrectionTask(
            self.name,
            settings,
            scan,
            GroupStart(settings.iterations),
            start,
            seed=training.seed,
            monitor=training.monitor,
        )
        return train(task, settings, **training.places())

    def load(self, bundle: Path) -> None:
        """Take up a trained model; see `Learned`."""
        self._network, self._info = load_corrector(bundle, self.name)
        self._model = {"model_sha256": sha256_of(bundle)}

    def _imager(self, scan: Scan) -> Imager:
        start = GroupStart(int(self._info.start["iterations"]))
        return make_imager(scan, self._network, self._info, start, self.settings)

    def run(self, scan: Scan, seed: int) -> Iterator[State]:
        """Yield the network's image; nothing is random."""
        imager = self._imager(scan)
        yield State(imager.image(imager.estimate(scan)))

    def results(self, scan: Scan, stop: HeldOut) -> Iterator[Result]:
        """Yield the mosaic, the network's image, and what maximum likelihood makes of that."""
        watch = Stopwatch()
        imager = self._imager(scan)
        estimate = imager.estimate(scan)
        mosaic = State(torch.from_numpy(estimate.late))
        yield Result("group_start", "group start", "reference", mosaic, {}, timing=watch.read())
        image = imager.image(estimate)
        yield Result(self.name, self.label, self.kind, State(image), dict(self._model), timing=watch.read())
        obj, iterations, deviances = self._on_by_likelihood(imager, image, scan, stop)
        settings = {"epochs": iterations, "stop": "held-out photons", **self._model}
        yield Result("network_ml", "network + ML", self.kind, State(obj), settings, deviances, watch.read())

    def _on_by_likelihood(
        self, imager: Imager, image: Tensor, scan: Scan, stop: HeldOut
    ) -> tuple[Tensor, int, tuple[float, ...]]:
        """Refine an image by Poisson maximum likelihood for as long as held-out photons agree.

        The number of iterations is found on the photons that may be fitted, from an image made
        of these alone: one made of all photons would have seen the held-out ones. It is then
        spent on all photons; where the first iteration already fits noise, none is.
        """
        fit, validation = stop.split(scan)
        first = imager.image(imager.estimate(fit, 1 - stop.fraction))
        course = follow(
            _from_image(first, fit),
            validation,
            epochs=1 + self.settings.likelihood_epochs,
            patience=stop.patience,
            label="network + ML, photons held out (epoch 1 is the image)",
        )
        kept = snapshots(_from_image(image, scan), {course.epoch}, label="network + ML")
        return kept[course.epoch].obj, course.epoch - 1, course.deviances


def _from_image(image: Tensor, scan: Scan) -> Iterator[State]:
    """Yield an image, then what maximum likelihood makes of it, iteration by iteration."""
    yield State(image)
    yield from map(State, Posterior(start=image)(scan))
