"""Networks that correct a classical estimate of the object, trained without ground truth."""

from __future__ import annotations

import json
import math
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor, nn

from fly64_dose_overlap.config import first_problem
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.learning import examples
from fly64_dose_overlap.learning.bundle import ModelInfo, Width, load_bundle, save_bundle, unreadable
from fly64_dose_overlap.learning.corrector import Corrector, build_corrector, correct_image, input_planes
from fly64_dose_overlap.learning.estimate import Estimate, Start, grouped_scan
from fly64_dose_overlap.learning.trainer import TrainingSettings, device_of, split_frames
from fly64_dose_overlap.learning.training import Metrics, Training
from fly64_dose_overlap.physics.likelihood import amplitude_error, poisson_deviance
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.seeding import generator, torch_seed

KEPT_REALISATIONS = 16
"""Realisations that stay in use."""
GOLDEN_RATIO = 0.6180339887498949
"""Multiples of it, modulo one, fill an interval evenly however many there are."""
VALIDATION_CROPS = 24

CoarsePhotons = Annotated[float, Field(gt=0, le=10**6)]


class CorrectorSettings(TrainingSettings):
    """Settings of a network that corrects an estimate."""

    loss: Literal["poisson", "mae"] = "poisson"
    target: examples.Target = "thinned"
    """Score on counts that the network did not see (``thinned``) or on its own input (``same``)."""
    least_seen: Annotated[float, Field(gt=0, le=0.6)] = 0.4
    """Least part of the photons that the network sees in training, up to 0.6; small ones
    train it for lower doses too."""
    width: Width = 32
    """Channels of the network's first scale."""
    crop_px: Annotated[int, Field(ge=16, le=4096)] = 128
    """Side of the square of the object that a training step corrects."""


@dataclass(frozen=True)
class CorrectorInfo(ModelInfo):
    """What the weights of a corrector belong to; see `ModelInfo`."""

    coarse_photons: CoarsePhotons | None
    """Photons per pixel where half is left of the coarse correction of the phase, None: all everywhere."""
    gridsize: Annotated[int, Field(ge=1, le=2)]
    """Side of the groups."""
    start: dict[str, Any]
    """Settings of the estimate that is corrected."""


def bundle_name(method: str) -> str:
    """Return the name under which a corrector's bundle is saved."""
    return f"fly64-dose-overlap/{method}/7"


def load_corrector(
    path: Path, method: str, start_type: type[Start]
) -> tuple[Corrector, CorrectorInfo, Start]:
    """Read a corrector's bundle, and return also what makes its estimates; see `load_bundle`."""
    network, info = load_bundle(
        path, bundle_name(method), CorrectorInfo, lambda found: build_corrector(found.width, seed=0)
    )
    try:
        start = TypeAdapter(start_type).validate_json(json.dumps(info.start))
    except ValidationError as error:
        raise unreadable(path, f"start.{first_problem(error)}") from None
    return network, info, start


class Imager:
    """A network and the scan that it makes images of; a network for other frames or groups is refused."""

    def __init__(
        self, scan: Scan, network: Corrector, info: CorrectorInfo, start: Start, settings: TrainingSettings
    ) -> None:
        if scan.side != info.frame_side_px:
            trained = f"the network was trained on {info.frame_side_px} px"
            raise StudyError("scan", f"frames are {scan.side} px wide, {trained}")
        found = 0 if scan.groups is None else scan.groups.shape[1]
        if found != info.gridsize**2:
            trained = f"the network was trained on groups of {info.gridsize**2}"
            raise StudyError("scan", f"has groups of {found} frames, {trained}", "train on this view")
        self._grouped = grouped_scan(scan, device_of(settings), info.support_side_px)
        self._network = network.to(self._grouped.device).eval()
        self._start = start
        self._coarse_photons = info.coarse_photons

    def estimate(self, scan: Scan, fraction: float = 1.0) -> Estimate:
        """Return what the network corrects, from a part of the photons of the scan."""
        return self._start(self._grouped, scan.counts, fraction=fraction, label="classical iterations")

    def image(self, estimate: Estimate) -> Tensor:
        """Return the corrected image, (y, x) complex64."""
        planes = input_planes(estimate).to(self._grouped.device)
        return torch.from_numpy(correct_image(self._network, planes, self._coarse_photons))


class CorrectionTask:
    """A corrector trained on thinned counts; see `Task`.

    While the network learns from some realisations, another thread makes the next one. The name
    of the method names the random streams and the bundle too; for ``coarse_photons`` see `correct`.
    """

    def __init__(
        self,
        name: str,
        settings: CorrectorSettings,
        scan: Scan,
        start: Start,
        training: Training,
        coarse_photons: float | None = None,
    ) -> None:
        self.name = name
        self._settings = settings
        self._seed = seed = training.seed
        self._start = start
        self._coarse_photons = coarse_photons
        self._grouped = grouped_scan(scan, device_of(settings))
        frames, self._held_back = split_frames(scan.positions_px, settings.validation_fraction)
        size = settings.crop_px, settings.frames_per_step
        self._sampler = examples.CropSampler(self._grouped, frames, *size)
        self._first_fraction = generator(seed, name, "fractions").uniform()
        self._first_count = examples.first_realisations(settings.least_seen)
        self._first: dict[int, examples.Realisation] = {}
        self._first = {number: self._realise(number) for number in range(self._first_count)}
        self._monitor = training.monitor
        # Fixed crops of the strip that is held back; training may not score its frames.
        held_back = examples.CropSampler(self._grouped, self._held_back, *size)
        rng, made = generator(seed, name, "validation"), cycle(self._first.values())
        self._validation_crops = [held_back.draw(each, rng) for each in islice(made, VALIDATION_CROPS)]
        self._planes = self._first[0].planes
        self._kept: deque[examples.Realisation] = deque(maxlen=KEPT_REALISATIONS)
        self._maker = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
        self._next: Future[examples.Realisation] | None = None
        self.network: nn.Module = build_corrector(settings.width, torch_seed(seed, name, "weights"))

    def start_epoch(self, epoch: int) -> None:
        """Thin the scan for this epoch and, after an interruption, for those before."""
        newest = self._first_count - 1 + epoch
        if self._next is None:
            earlier = range(max(0, newest + 1 - KEPT_REALISATIONS), newest)
            self._kept.extend(self._realise(number) for number in earlier)
            self._next = self._maker.submit(self._realise, newest)
        self._kept.append(self._next.result())
        if epoch + 1 < self._settings.epochs:
            self._next = self._maker.submit(self._realise, newest + 1)

    def _realise(self, number: int) -> examples.Realisation:
        """Hand over one of the first, which validation was made from, or make another."""
        if made := self._first.pop(number, None):
            return made
        settings = self._settings
        rng = generator(self._seed, self.name, "thinning", number)
        fraction = examples.seen_fraction(settings.least_seen, self._first_fraction + number * GOLDEN_RATIO)
        label = f"start of realisation {number + 1}"
        return examples.realise(self._grouped, settings.target, self._start, fraction, rng, label)

    def _score(self, network: nn.Module, crop: examples.Crop) -> Tensor:
        loss = poisson_deviance if self._settings.loss == "poisson" else amplitude_error
        return loss(crop.predict(network, self._coarse_photons), crop.target)

    def loss(self, network: nn.Module, rng: np.random.Generator) -> Tensor:
        """Return the loss of a random crop of a random realisation."""
        realisation = self._kept[int(rng.integers(len(self._kept)))]
        return self._score(network, self._sampler.draw(realisation, rng))

    @torch.no_grad()
    def validate(self, network: nn.Module) -> Metrics:
        """Return the loss of the strip that is held back, and what the monitor says of it."""
        losses = [float(self._score(network, crop)) for crop in self._validation_crops]
        metrics = {"val/loss": float(np.mean(losses))}
        if self._monitor:
            image = correct_image(network, self._planes, self._coarse_photons)
            metrics |= self._monitor(image, self._held_back)
        return metrics

    def save(self, path: Path, outcome: dict[str, Any]) -> None:
        """Write the corrector's bundle."""
        scan = self._grouped.scan
        info = CorrectorInfo(
            width=self._settings.width,
            coarse_photons=self._coarse_photons,
            frame_side_px=scan.side,
            support_side_px=self._grouped.geometry.support_side,
            gridsize=math.isqrt(self._grouped.groups.shape[1]),
            photons_per_frame=scan.photons_per_frame,
            start=asdict(self._start),
            training={**self._settings.model_dump(), **outcome},
            record=scan.record,
        )
        save_bundle(path, self.network, info, bundle_name(self.name))
