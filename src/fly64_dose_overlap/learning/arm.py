"""What one way of training, an arm of the study, brings to the trainer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fly64_dose_overlap.config import TrainParams
from fly64_dose_overlap.files.dataset import Dataset

Metrics = dict[str, float]

FRAMES_PER_BLOCK = 1024
"""Frames summed at once; sums of other blocks have other last digits."""


class Arm(Protocol):
    """A network with its examples, loss, validation and bundle.

    Attributes
    ----------
    name : str
        Verb in messages.
    settings : dict
        The parameters that this arm reads, JSON-able.
    network : module
        The network to train, on the processor; the trainer moves it.
    """

    name: str
    settings: dict[str, Any]
    network: nn.Module

    def start_epoch(self, epoch: int) -> None:
        """Prepare the examples of an epoch, counted from 0; after an interruption also earlier ones."""
        ...

    def loss(self, network: nn.Module, rng: np.random.Generator) -> Tensor:
        """Return the loss of one random step.

        Parameters
        ----------
        network : module
            ``self.network`` as the trainer wrapped it.
        rng : numpy.random.Generator
            Source of all that is random in the step.
        """
        ...

    def validate(self, network: nn.Module) -> Metrics:
        """Return ``val/loss``, which chooses the epoch that is kept, and metrics to log."""
        ...

    def save(self, path: Path, training: dict[str, Any]) -> None:
        """Write the bundle of ``self.network``; ``training`` is what became of the training."""
        ...


class ArmFactory(Protocol):
    """Makes an arm for one training."""

    def __call__(self, config: TrainParams, dataset: Dataset, device: torch.device) -> Arm:
        """Prepare training on a dataset."""
        ...


def mean_photons_per_frame(dataset: Dataset) -> float:
    """Return the measured dose of a dataset, photons per frame."""
    total = sum(float(np.square(block, dtype=np.float64).sum()) for block in _blocks(dataset))
    return total / len(dataset.amplitude)


def mean_amplitude(dataset: Dataset) -> NDArray[np.float32]:
    """Return the mean frame of a dataset, (y, x), sqrt(photons)."""
    total = np.zeros(dataset.amplitude.shape[1:])
    for block in _blocks(dataset):
        for frame in block:
            total += frame
    return (total / len(dataset.amplitude)).astype(np.float32)


def _blocks(dataset: Dataset) -> Iterator[NDArray[np.float32]]:
    for first in range(0, len(dataset.amplitude), FRAMES_PER_BLOCK):
        yield dataset.amplitude[first : first + FRAMES_PER_BLOCK]
