"""Amplitude flow (Wang, Giannakis and Eldar, IEEE Trans. Inf. Theory 64, 773, 2018) as a method."""

from collections.abc import Iterator

import torch

from fly64_dose_overlap.config import Epochs
from fly64_dose_overlap.methods.base import Iteration, IterationSettings
from fly64_dose_overlap.methods.state import State
from fly64_dose_overlap.scan import Scan


class AmplitudeFlow(Iteration):
    """Gradient descent on the squared error of the amplitudes, with momentum."""

    name = "amplitude_flow"
    label = "Amplitude flow"

    class Settings(IterationSettings):
        """Settings of amplitude flow."""

        epochs: Epochs = 60
        momentum: float = 0.8
        background: float = 0.1
        """Photons added to each pixel, measured and expected, so that empty ones pull less."""

    def run(self, scan: Scan, seed: int) -> Iterator[State]:
        """Yield the object after every epoch; nothing is random."""
        model, settings = scan.model, self.settings
        light = torch.from_numpy(scan.illumination()).float()
        obj = torch.ones(scan.object_shape, dtype=torch.complex64)
        change = torch.zeros_like(obj)
        while True:
            pull = torch.zeros_like(obj)
            for frames in model.batches():
                field = model.far_field(obj, frames)
                expected = field.abs().square().sum(dim=1) + settings.background
                counted = torch.from_numpy(scan.counts[frames]) + settings.background
                ratio = (counted / expected).sqrt() - 1
                model.back_project(field * ratio[:, None], frames, onto=pull)
            change = settings.momentum * change + pull / (light + 0.01 * light.max())
            obj = obj + change
            yield State(obj)
