"""A small U-Net that weighs and corrects a classical estimate of the object."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fly64_dose_overlap.learning.estimate import Estimate
from fly64_dose_overlap.learning.layers import ResidualBlock, build_seeded, set_to_zero
from fly64_dose_overlap.physics.start import WEAK_ILLUMINATION

INPUT_PLANES = 6
BAND_EDGES_PX = (2, 8)
"""Pixels averaged between the bands of detail that `correct` weighs."""
CORRECTION_PLANES = 2
OUTPUT_PLANES = CORRECTION_PLANES + len(BAND_EDGES_PX)
FLUENCE_DECADES = 4.0
"""Decades of photons per pixel that the fluence plane maps onto 0..1."""
COARSE_PX = {32: 1, 16: 10, 8: 100}
"""Pixels averaged to the coarse parts of a correction of the phase, each with its factor on
``coarse_photons``: the finer detail is, the more photons it takes to know it better without."""
SCALES = (1, 2, 4)
"""Channels of each scale, in multiples of the network's width; each halves the image."""
CANVAS_MULTIPLE_PX = 2 ** len(SCALES)
TILE_PX = 512
TILE_MARGIN_PX = 64
COARSE_MARGIN_PX = 2 * max(COARSE_PX)
"""How much further the coarse part looks. Tiles begin at multiples of its squares too."""

Complex64 = NDArray[np.complex64]


class Corrector(nn.Module):
    """Map the planes of an estimate to a correction of it and weights of its detail.

    The first convolution works on 2 x 2 pixels folded into channels: at half the
    resolution a convolution costs a quarter, and nothing is lost, since the fold can be
    undone. An untrained network changes nothing, so training starts from the classical
    result. The first scale has ``width`` channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width * scale for scale in SCALES]
        self.fold = nn.PixelUnshuffle(2)
        self.stem = nn.Conv2d(4 * INPUT_PLANES, width, 3, padding=1)
        self.encoders = nn.ModuleList(ResidualBlock(w) for w in widths)
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(widths))
        self.decoders = nn.ModuleList(ResidualBlock(w) for w in widths)
        self.head = nn.Conv2d(width, 4 * OUTPUT_PLANES, 3, padding=1)
        self.unfold = nn.PixelShuffle(2)
        set_to_zero(self.head)

    def forward(self, planes: Tensor) -> Tensor:
        """Map (batch, 6, y, x) to (batch, 4, y, x), as `correct` reads them; y and x are multiples of 8."""
        x = self.stem(self.fold(planes))
        skips: list[Tensor] = []
        for level, encode in enumerate(self.encoders):
            x = encode(x)
            if level < len(self.downs):
                skips.append(x)
                x = self.downs[level](x)
        for level in reversed(range(len(self.decoders))):
            x = self.decoders[level](x)
            if level > 0:
                x = self.ups[level - 1](x) + skips[level - 1]
        return self.unfold(self.head(x))


def build_corrector(width: int, seed: int) -> Corrector:
    """Return a network with weights drawn from ``seed``; the global generator is restored."""
    return build_seeded(lambda: Corrector(width), seed)


def input_planes(estimate: Estimate) -> Tensor:
    """Stack what the network sees of the object, (6, y, x) float32.

    Real and imaginary part of early - 1 and of late - 1; the fluence over its
    maximum; log10(1 + photons per pixel) over four decades, which carries the dose.
    """
    images = [part for image in (estimate.early - 1, estimate.late - 1) for part in (image.real, image.imag)]
    fluence = estimate.fluence
    images += [fluence / fluence.max(), np.log10(1 + fluence) / FLUENCE_DECADES]
    return torch.from_numpy(np.stack(images).astype(np.float32))


def correct(network: nn.Module, planes: Tensor, coarse_photons: float | None) -> Tensor:
    """Return the corrected object, (batch, 2, y, x) float32 real and imaginary planes.

    The late image in bands of detail, each but the coarsest times a gain, and a correction.
    What a Wiener filter does, less of a band where it is mostly noise, would otherwise have
    to be learned as a correction that cancels the noise pixel by pixel. Detail of more than
    8 pixels keeps its size: of its phase, frames tell so little that the likelihood would
    hardly stop a network from spoiling it. The correction fades out where hardly a photon
    falls, so that the object stays empty there.

    A training learns some of the slow phase of its own scan by heart. Where photons are many,
    joint iterations have that right by themselves, so that the coarse part of what a correction
    does to the phase may be made to fade there.

    Parameters
    ----------
    network : module
        Maps (batch, 6, y, x) to (batch, 4, y, x): two planes of correction, then one for each
        band, finer than 2 pixels and than 8, of which the gain is twice the logistic function.
    planes : (batch, 6, y, x) float32
        From `input_planes`; y and x are multiples of 8.
    coarse_photons : float or None, photons per pixel
        Where half is left of what the correction does to the phase over `COARSE_PX`, times the
        factor that stands there; None: all of it everywhere.
    """
    empty = torch.tensor([1.0, 0.0], device=planes.device)[:, None, None]
    lit = planes[:, 4:5]
    output = network(planes.contiguous(memory_format=torch.channels_last)).float()
    correction, *gains = output.split([CORRECTION_PLANES] + [1] * len(BAND_EDGES_PX), dim=1)
    correction = correction * (lit / (lit + WEAK_ILLUMINATION))
    if coarse_photons is not None:
        correction = correction - _coarse_phase(correction, planes, coarse_photons)
    corrected = empty + correction
    rest = planes[:, 2:4]
    for width, gain in zip(BAND_EDGES_PX, gains, strict=True):
        smooth = _smooth(rest, width)
        corrected = corrected + 2 * torch.sigmoid(gain) * (rest - smooth)
        rest = smooth
    return corrected + rest


def _coarse_phase(correction: Tensor, planes: Tensor, coarse_photons: float) -> Tensor:
    """Return the part of a correction, (batch, 2, y, x), that is to be taken off it; see `correct`."""
    photons = 10 ** (FLUENCE_DECADES * planes[:, 5:6]) - 1
    # The phase changes along i times the late image.
    turning = F.normalize(torch.stack([-planes[:, 3], 1 + planes[:, 2]], dim=1), dim=1)
    phase = (turning * correction).sum(dim=1, keepdim=True)
    part, coarser = torch.zeros_like(phase), torch.zeros_like(phase)
    for width, factor in COARSE_PX.items():
        coarse = _smooth(phase, width)
        part = part + (coarse - coarser) * (photons / (photons + factor * coarse_photons))
        coarser = coarse
    return turning * part


def _smooth(images: Tensor, width: int) -> Tensor:
    """Average (batch, plane, y, x) over squares of ``width`` pixels and interpolate between them.

    Squares are counted from the corner; those that hang over the far edges average what is there.
    """
    rows, columns = images.shape[-2:]
    means = F.avg_pool2d(images, width, ceil_mode=True, count_include_pad=False)
    return F.interpolate(means, scale_factor=width, mode="bilinear")[..., :rows, :columns]


def correct_image(network: nn.Module, planes: Tensor, coarse_photons: float | None) -> Complex64:
    """Return the corrected object as a (y, x) complex64 array, tile by tile.

    Tiles overlap by a margin wider than what the network looks at, and only their inner
    part is kept, so that memory does not grow with the object. For parameters see `correct`.
    """
    margin = TILE_MARGIN_PX if coarse_photons is None else TILE_MARGIN_PX + COARSE_MARGIN_PX
    rows, columns = planes.shape[1:]
    corrected = np.empty((rows, columns), np.complex64)
    for top in range(0, rows, TILE_PX):
        for left in range(0, columns, TILE_PX):
            y, x = _window(top, rows, margin), _window(left, columns, margin)
            window = planes[:, y, x]
            height, width = window.shape[1:]
            short = (0, -width % CANVAS_MULTIPLE_PX, 0, -height % CANVAS_MULTIPLE_PX)
            with torch.no_grad():
                tile = correct(network, F.pad(window, short)[None], coarse_photons)[0].cpu().numpy()
            bottom, right = min(top + TILE_PX, rows), min(left + TILE_PX, columns)
            inner = np.s_[top - y.start : bottom - y.start, left - x.start : right - x.start]
            corrected[top:bottom, left:right] = tile[0][inner] + 1j * tile[1][inner]
    return corrected


def _window(start: int, length: int, margin: int) -> slice:
    """Return the rows around a tile; tiles begin at multiples of the network's grid."""
    return slice(max(start - margin, 0), min(start + TILE_PX + margin, length))
