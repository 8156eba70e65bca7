"""The physics-informed arms: correctors of classical estimates, trained without ground truth."""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fly64_dose_overlap.config import TrainParams
from fly64_dose_overlap.files.dataset import Dataset
from fly64_dose_overlap.learning.arm import Metrics, mean_photons_per_frame
from fly64_dose_overlap.learning.bundle import BundleInfo, save_bundle
from fly64_dose_overlap.learning.corrector import build_corrector
from fly64_dose_overlap.learning.examples import (
    CropSampler,
    Realisation,
    first_realisations,
    realise,
    seen_fraction,
)
from fly64_dose_overlap.learning.mosaic import GroupStart
from fly64_dose_overlap.learning.scan import Start, load_scan
from fly64_dose_overlap.learning.validation import Validation, loss_of, split_frames
from fly64_dose_overlap.methods.joint import JointStart
from fly64_dose_overlap.seeding import generator, torch_seed

KEPT_REALISATIONS = 16
"""Realisations that stay in use."""
GOLDEN_RATIO = 0.6180339887498949
"""Multiples of it, modulo one, fill an interval evenly however many there are."""


class PhysicsInformed:
    """A corrector of the mosaic of groups, trained on thinned counts; see `Arm`.

    While the network learns from some realisations, another thread makes the next one.

    Parameters
    ----------
    config : TrainParams
    dataset : Dataset
        The training half, with groups.
    device : torch.device
    """

    name = "train"
    kind: ClassVar[Literal["groups", "joint"]] = "groups"
    foreign: ClassVar[frozenset[str]] = frozenset(
        {"joint_iterations", "joint_weight", "joint_coarse_photons", "joint_epochs", "supervised_epochs"}
    )
    """Settings that only other arms read."""

    def __init__(self, config: TrainParams, dataset: Dataset, device: torch.device) -> None:
        self.settings = config.model_dump(exclude=set(self.foreign))
        self._config = config
        self._dataset = dataset
        self._scan = load_scan(dataset, device)
        self._iterations, self._weight = self.start_settings(config)
        self._start = self.make_start()
        training, held_back = split_frames(dataset.positions_px, config.validation_fraction)
        self._sampler = CropSampler(self._scan, training, config.crop_px, config.frames_per_step)
        self._first_fraction = generator(config.seed, self.name, "fractions").uniform()
        self._first_count = first_realisations(config.least_seen)
        self._first = {number: self._realise(number) for number in range(self._first_count)}
        self._coarse_photons = self.coarse_photons(config)
        self._validation = Validation(
            dataset, self._scan, held_back, config, list(self._first.values()), self._coarse_photons
        )
        self._kept: deque[Realisation] = deque(maxlen=KEPT_REALISATIONS)
        self._maker = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(config.threads,))
        self._next: Future[Realisation] | None = None
        self.network: nn.Module = build_corrector(config.width, torch_seed(config.seed, self.name, "weights"))

    @staticmethod
    def start_settings(config: TrainParams) -> tuple[int, float]:
        """Return iterations and weight of the prior of the estimate that the network corrects."""
        return config.start_iterations, 0.0

    @staticmethod
    def coarse_photons(config: TrainParams) -> float | None:
        """Return where the coarse part of a correction fades; see `correct`."""
        return None

    def make_start(self) -> Start:
        """Return what makes that estimate."""
        return GroupStart(self._iterations)

    def start_epoch(self, epoch: int) -> None:
        """Thin the scan for this epoch and, after an interruption, for those before."""
        newest = self._first_count - 1 + epoch
        if self._next is None:
            earlier = range(max(0, newest + 1 - KEPT_REALISATIONS), newest)
            self._kept.extend(self._realisation(number) for number in earlier)
            self._next = self._maker.submit(self._realisation, newest)
        self._kept.append(self._next.result())
        if epoch + 1 < self._config.epochs:
            self._next = self._maker.submit(self._realise, newest + 1)

    def _realisation(self, number: int) -> Realisation:
        """Hand over one of the first, which validation was made from, or make another."""
        made = self._first.pop(number, None)
        return self._realise(number) if made is None else made

    def _realise(self, number: int) -> Realisation:
        config = self._config
        rng = generator(config.seed, self.name, "thinning", number)
        fraction = seen_fraction(config.least_seen, self._first_fraction + number * GOLDEN_RATIO)
        label = f"start of realisation {number + 1}"
        return realise(self._scan, config.target, self._start, fraction, rng, label)

    def loss(self, network: nn.Module, rng: np.random.Generator) -> Tensor:
        """Return the loss of a random crop of a random realisation."""
        realisation = self._kept[int(rng.integers(len(self._kept)))]
        crop = self._sampler.draw(realisation, rng)
        return loss_of(self._config, crop.predict(network, self._coarse_photons), crop.target)

    def validate(self, network: nn.Module) -> Metrics:
        """Return the loss and the scores of the strip that is held back."""
        return self._validation.measure(network)

    def save(self, path: Path, training: dict[str, Any]) -> None:
        """Write the corrector's bundle."""
        info = BundleInfo(
            width=self._config.width,
            start=self.kind,
            start_iterations=self._iterations,
            start_weight=self._weight,
            coarse_photons=self._coarse_photons,
            frame_side_px=self._dataset.amplitude.shape[-1],
            support_side_px=self._scan.geometry.support_side,
            gridsize=math.isqrt(self._scan.groups.shape[1]),
            photons_per_frame=mean_photons_per_frame(self._dataset),
            training=training,
            record=self._dataset.record,
        )
        save_bundle(path, self.network, info)


class Refiner(PhysicsInformed):
    """A corrector of a few joint iterations, trained in the same way."""

    name = "refine"
    kind = "joint"
    foreign = frozenset({"start_iterations", "epochs", "supervised_epochs"})

    @staticmethod
    def start_settings(config: TrainParams) -> tuple[int, float]:
        """Return iterations and weight of the prior; see `PhysicsInformed`."""
        return config.joint_iterations, config.joint_weight

    @staticmethod
    def coarse_photons(config: TrainParams) -> float | None:
        """Return where the coarse part of a correction fades; see `correct`."""
        return config.joint_coarse_photons

    def make_start(self) -> Start:
        """Return what makes the estimate."""
        return JointStart(self._iterations, self._weight)
