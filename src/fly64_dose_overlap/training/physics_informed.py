"""The physics-informed arm: a corrector of mosaics, trained without ground truth."""

from __future__ import annotations

import math
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fly64_dose_overlap.config import TrainParams
from fly64_dose_overlap.data.contract import Dataset
from fly64_dose_overlap.networks.bundle import BundleInfo, save_bundle
from fly64_dose_overlap.networks.corrector import build_corrector
from fly64_dose_overlap.networks.mosaic import load_scan
from fly64_dose_overlap.seeding import generator, torch_seed
from fly64_dose_overlap.training.arm import Metrics, mean_photons_per_frame
from fly64_dose_overlap.training.examples import CropSampler, Realisation, realise
from fly64_dose_overlap.training.validation import Validation, loss_of, split_frames

KEPT_EPOCHS = 4
"""Epochs whose realisation stays in use."""


class PhysicsInformed:
    """Trains on mosaics of thinned counts; see `Arm`.

    Parameters
    ----------
    config : TrainParams
    dataset : Dataset
        The training half, with groups.
    device : torch.device
    """

    name = "train"

    def __init__(self, config: TrainParams, dataset: Dataset, device: torch.device) -> None:
        self.settings = config.model_dump()
        self._config = config
        self._dataset = dataset
        self._scan = load_scan(dataset, device)
        training, held_back = split_frames(dataset.positions_px, config.validation_fraction)
        self._sampler = CropSampler(self._scan, training, config.crop_px, config.frames_per_step)
        self._validation = Validation(dataset, self._scan, held_back, config)
        self._kept: deque[Realisation] = deque(maxlen=KEPT_EPOCHS)
        self.network: nn.Module = build_corrector(config.width, torch_seed(config.seed, "train", "weights"))

    def start_epoch(self, epoch: int) -> None:
        """Thin the scan for this epoch and, after an interruption, for those before."""
        first = epoch if self._kept else max(0, epoch - KEPT_EPOCHS + 1)
        for number in range(first, epoch + 1):
            rng = generator(self._config.seed, "train", "thinning", number)
            label = f"thin and stitch for epoch {number + 1}"
            self._kept.append(
                realise(self._scan, self._config.target, self._config.start_iterations, rng, label)
            )

    def loss(self, network: nn.Module, rng: np.random.Generator) -> Tensor:
        """Return the loss of a random crop of a random realisation."""
        realisation = self._kept[int(rng.integers(len(self._kept)))]
        crop = self._sampler.draw(realisation, rng)
        return loss_of(self._config, crop.predict(network), crop.target)

    def validate(self, network: nn.Module) -> Metrics:
        """Return the loss and the scores of the strip that is held back."""
        return self._validation.measure(network)

    def save(self, path: Path, training: dict[str, Any]) -> None:
        """Write the corrector's bundle."""
        info = BundleInfo(
            width=self._config.width,
            start_iterations=self._config.start_iterations,
            frame_side_px=self._dataset.amplitude.shape[-1],
            support_side_px=self._scan.geometry.support_side,
            gridsize=math.isqrt(self._scan.groups.shape[1]),
            photons_per_frame=mean_photons_per_frame(self._dataset),
            training=training,
            record=self._dataset.record,
        )
        save_bundle(path, self.network, info)
