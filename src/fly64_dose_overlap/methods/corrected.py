"""What methods have in common whose network corrects a classical estimate of the object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.learning.correction import CorrectionTask, CorrectorSettings, Imager, load_corrector
from fly64_dose_overlap.learning.estimate import Start
from fly64_dose_overlap.learning.trainer import train
from fly64_dose_overlap.methods.base import Learned, Training
from fly64_dose_overlap.methods.state import State
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.timing import Timing


class Corrected(Learned):
    """A classical estimate, corrected by a network that is trained without ground truth.

    If there is a setting ``coarse_photons``, see `correct` for it.
    """

    Settings = CorrectorSettings
    start_type: ClassVar[type[Start]]
    """Its fields are settings of the method too; a model brings the values that it was trained with."""

    def train(
        self, scan: Scan, training: Training, truth: NDArray[np.complex64] | None = None
    ) -> tuple[dict[str, Any], Timing]:
        """Train on thinned counts of the scan; see `Learned`."""
        names = [field.name for field in fields(self.start_type)]
        start = self.start_type(**{name: getattr(self.settings, name) for name in names})
        coarse_photons = getattr(self.settings, "coarse_photons", None)
        task = CorrectionTask(self.name, self.settings, scan, start, training, coarse_photons)
        return train(task, self.settings, training)

    def load_model(self, bundle: Path) -> None:
        """Take up a trained network and the settings of its start; see `Learned`."""
        self._network, self._info, self._start = load_corrector(bundle, self.name, self.start_type)
        brought = {**self._info.start, "width": self._info.width, "coarse_photons": self._info.coarse_photons}
        self.trained_with = {key: brought[key] for key in brought if key in self.Settings.model_fields}

    def imager(self, scan: Scan) -> Imager:
        """Bring the network and a scan together."""
        return Imager(scan, self._network, self._info, self._start, self.settings)

    def run(self, scan: Scan, seed: int) -> Iterator[State]:
        """Yield the corrected image; nothing is random."""
        imager = self.imager(scan)
        yield State(imager.image(imager.estimate(scan)))
