"""Poisson deviance of all frames of a scan and its gradient, in one pass over memory.

What `likelihood` defines, compiled for the processor: a batch of frames stays in the cache
from exit wave to gradient, and only Fourier transforms and logarithms are torch's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
        Added to expected and counted photons, beside the detector's own.

    Returns
    -------
    value : float, nats
    gradient : (y, x) complex64 or None
        The value changes by the real part of sum conj(gradient) change.
    """
    pairs = paired(obj.contiguous())
    scale, shift = np.float32(1 / model.side**2), np.float32(background)
    dark = np.full(model.side**2, shift)
    if model.detector.background is not None:
        dark += model.detector.background.ravel()

    def work(frames: slice) -> tuple[NDArray[np.float64], Tensor | None]:
        onto = window(model, frames) if gradient else None
        pixels = torch.empty(3, FRAMES_PER_BATCH, model.side**2)
        sums = np.empty(frames.stop - frames.start)
        for batch, field in _far_fields(model, pairs, frames, onto):
            size = batch.stop - batch.start
            ratio = pixels[0, :size]
            seen, logarithm = pixels[1:, :size].numpy()
            np.add(counts[batch].reshape(size, -1), shift, out=seen, casting="same_kind")
            kernels.ratios(field, seen, scale, dark, ratio.numpy())
            if (blind := model.pixels(batch).blind) is not None:
                ratio.masked_fill_(blind.reshape(-1, model.side**2), 1)
            torch.log(ratio, out=pixels[2, :size])
            terms = sums[batch.start - frames.start :][:size]
            kernels.weigh(field, seen, ratio.numpy(), logarithm, np.float32(2 * scale), terms)
        return sums, onto

    found = in_parts(work, frame_parts(model.frames))
    value = float(np.concatenate([sums for sums, _ in found]).sum())
    return value, total(model, [onto for _, onto in found if onto is not None]) if gradient else None


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
    pairs = paired(change.contiguous())
    scale = np.float32(1 / model.side**2)

    def work(numbered: tuple[slice, Tensor]) -> Tensor:
        part, towards = numbered
        onto = window(model, part)
        along = np.empty((FRAMES_PER_BATCH, model.side**2), np.float32)
        for batch, field in _far_fields(model, pairs, part, onto):
            seen = towards[batch.start - part.start : batch.stop - part.start]
            kernels.project(field, paired(seen.flatten(-2)), scale, along)
        return onto

    return total(model, in_parts(work, list(zip(frame_parts(model.frames), directions, strict=True))))


def window(model: ScanModel, frames: slice) -> Tensor:
    """Return zeros for the part of the object that some frames see."""
    rows, columns = model.reach(frames)
    return torch.zeros(rows.stop - rows.start, columns.stop - columns.start, dtype=torch.complex64)


def total(model: ScanModel, windows: Sequence[Tensor]) -> Tensor:
    """Return the sum of the windows of all parts on the whole object."""
    whole = model.blank(torch.complex64)
    for frames, found in zip(frame_parts(model.frames), windows, strict=True):
        whole[model.reach(frames)] += found
    return whole


def _far_fields(
    model: ScanModel, obj: NDArray[np.float32], frames: slice, onto: Tensor | None
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield batches and their far fields (frame, mode, 2 pixel), to be changed in place.

    What each is changed into is then projected back onto the window ``onto``, if there is one.
    """
    rows, columns = model.reach(frames)
    low = np.array([rows.start, columns.start])
    # Written over and over: memory taken anew for every batch would cost more than the work.
    waves = torch.empty(2, FRAMES_PER_BATCH, *model.probe.shape, dtype=torch.complex64)
    for batch in model.batches(frames):
        wave, field = waves[:, : batch.stop - batch.start]
        corners, probes = model.corners[batch], paired(model.probes(batch))
        kernels.exit_waves(obj, probes, corners, paired(wave))
        torch.fft.fft2(wave, out=field)
        yield batch, paired(field.flatten(-2))
        if onto is not None:
            torch.fft.ifft2(field, norm="forward", out=wave)
            kernels.place(paired(wave), probes, corners - low, paired(onto))


def paired(field: Tensor) -> NDArray[np.float32]:
    """Return a complex array with real and imaginary parts side by side along its last axis."""
    return torch.view_as_real(field).flatten(-2).numpy()
