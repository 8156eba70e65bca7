"""Expected diffraction of a scan at a dose, and photon counts drawn from it.

Everything up to the draw is float64, although single precision would do for the physics:
a rate that differs in its last bit turns into another count now and then. Rates in single
precision would change some counts of every dataset from one kind of processor to the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import BaseSet
from fly64_dose_overlap.physics.patches import bilinear_patches
from fly64_dose_overlap.physics.propagation import centre, intensity, to_detector
from fly64_dose_overlap.progress import track
from fly64_dose_overlap.seeding import generator

BLOCK_FRAMES = 256
"""Frames simulated at once. Each block has its own random stream, so the number decides the counts."""

FACTOR_DIGITS = 9
"""Significant digits of the dose factor; the digits beyond may depend on the processor."""


def frame_blocks(count: int) -> list[slice]:
    """Return the consecutive blocks of at most `BLOCK_FRAMES` frames."""
    return [slice(first, min(first + BLOCK_FRAMES, count)) for first in range(0, count, BLOCK_FRAMES)]


def expected_intensity(
    base: BaseSet, frames: slice | NDArray[np.integer] | None = None
) -> NDArray[np.float64]:
    """Return the noise-free diffraction of some frames.

    Parameters
    ----------
    base : BaseSet
        Object, probe and positions; sum of the probe's squared modulus in photons.
    frames : slice or (selected,) int, optional
        Frames wanted, all if not given. The result is held whole, 8 bytes per pixel;
        working memory is that of one block besides.

    Returns
    -------
    (selected, y, x) float64, photons
        Zero frequency at [N/2, N/2]. The far field is unitary: a frame sums to the
        photons that leave the object.
    """
    positions_px = base.positions_px if frames is None else base.positions_px[frames]
    out = np.empty((len(positions_px), *base.probe.shape))
    for block in frame_blocks(len(positions_px)):
        out[block] = _intensity_block(base, positions_px[block])
    return out


def dose_factor(base: BaseSet, photons_per_frame: float) -> float:
    """Return the factor on the probe that gives the scan its dose.

    One factor scales the whole scan, so the scan-averaged frame expects
    ``photons_per_frame``; normalising frames singly would erase absorption contrast.
    The far field keeps the energy, so exit waves are added up and nothing is propagated.

    Parameters
    ----------
    base : BaseSet
        Object, probe (in any unit) and positions.
    photons_per_frame : float, photons
        Expected detected photons per frame, averaged over the scan; > 0.

    Returns
    -------
    float, sqrt(photons) per unit of the probe

    Raises
    ------
    StudyError
        If the dose is not positive, or the exit waves sum to zero or to infinity.
    """
    if not 0 < photons_per_frame < math.inf:
        raise StudyError("dose", f"must be > 0 photons per frame, got {photons_per_frame}")
    frames = len(base.positions_px)
    blocks = track(frame_blocks(frames), total=frames, label="simulate, power of the scan", step=BLOCK_FRAMES)
    mean = sum(_power_of_block(base, base.positions_px[block]) for block in blocks) / frames
    if not 0 < mean < math.inf:
        problem = f"the exit waves have a mean power of {mean:g}"
        raise StudyError("base set", problem, "no dose can be reached; is the object zero under the probe?")
    return float(f"{math.sqrt(photons_per_frame / mean):.{FACTOR_DIGITS}g}")


def with_dose(base: BaseSet, factor: float) -> BaseSet:
    """Return the base set with its probe in sqrt(photons), and without measured frames."""
    probe = (base.probe.astype(np.complex128) * factor).astype(np.complex64)
    return replace(base, probe=probe, amplitude=None)


def draw_counts(base: BaseSet, *, seed: int, dose: int) -> Iterator[NDArray[np.int64]]:
    """Draw photon counts for a scan, block by block.

    Parameters
    ----------
    base : BaseSet
        Sum of the probe's squared modulus in photons, as `with_dose` returns it.
    seed : int
    dose : int, photons per frame
        Names the random stream; it scales nothing.

    Yields
    ------
    counts : (frame, y, x) int64, photons
        The blocks of `frame_blocks`, in order.
    """
    for number, block in enumerate(frame_blocks(len(base.positions_px))):
        rate = _intensity_block(base, base.positions_px[block])
        yield generator(seed, "simulate", "counts", dose, number).poisson(rate).astype(np.int64, copy=False)


@torch.inference_mode()
def _intensity_block(base: BaseSet, positions_px: NDArray[np.float64]) -> NDArray[np.float64]:
    return centre(intensity(to_detector(_exit_wave(base, positions_px)))).numpy()


@torch.inference_mode()
def _power_of_block(base: BaseSet, positions_px: NDArray[np.float64]) -> float:
    return float(intensity(_exit_wave(base, positions_px)).sum())


def _exit_wave(base: BaseSet, positions_px: NDArray[np.float64]) -> Tensor:
    """Return probe times object patch, (frame, y, x) complex128.

    A patch at a fractional position needs N + 1 object rows. At the far edge of the
    object there are no more than N, all of them: the window then starts one row early.
    """
    side = base.probe.shape[0]
    first_px = positions_px - side // 2
    corner = np.minimum(np.floor(first_px).astype(np.int64), np.array(base.obj.shape) - (side + 1))
    windows = sliding_window_view(base.obj, (side + 1, side + 1))[corner[:, 0], corner[:, 1]]
    windows, probe = (torch.from_numpy(field.astype(np.complex128)) for field in (windows, base.probe))
    return bilinear_patches(windows, torch.from_numpy(first_px - corner)) * probe
