"""Poisson deviance of all frames of a scan and its gradient by object, probe, positions and flux.

A frame's own probe is the shared one in the frame's light, shifted by what its position leaves of a
whole pixel: a product in Fourier space. So one gradient by each frame's own probe gives those by all three.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.arrays import FrameArray
from fly64_dose_overlap.parallel import frame_parts, in_parts
from fly64_dose_overlap.physics import kernels
from fly64_dose_overlap.physics.model import FRAMES_PER_BATCH, ScanModel, centring
from fly64_dose_overlap.physics.propagation import intensity
from fly64_dose_overlap.physics.sweep import paired, total, window

DIM_PROBE = 0.05
"""Part of the largest curvature that is added to that of every pixel of the probe."""


@dataclass(frozen=True, eq=False)
class Unknowns:
    """What is looked for, or the gradient of a value by it.

    Attributes
    ----------
    obj : (y, x) complex64
    probe : (mode, y, x) complex64, sqrt(photons)
    shifts_px : (frame, 2) float64, object pixels
        Of each frame's probe along (y, x), from the whole position of its window.
    log_flux : (frame,) float64
        Logarithm of each frame's light, in that of the probe.
    """

    obj: Complex[Tensor, "h w"]
    probe: Complex[Tensor, "mode y x"]
    shifts_px: Float[NDArray[np.float64], "frame 2"]
    log_flux: Float[NDArray[np.float64], " frame"]


def joint_likelihood(
    model: ScanModel, counts: FrameArray, at: Unknowns, background: float
) -> tuple[float, Unknowns]:
    """Return half the Poisson deviance of all frames, as `scan_likelihood` does, and its gradients.

    Parameters
    ----------
    model : ScanModel
        On the processor; of it the windows and the detector are used, and neither probe, shifts nor flux.
    counts : (frame, y, x), photons
    at : Unknowns
    background : float, photons per detector pixel, > 0

    Returns
    -------
    value : float, nats
    gradient : Unknowns
        The value changes by the real part of sum conj(gradient) change, summed over all of them.
    """
    side = model.side
    obj, spectrum = paired(at.obj.contiguous()), torch.fft.fft2(at.probe)
    centre, cycles = centring(side, at.probe), np.fft.fftfreq(side)
    slope = torch.from_numpy(-2j * np.pi * cycles).to(at.probe.dtype)
    scale, shift = np.float32(1 / side**2), np.float32(background)
    dark = np.full(side**2, shift)
    if model.detector.background is not None:
        dark += model.detector.background.ravel()

    amplitudes = torch.from_numpy(np.exp(at.log_flux / 2).astype(np.float32))

    def work(
        frames: slice,
    ) -> tuple[NDArray[np.float64], Tensor, Tensor, NDArray[np.float64], NDArray[np.float64]]:
        onto, of_probe = window(model, frames), torch.zeros_like(spectrum)
        rows, columns = model.reach(frames)
        low = np.array([rows.start, columns.start])
        count = frames.stop - frames.start
        sums, of_shifts, of_flux = np.empty(count), np.empty((count, 2)), np.empty(count)
        # Written over and over: memory taken anew for every batch would cost more than the work.
        space = torch.empty(2, FRAMES_PER_BATCH, *at.probe.shape, dtype=at.probe.dtype)
        pixels = torch.empty(3, FRAMES_PER_BATCH, side**2)
        for batch in model.batches(frames):
            size, corners = batch.stop - batch.start, model.corners[batch]
            here = slice(batch.start - frames.start, batch.stop - frames.start)
            y, x = (
                torch.from_numpy(
                    np.exp(-2j * np.pi * at.shifts_px[batch, axis, None] * cycles).astype(np.complex64)
                )
                for axis in (0, 1)
            )
            y *= amplitudes[batch, None]
            ramps = (y[:, :, None] * x[:, None, :])[:, None]
            probes = torch.fft.ifft2(spectrum * ramps).mul_(centre)
            wave, field = space[:, :size]
            kernels.exit_waves(obj, paired(probes), corners, paired(wave))
            torch.fft.fft2(wave, out=field)
            ratio = pixels[0, :size]
            seen, logarithm = pixels[1:, :size].numpy()
            np.add(counts[batch].reshape(size, -1), shift, out=seen, casting="same_kind")
            flat = paired(field.flatten(-2))
            kernels.ratios(flat, seen, scale, dark, ratio.numpy())
            if (blind := model.pixels(batch).blind) is not None:
                ratio.masked_fill_(blind.reshape(-1, side**2), 1)
            torch.log(ratio, out=pixels[2, :size])
            kernels.weigh(flat, seen, ratio.numpy(), logarithm, np.float32(2 * scale), sums[here])
            torch.fft.ifft2(field, norm="forward", out=wave)
            kernels.place(paired(wave), paired(probes), corners - low, paired(onto))
            # The gradient by each frame's own probe, moved back in Fourier space.
            wave.mul_(model.patches(at.obj, batch).conj()[:, None]).mul_(centre.conj())
            torch.fft.fft2(wave, out=field)
            field.mul_(ramps.conj())
            of_probe += field.sum(dim=0)
            along = (field.conj() * spectrum).sum(dim=1)
            for axis, waves in enumerate((slope[:, None], slope)):
                of_shifts[here, axis] = (along * waves).real.sum(dim=(1, 2), dtype=torch.float64) * scale
            of_flux[here] = along.real.sum(dim=(1, 2), dtype=torch.float64) * (scale / 2)
        return sums, onto, of_probe, of_shifts, of_flux

    found = in_parts(work, frame_parts(model.frames))
    sums, windows, of_probe, of_shifts, of_flux = zip(*found, strict=True)
    probe = torch.fft.ifft2(torch.stack(of_probe).sum(dim=0))
    gradient = Unknowns(total(model, windows), probe, np.concatenate(of_shifts), np.concatenate(of_flux))
    return float(np.concatenate(sums).sum()), gradient


def probe_curvature(model: ScanModel, obj: Complex[Tensor, "h w"]) -> Float[Tensor, "y x"]:
    """Return what frames tell of each pixel of the probe, about, and never much less than of the best.

    Parameters
    ----------
    model : ScanModel
        Of it the windows are used.
    obj : (y, x) complex64
    """
    seen = torch.zeros(model.side, model.side)
    for frames in model.batches():
        seen += 2 * intensity(model.patches(obj, frames)).sum(dim=0)
    return seen + DIM_PROBE * seen.max()


def position_curvature(probe: Complex[Tensor, "mode y x"]) -> Float[NDArray[np.float64], " 2"]:
    """Return what a frame tells of its position (y, x), about, per squared object pixel, of a flat object."""
    waves = 2 * torch.pi * torch.fft.fftfreq(probe.shape[-1], dtype=torch.float64)
    power = intensity(torch.fft.fft2(probe, norm="ortho")).sum(dim=0, dtype=torch.float64)
    return np.array([2 * float(waves.square() @ power.sum(dim=axis)) for axis in (1, 0)])
