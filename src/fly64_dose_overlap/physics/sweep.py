"""Poisson deviance of all frames of a scan and its gradient, in one pass over memory.

What `likelihood` defines, compiled for the processor: a batch of frames stays in the cache
from exit wave to gradient, and only Fourier transforms and logarithms are torch's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Complex
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.arrays import FrameArray
from fly64_dose_overlap.parallel import frame_parts, in_parts
from fly64_dose_overlap.physics import kernels
from fly64_dose_overlap.physics.model import FRAMES_PER_BATCH, ScanModel


def sweep(
    model: ScanModel,
    counts: FrameArray,
    obj: Complex[Tensor, "h w"],
    background: float,
    *,
    gradient: bool,
) -> tuple[float, Complex[Tensor, "h w"] | None]:
    """Return half the Poisson deviance of all frames, and its gradient if asked for.

    Parameters
    ----------
    model : ScanModel
        On the processor, complex64.
    counts : (frame, y, x), photons
    obj : (y, x) complex64
    background : float, photons per detector pixel, > 0
        Added to expected and counted photons.
    gradient : bool

    Returns
    -------
    value : float, nats
    gradient : (y, x) complex64 or None
        The value changes by the real part of sum conj(gradient) change.
    """
    field = _pairs(obj.contiguous())

    def work(frames: slice) -> tuple[NDArray[np.float64], slice, slice, Tensor | None]:
        return _part(model, counts, field, background, frames, gradient=gradient)

    parts = in_parts(work, frame_parts(model.frames))
    value = float(np.concatenate([sums for sums, *_ in parts]).sum())
    if not gradient:
        return value, None
    total = model.blank(obj.dtype)
    for _, rows, columns, found in parts:
        if found is not None:
            total[rows, columns] += found
    return value, total


def _part(
    model: ScanModel,
    counts: FrameArray,
    obj: NDArray[np.float32],
    background: float,
    frames: slice,
    *,
    gradient: bool,
) -> tuple[NDArray[np.float64], slice, slice, Tensor | None]:
    """Return the value of each frame of a part, and the window of the object with its gradient."""
    side, modes = model.side, model.probe.shape[0]
    rows, columns = model.reach(frames)
    low = np.array([rows.start, columns.start])
    reach = (rows.stop - rows.start, columns.stop - columns.start)
    onto = torch.zeros(reach, dtype=torch.complex64) if gradient else None
    # Written over and over: memory taken anew for every batch would cost more than the work.
    waves = torch.empty(2, FRAMES_PER_BATCH, modes, side, side, dtype=torch.complex64)
    pixels = torch.empty(3, FRAMES_PER_BATCH, side**2)
    scale, shift = np.float32(1 / side**2), np.float32(background)
    sums = np.empty(frames.stop - frames.start)
    for batch in model.batches(frames):
        size = batch.stop - batch.start
        wave, field = waves[:, :size]
        ratio = pixels[0, :size]
        seen, logarithm = pixels[1:, :size].numpy()
        corners, probes = model.corners[batch], _pairs(model.probes(batch))
        np.add(counts[batch].reshape(size, -1), shift, out=seen, casting="same_kind")
        kernels.exit_waves(obj, probes, corners, _pairs(wave))
        torch.fft.fft2(wave, out=field)
        flat = _pairs(field.flatten(-2))
        kernels.ratios(flat, seen, scale, shift, ratio.numpy())
        torch.log(ratio, out=pixels[2, :size])
        terms = sums[batch.start - frames.start :][:size]
        kernels.weigh(flat, seen, ratio.numpy(), logarithm, np.float32(2 * scale), terms)
        if onto is not None:
            torch.fft.ifft2(field, norm="forward", out=wave)
            kernels.place(_pairs(wave), probes, corners - low, _pairs(onto))
    return sums, rows, columns, onto


def information_product(
    model: ScanModel, directions: Sequence[Tensor], change: Complex[Tensor, "h w"]
) -> Complex[Tensor, "h w"]:
    """Return the Fisher information times a change of the object; see `FisherInformation`.

    Parameters
    ----------
    model : ScanModel
        On the processor, complex64.
    directions : sequence of (frame, mode, y, x) complex64
        u of each part of `frame_parts`.
    change : (y, x) complex64
    """
    obj = _pairs(change.contiguous())
    side, modes = model.side, model.probe.shape[0]
    scale = np.float32(1 / side**2)

    def work(numbered: tuple[slice, Tensor]) -> tuple[slice, slice, Tensor]:
        part, towards = numbered
        rows, columns = model.reach(part)
        low = np.array([rows.start, columns.start])
        onto = torch.zeros(rows.stop - rows.start, columns.stop - columns.start, dtype=torch.complex64)
        waves = torch.empty(2, FRAMES_PER_BATCH, modes, side, side, dtype=torch.complex64)
        along = np.empty((FRAMES_PER_BATCH, side**2), np.float32)
        for batch in model.batches(part):
            wave, field = waves[:, : batch.stop - batch.start]
            corners, probes = model.corners[batch], _pairs(model.probes(batch))
            kernels.exit_waves(obj, probes, corners, _pairs(wave))
            torch.fft.fft2(wave, out=field)
            seen = towards[batch.start - part.start : batch.stop - part.start]
            kernels.project(_pairs(field.flatten(-2)), _pairs(seen.flatten(-2)), scale, along)
            torch.fft.ifft2(field, norm="forward", out=wave)
            kernels.place(_pairs(wave), probes, corners - low, _pairs(onto))
        return rows, columns, onto

    total = model.blank(change.dtype)
    for rows, columns, found in in_parts(work, list(zip(frame_parts(model.frames), directions, strict=True))):
        total[rows, columns] += found
    return total


def _pairs(field: Tensor) -> NDArray[np.float32]:
    """Return a complex array with real and imaginary parts side by side along its last axis."""
    return torch.view_as_real(field).flatten(-2).numpy()
