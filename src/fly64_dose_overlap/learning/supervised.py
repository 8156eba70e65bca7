"""A network that reads the object straight from single far fields, taught by ground truth.

The principle of PtychoNN (Cherukara et al., Appl. Phys. Lett. 117, 044103, 2020): one
encoder, and two decoders for amplitude and phase of the object under the probe. No
physics and no position enters; overlapping predictions are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from fly64_dose_overlap.config import FrameSide, Width
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import Dataset
from fly64_dose_overlap.learning.corrector import Complex64
from fly64_dose_overlap.learning.layers import ResidualBlock, build_seeded, set_to_zero
from fly64_dose_overlap.physics.scan import ScanModel
from fly64_dose_overlap.progress import track
from fly64_dose_overlap.provenance import Record

FOLD = 4
"""Pixels folded into channels along each axis: the largest convolutions run on N / 4."""
SCALES = (1, 2, 4)
"""Channels of each scale, in multiples of the network's width; each halves the image."""
FRAME_MULTIPLE_PX = FOLD * 2 ** (len(SCALES) - 1)
FRAMES_PER_BATCH = 64

SupportSide = Annotated[int, Field(ge=4, le=1024)]
Photons = Annotated[float, Field(gt=0, le=1e15)]


@dataclass(frozen=True)
class SupervisedInfo:
    """What the weights belong to.

    Attributes
    ----------
    width : int
        Channels of the network's first scale.
    frame_side_px, support_side_px : int
        N, and the side of the centred square in which the object is predicted.
    photons_per_frame : float
        Mean measured dose of the frames trained on; scales the input, of test frames too.
    training : dict
        The parameters of training and its outcome.
    record : dict
        Provenance of the training data.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    width: Width
    frame_side_px: FrameSide
    support_side_px: SupportSide
    photons_per_frame: Photons
    training: dict[str, Any]
    record: Record


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
    empty object.

    Parameters
    ----------
    width : int
        Channels of the first scale.
    frame_side, support_side : int, pixels
        N, and the side of the predicted patches.

    Attributes
    ----------
    mean_frame : (N, N) float32
        Mean input of the frames trained on; a buffer, so that the bundle holds it.
    """

    def __init__(self, width: int, frame_side: int, support_side: int) -> None:
        super().__init__()
        widths = [width * scale for scale in SCALES]
        self.support_side = support_side
        self.mean_frame: Tensor = nn.Buffer(torch.zeros(frame_side, frame_side))
        self.margin = -frame_side % FRAME_MULTIPLE_PX // 2
        coarsest = (frame_side + 2 * self.margin) // FRAME_MULTIPLE_PX
        self.fold = nn.PixelUnshuffle(FOLD)
        self.stem = nn.Conv2d(FOLD**2, width, 3, padding=1)
        self.encoders = nn.ModuleList(ResidualBlock(w) for w in widths)
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.dense = nn.Linear(widths[-1] * coarsest**2, widths[-1] * coarsest**2)
        self.amplitude = Decoder(widths)
        self.phase = Decoder(widths)

    def forward(self, frames: Tensor) -> Tensor:
        """Map (batch, 1, N, N) to (batch, 2, side, side): amplitude and phase in radians."""
        x = self.stem(self.fold(F.pad(frames - self.mean_frame, (self.margin,) * 4)))
        x = self.encoders[0](x)
        for down, encode in zip(self.downs, self.encoders[1:], strict=True):
            x = encode(down(F.silu(x)))
        x = x + self.dense(F.silu(x).flatten(1)).view_as(x)
        patches = torch.cat((1 + self.amplitude(x), self.phase(x)), dim=1)
        edge = (patches.shape[-1] - self.support_side) // 2
        inside = slice(edge, edge + self.support_side)
        return patches[..., inside, inside]


def build_supervised(info: SupervisedInfo, seed: int) -> SupervisedNetwork:
    """Return a network with weights drawn from ``seed``; the global generator is restored."""
    return build_seeded(lambda: SupervisedNetwork(info.width, info.frame_side_px, info.support_side_px), seed)


def predict_patches(network: nn.Module, info: SupervisedInfo, amplitude: NDArray[np.float32]) -> Tensor:
    """Return amplitude and phase of the object in the probe's support, (frame, 2, side, side).

    Parameters
    ----------
    network : module
        Maps (frame, 1, N, N) to the result.
    info : SupervisedInfo
    amplitude : (frame, N, N) float32, sqrt(photons)
        Zero frequency at [N/2, N/2].
    """
    device = next(network.parameters()).device
    frames = torch.from_numpy(scaled(info, amplitude)).to(device)[:, None]
    return network(frames.contiguous(memory_format=torch.channels_last)).float()


def scaled(info: SupervisedInfo, amplitude: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide amplitudes by the square root of the training frames' mean photons per pixel."""
    return amplitude * np.float32(info.frame_side_px / info.photons_per_frame**0.5)


def support_model(info: SupervisedInfo, dataset: Dataset, device: torch.device) -> ScanModel:
    """Return the scan of the probe's support alone, which cuts patches and puts them back."""
    margin = (info.frame_side_px - info.support_side_px) // 2
    inside = slice(margin, margin + info.support_side_px)
    probe = torch.from_numpy(dataset.probe[inside, inside].copy()).to(device)
    rows, columns = dataset.obj.shape
    return ScanModel(probe[None], dataset.positions_px, (rows, columns))


@torch.no_grad()
def supervised_image(network: nn.Module, info: SupervisedInfo, dataset: Dataset) -> Complex64:
    """Predict every frame of a dataset and average what overlaps.

    Predictions count by the probe's intensity. Their phases are absolute, so that none
    is shifted to fit another.

    Parameters
    ----------
    network, info
        From `load_supervised`.
    dataset : Dataset
        Its object gives the size of the grid only.

    Returns
    -------
    (y, x) complex64
        One where no photon falls.

    Raises
    ------
    StudyError
        If the network was trained for frames of another side.
    """
    side = dataset.amplitude.shape[-1]
    if side != info.frame_side_px:
        raise StudyError(
            "supervised network", f"frames are {side} px wide, it was trained on {info.frame_side_px} px"
        )
    device = next(network.parameters()).device
    model = support_model(info, dataset, device)
    weight = model.probe[0].abs().square()
    total = model.blank(torch.complex64)
    batches = model.batches(FRAMES_PER_BATCH)
    label = "predict frames"
    for frames in track(batches, total=model.frames, label=label, step=FRAMES_PER_BATCH):
        amplitude, phase = predict_patches(network, info, dataset.amplitude[frames]).unbind(dim=1)
        model.place(torch.polar(amplitude, phase) * weight, frames, total)
    illumination = model.illumination()
    lit = illumination > 0
    image = torch.ones_like(total[:-1, :-1])
    image[lit] = total[:-1, :-1][lit] / illumination[lit]
    return image.cpu().numpy()
