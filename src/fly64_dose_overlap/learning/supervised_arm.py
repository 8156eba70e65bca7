"""The supervised arm: single frames in, the ground truth under the probe as the target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from fly64_dose_overlap.config import TrainParams
from fly64_dose_overlap.files.dataset import Dataset, select_frames
from fly64_dose_overlap.learning.arm import Metrics, mean_amplitude, mean_photons_per_frame
from fly64_dose_overlap.learning.bundle import save_bundle
from fly64_dose_overlap.learning.scan import SUPPORT_POWER
from fly64_dose_overlap.learning.supervised import (
    FRAMES_PER_BATCH,
    SupervisedInfo,
    build_supervised,
    predict_patches,
    scaled,
    supervised_image,
    support_model,
)
from fly64_dose_overlap.learning.validation import REGION_THRESHOLD, split_frames, strip_scores
from fly64_dose_overlap.physics.fluence import fluence_map
from fly64_dose_overlap.physics.groups import support_side_px
from fly64_dose_overlap.scores.region import Region, scan_region
from fly64_dose_overlap.seeding import torch_seed

WIDTH = 16
SETTINGS = {
    "seed",
    "epochs",
    "steps_per_epoch",
    "frames_per_step",
    "learning_rate",
    "patience",
    "validation_fraction",
    "threads",
    "device",
    "precision",
}
"""Keys of the ``train`` section that this arm reads; the others change nothing in it."""


class Supervised:
    """Trains on random frames of the training half; see `Arm`.

    Parameters
    ----------
    config : TrainParams
    dataset : Dataset
        The training half, whose object is the truth.
    device : torch.device
    """

    name = "supervise"

    def __init__(self, config: TrainParams, dataset: Dataset, device: torch.device) -> None:
        self.settings: dict[str, Any] = config.model_dump(include=SETTINGS)
        self._frames_per_step = config.frames_per_step
        self._truth = torch.from_numpy(dataset.obj).to(device)
        training, held_back = split_frames(dataset.positions_px, config.validation_fraction)
        dataset = replace(dataset, groups=None)
        self._training = select_frames(dataset, training)
        self._held_back = select_frames(dataset, held_back)
        self._region = _region(self._held_back)
        self._info = SupervisedInfo(
            width=WIDTH,
            frame_side_px=dataset.amplitude.shape[-1],
            support_side_px=support_side_px(torch.from_numpy(dataset.probe), SUPPORT_POWER),
            photons_per_frame=mean_photons_per_frame(self._training),
            training={},
            record=dataset.record,
        )
        network = build_supervised(self._info, torch_seed(config.seed, "supervise", "weights"))
        network.mean_frame.copy_(torch.from_numpy(scaled(self._info, mean_amplitude(self._training))))
        self.network: nn.Module = network

    def start_epoch(self, epoch: int) -> None:
        """Do nothing: the frames are the same in every epoch."""

    def loss(self, network: nn.Module, rng: np.random.Generator) -> Tensor:
        """Return the mean error of random frames."""
        available = len(self._training.amplitude)
        chosen = rng.choice(available, min(self._frames_per_step, available), replace=False)
        return self._errors(network, select_frames(self._training, chosen)).mean()

    def validate(self, network: nn.Module) -> Metrics:
        """Return the mean error of the frames held back, and the scores of their image."""
        network.eval()
        frames = np.arange(len(self._held_back.amplitude))
        batches = [frames[first : first + FRAMES_PER_BATCH] for first in frames[::FRAMES_PER_BATCH]]
        with torch.no_grad():
            errors = [self._errors(network, select_frames(self._held_back, batch)) for batch in batches]
        image = supervised_image(network, self._info, self._held_back)
        network.train()
        loss = float(torch.cat(errors).mean())
        return {"val/loss": loss, **strip_scores(self._held_back.obj, image, self._region)}

    def save(self, path: Path, training: dict[str, Any]) -> None:
        """Write the network's bundle."""
        save_bundle(path, self.network, replace(self._info, training=training))

    def _errors(self, network: nn.Module, frames: Dataset) -> Tensor:
        model = support_model(self._info, frames, self._truth.device)
        truth = model.patches(self._truth, slice(0, model.frames))
        found = predict_patches(network, self._info, frames.amplitude[:])
        return patch_errors(found, truth, model.probe[0].abs().square())


def patch_errors(
    found: Float[Tensor, "frame 2 y x"],
    truth: Complex[Tensor, "frame y x"],
    illumination: Float[Tensor, "y x"],
) -> Float[Tensor, " frame"]:
    """Return the mean absolute error of amplitude plus that of phase, of each frame.

    Pixels count by the light that falls on them. Phases are compared as they are, in
    (-pi, pi], without regard to turns.

    Parameters
    ----------
    found : (frame, 2, y, x) float
        Amplitude, and phase in radians.
    truth : (frame, y, x) complex
    illumination : (y, x) float, any unit
    """
    errors = (found - torch.stack((truth.abs(), truth.angle()), dim=1)).abs().sum(dim=1)
    return (errors * (illumination / illumination.sum())).sum(dim=(-2, -1))


def _region(dataset: Dataset) -> Region:
    rows, columns = dataset.obj.shape
    illumination = fluence_map(dataset.probe, dataset.positions_px, (rows, columns))
    return scan_region(illumination, dataset.positions_px, REGION_THRESHOLD)
