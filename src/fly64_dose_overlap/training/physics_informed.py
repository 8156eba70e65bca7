"""The physics-informed arms: correctors of classical estimates, trained without ground truth."""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fly64_dose_overlap.config import TrainParams
from fly64_dose_overlap.data.contract import Dataset
from fly64_dose_overlap.networks.bundle import BundleInfo, save_bundle
from fly64_dose_overlap.networks.corrector import build_corrector
from fly64_dose_overlap.networks.mosaic import GroupStart
from fly64_dose_overlap.networks.scan import Start, load_scan
from fly64_dose_overlap.reconstruction.joint import JointStart
from fly64_dose_overlap.seeding import generator, torch_seed
from fly64_dose_overlap.training.arm import Metrics, mean_photons_per_frame
from fly64_dose_overlap.training.examples import CropSampler, Realisation, realise
from fly64_dose_overlap.training.validation import Validation, loss_of, split_frames

KEPT_EPOCHS = 4
"""Epochs whose realisation stays in use."""


class PhysicsInformed:
    """Trains on estimates from thinned counts; see `Arm`.

    While the network learns from some realisations, another thread makes the next one.

    Parameters
    ----------
    config : TrainParams
    dataset : Dataset
        The training half, with groups.
    device : torch.device
    name : str
        Verb in messages.
    kind : "groups" or "joint"
        What the network corrects.
    """

    def __init__(
        self,
        config: TrainParams,
        dataset: Dataset,
        device: torch.device,
        *,
        name: str,
        kind: Literal["groups", "joint"],
    ) -> None:
        self.name = name
        foreign = {"joint_iterations", "joint_weight"} if kind == "groups" else {"start_iterations"}
        self.settings = config.model_dump(exclude=foreign)
        self._kind: Literal["groups", "joint"] = kind
        self._config = config
        self._dataset = dataset
        self._scan = load_scan(dataset, device)
        self._start: Start = (
            GroupStart(config.start_iterations)
            if kind == "groups"
            else JointStart(config.joint_iterations, config.joint_weight)
        )
        training, held_back = split_frames(dataset.positions_px, config.validation_fraction)
        self._sampler = CropSampler(self._scan, training, config.crop_px, config.frames_per_step)
        self._validation = Validation(dataset, self._scan, held_back, config, self._start)
        self._kept: deque[Realisation] = deque(maxlen=KEPT_EPOCHS)
        self._maker = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(config.threads,))
        self._next: Future[Realisation] | None = None
        self.network: nn.Module = build_corrector(config.width, torch_seed(config.seed, name, "weights"))

    def start_epoch(self, epoch: int) -> None:
        """Thin the scan for this epoch and, after an interruption, for those before."""
        if self._next is None:
            for number in range(max(0, epoch - KEPT_EPOCHS + 1), epoch):
                self._kept.append(self._realise(number))
            self._next = self._maker.submit(self._realise, epoch)
        self._kept.append(self._next.result())
        if epoch + 1 < self._config.epochs:
            self._next = self._maker.submit(self._realise, epoch + 1)

    def _realise(self, epoch: int) -> Realisation:
        rng = generator(self._config.seed, self.name, "thinning", epoch)
        return realise(self._scan, self._config.target, self._start, rng, f"start of epoch {epoch + 1}")

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
        config = self._config
        groups = self._kind == "groups"
        info = BundleInfo(
            width=config.width,
            start=self._kind,
            start_iterations=config.start_iterations if groups else config.joint_iterations,
            start_weight=0.0 if groups else config.joint_weight,
            frame_side_px=self._dataset.amplitude.shape[-1],
            support_side_px=self._scan.geometry.support_side,
            gridsize=math.isqrt(self._scan.groups.shape[1]),
            photons_per_frame=mean_photons_per_frame(self._dataset),
            training=training,
            record=self._dataset.record,
        )
        save_bundle(path, self.network, info)
