"""A network that reads the object straight from single far fields, taught by ground truth.

The principle of PtychoNN (Cherukara et al., Appl. Phys. Lett. 117, 044103, 2020): one
encoder, and two decoders for amplitude and phase of the object under the probe. No
physics and no position enters; overlapping predictions are averaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor, nn

from fly64_dose_overlap.config import Epochs
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.learning.bundle import ModelInfo, Width, load_bundle, save_bundle
from fly64_dose_overlap.learning.estimate import SUPPORT_POWER
from fly64_dose_overlap.learning.layers import ResidualBlock, build_seeded, set_to_zero
from fly64_dose_overlap.learning.trainer import TrainingSettings, device_of, split_frames, train
from fly64_dose_overlap.learning.training import Metrics
from fly64_dose_overlap.methods.base import Learned, Training
from fly64_dose_overlap.methods.state import State
from fly64_dose_overlap.physics.groups import support_side_px
from fly64_dose_overlap.physics.illumination import whole_and_rest
from fly64_dose_overlap.progress import track
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.seeding import torch_seed
from fly64_dose_overlap.timing import Timing

BUNDLE = "fly64-dose-overlap/supervised/3"
FOLD = 4
"""Pixels folded into channels along each axis: the largest convolutions run on N / 4."""
SCALES = (1, 2, 4)
"""Channels of each scale, in multiples of the network's width; each halves the image."""
FRAME_MULTIPLE_PX = FOLD * 2 ** (len(SCALES) - 1)
FRAMES_PER_BATCH = 64
FRAMES_PER_SUM = 1024


class Supervised(Learned):
    """Single frames in, the object under the probe out."""

    name = "supervised"
    label = "supervised"
    needs_truth = True

    class Settings(TrainingSettings):
        """Settings of the supervised network."""

        epochs: Epochs = 4
        width: Width = 16
        """Channels of the network's first scale."""

    def train(
        self, scan: Scan, training: Training, truth: NDArray[np.complex64] | None = None
    ) -> tuple[dict[str, Any], Timing]:
        """Train on frames of the scan and the truth under them; see `Learned`."""
        if truth is None:
            raise StudyError(self.label, "needs the true object", "leave the method out where there is none")
        task = SupervisedTask(self.settings, scan, truth, training)
        return train(task, self.settings, training)

    def load_model(self, bundle: Path) -> None:
        """Take up a trained model; see `Learned`."""
        self._network, self._info = load_bundle(
            bundle, BUNDLE, ModelInfo, lambda info: build_supervised(info, seed=0)
        )

    def run(self, scan: Scan, seed: int) -> Iterator[State]:
        """Yield the mean of what the network predicts for each frame; nothing is random."""
        network = self._network.to(device_of(self.settings))
        yield State(torch.from_numpy(supervised_image(network, self._info, scan)))


class SupervisedTask:
    """Trains on random frames of the scan and the truth under them, (y, x) complex64; see `Task`."""

    name = Supervised.name

    def __init__(
        self, settings: Supervised.Settings, scan: Scan, truth: NDArray[np.complex64], training: Training
    ) -> None:
        self._settings = settings
        self._monitor = training.monitor
        self._device = device_of(settings)
        self._truth = truth
        frames, self._held_back = split_frames(scan.positions_px, settings.validation_fraction)
        self._training, self._validation = scan.frames(frames), scan.frames(self._held_back)
        self._info = ModelInfo(
            width=settings.width,
            frame_side_px=scan.side,
            support_side_px=support_side_px(scan.probe, SUPPORT_POWER),
            photons_per_frame=self._training.photons_per_frame,
            training={},
            record=scan.record,
        )
        network = build_supervised(self._info, torch_seed(training.seed, self.name, "weights"))
        network.mean_frame.copy_(torch.from_numpy(scaled(self._info, mean_amplitude(self._training))))
        self.network: nn.Module = network

    def start_epoch(self, epoch: int) -> None:
        """Do nothing: the frames are the same in every epoch."""

    def loss(self, network: nn.Module, rng: np.random.Generator) -> Tensor:
        """Return the mean error of random frames."""
        available = len(self._training)
        chosen = rng.choice(available, min(self._settings.frames_per_step, available), replace=False)
        return self._errors(network, self._training, chosen).mean()

    @torch.no_grad()
    def validate(self, network: nn.Module) -> Metrics:
        """Return the mean error of the frames held back, and what the monitor says of their image."""
        frames = torch.arange(len(self._validation)).split(FRAMES_PER_BATCH)
        errors = [self._errors(network, self._validation, batch.numpy()) for batch in frames]
        metrics = {"val/loss": float(torch.cat(errors).mean())}
        if self._monitor:
            image = supervised_image(network, self._info, self._validation)
            metrics |= self._monitor(image, self._held_back)
        return metrics

    def save(self, path: Path, outcome: dict[str, Any]) -> None:
        """Write the network's bundle."""
        training = {**self._settings.model_dump(), **outcome}
        save_bundle(path, self.network, replace(self._info, training=training), BUNDLE)

    def _errors(self, network: nn.Module, scan: Scan, frames: NDArray[np.int64]) -> Tensor:
        side = self._info.support_side_px
        corners = whole_and_rest(scan.positions_px[frames], side)[0]
        windows = np.stack([self._truth[y : y + side, x : x + side] for y, x in corners.tolist()])
        found = predict_patches(network, self._info, scan.counts[frames])
        truth = torch.from_numpy(windows).to(self._device)
        return patch_errors(found, truth, _light(self._info, scan).to(self._device))


class Decoder(nn.Module):
    """Map the coarsest scale to an image; zero before training."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        finer = widths[-2::-1]
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairwise([widths[-1], *finer])
        )
        self.blocks = nn.ModuleList(ResidualBlock(w) for w in finer)
        self.head = nn.Conv2d(widths[0], FOLD**2, 3, padding=1)
        self.unfold = nn.PixelShuffle(FOLD)
        set_to_zero(self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channel, y, x) to (batch, 1, y', x')."""
        for up, block in zip(self.ups, self.blocks, strict=True):
            x = block(up(F.silu(x)))
        return self.unfold(self.head(F.silu(x)))


class SupervisedNetwork(nn.Module):
    """Map far-field amplitudes to amplitude and phase of the object under the probe.

    Nothing passes from encoder to decoders but the coarsest scale, since pixels of a far
    field and of the object have no place in common; a dense layer there lets every pixel
    of the one reach every pixel of the other. The mean far field is taken off first: it
    hides the small differences that tell the object. An untrained network predicts the
    empty object. The first scale has ``width`` channels; patches are ``support_side`` pixels wide.
    """

    def __init__(self, width: int, frame_side: int, support_side: int) -> None:
        super().__init__()
        widths = [width * scale for scale in SCALES]
        self.support_side = support_side
        # Mean input of the frames trained on; a buffer, so that the bundle holds it.
        self.mean_frame: Tensor = nn.Buffer(torch.zeros(frame_side, frame_side))
        padding = -frame_side % FRAME_MULTIPLE_PX
        before = padding // 2
        self.margins = (before, padding - before) * 2
        self.edge = before + (frame_side - support_side) // 2
        coarsest = (frame_side + padding) // FRAME_MULTIPLE_PX
        self.fold = nn.PixelUnshuffle(FOLD)
        self.stem = nn.Conv2d(FOLD**2, width, 3, padding=1)
        self.encoders = nn.ModuleList(ResidualBlock(w) for w in widths)
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.dense = nn.Linear(widths[-1] * coarsest**2, widths[-1] * coarsest**2)
        self.amplitude = Decoder(widths)
        self.phase = Decoder(widths)

    def forward(self, frames: Tensor) -> Tensor:
        """Map (batch, 1, N, N) to (batch, 2, side, side): amplitude and phase in radians."""
        x = self.stem(self.fold(F.pad(frames - self.mean_frame, self.margins)))
        x = self.encoders[0](x)
        for down, encode in zip(self.downs, self.encoders[1:], strict=True):
            x = encode(down(F.silu(x)))
        x = x + self.dense(F.silu(x).flatten(1)).view_as(x)
        patches = torch.cat((1 + self.amplitude(x), self.phase(x)), dim=1)
        inside = slice(self.edge, self.edge + self.support_side)
        return patches[..., inside, inside]


def build_supervised(info: ModelInfo, seed: int) -> SupervisedNetwork:
    """Return a network with weights drawn from ``seed``; the global generator is restored."""
    return build_seeded(lambda: SupervisedNetwork(info.width, info.frame_side_px, info.support_side_px), seed)


def predict_patches(network: nn.Module, info: ModelInfo, counts: NDArray[np.float32]) -> Tensor:
    """Return amplitude and phase of the object in the probe's support, (frame, 2, side, side).

    The network maps (frame, 1, N, N) to it; counts are (frame, N, N) photons as `Scan` has them.
    """
    device = next(network.parameters()).device
    frames = torch.from_numpy(scaled(info, np.sqrt(counts))).to(device)[:, None]
    return network(frames.contiguous(memory_format=torch.channels_last)).float()


def scaled(info: ModelInfo, amplitude: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide amplitudes by the square root of the training frames' mean photons per pixel."""
    return amplitude * np.float32(info.frame_side_px / info.photons_per_frame**0.5)


def mean_amplitude(scan: Scan) -> NDArray[np.float32]:
    """Return the mean square root of the counts of a scan, (y, x)."""
    total = np.zeros((scan.side, scan.side))
    for first in range(0, len(scan), FRAMES_PER_SUM):
        total += np.sqrt(scan.counts[first : first + FRAMES_PER_SUM], dtype=np.float64).sum(axis=0)
    return (total / len(scan)).astype(np.float32)


def _light(info: ModelInfo, scan: Scan) -> Float[Tensor, "y x"]:
    """Return the photons that fall on each pixel of the predicted square."""
    margin = (scan.side - info.support_side_px) // 2
    inside = slice(margin, margin + info.support_side_px)
    return torch.from_numpy((np.abs(scan.probe[:, inside, inside]) ** 2).sum(axis=0))


def patch_errors(
    found: Float[Tensor, "frame 2 y x"],
    truth: Complex[Tensor, "frame y x"],
    illumination: Float[Tensor, "y x"],
) -> Float[Tensor, " frame"]:
    """Return the mean absolute error of amplitude plus that of phase, of each frame.

    ``found`` are amplitudes, and phases in radians. Pixels count by the light that falls on them,
    in any unit. Phases are compared as they are, in (-pi, pi], without regard to turns.
    """
    errors = (found - torch.stack((truth.abs(), truth.angle()), dim=1)).abs().sum(dim=1)
    return (errors * (illumination / illumination.sum())).sum(dim=(-2, -1))


@torch.no_grad()
def supervised_image(network: nn.Module, info: ModelInfo, scan: Scan) -> NDArray[np.complex64]:
    """Predict every frame of a scan and average what overlaps, (y, x) complex64.

    Predictions count by the probe's intensity. Their phases are absolute, so that none
    is shifted to fit another. The image is one where no photon falls. A network that was
    trained for frames of another side is refused.
    """
    if scan.side != info.frame_side_px:
        problem = f"frames are {scan.side} px wide, it was trained on {info.frame_side_px} px"
        raise StudyError("supervised network", problem)
    light, side = _light(info, scan).numpy(), info.support_side_px
    corners = whole_and_rest(scan.positions_px, side)[0].tolist()
    total = np.zeros(scan.object_shape, np.complex64)
    weight = np.zeros(scan.object_shape, np.float32)
    firsts = range(0, len(scan), FRAMES_PER_BATCH)
    for first in track(firsts, total=len(scan), label="predict frames", step=FRAMES_PER_BATCH):
        counts = scan.counts[first : first + FRAMES_PER_BATCH]
        amplitude, phase = predict_patches(network, info, counts).cpu().unbind(dim=1)
        patches = torch.polar(amplitude, phase).numpy() * light
        for (top, left), patch in zip(corners[first : first + FRAMES_PER_BATCH], patches, strict=True):
            here = np.s_[top : top + side, left : left + side]
            total[here] += patch
            weight[here] += light
    image = np.ones_like(total)
    np.divide(total, weight, out=image, where=weight > 0)
    return image
