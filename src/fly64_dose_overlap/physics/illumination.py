"""Probes shifted by parts of a pixel, and the light that a scan of them sheds on the object.

A frame sees the object through the probe at a fractional position. The object is read at
the whole pixel, and the probe is shifted by the rest with a Fourier ramp, which is exact for
a probe without power at the Nyquist frequency and loses none of its power. Shifting the
object instead, by interpolation, would be a low-pass filter that nature does not have.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray
from scipy import fft

from fly64_dose_overlap.errors import StudyError

FRAMES_PER_BLOCK = 64
COVERED_FRACTION_OF_MAXIMUM = 0.1


def whole_and_rest(
    positions_px: Float[NDArray[np.float64], "frame 2"], side: int
) -> tuple[Int[NDArray[np.int64], "frame 2"], Float[NDArray[np.float64], "frame 2"]]:
    """Divide positions into the window of the object that a frame reads and the probe's shift.

    Parameters
    ----------
    positions_px : (frame, 2) float64, object pixels
        The object pixel (y, x) under patch pixel [N/2, N/2].
    side : int
        N.

    Returns
    -------
    corners : (frame, 2) int64
        Object pixel (y, x) under each patch's pixel [0, 0].
    shifts_px : (frame, 2) float64
        What is left, from -1/2 to 1/2.
    """
    whole = np.rint(positions_px)
    return whole.astype(np.int64) - side // 2, positions_px - whole


def shifted_probes(
    probe: Complex[NDArray[np.complexfloating], "mode y x"], shifts_px: Float[NDArray[np.float64], "frame 2"]
) -> Complex[NDArray[np.complexfloating], "frame mode y x"]:
    """Return the probe moved by each shift.

    Parameters
    ----------
    probe : (mode, y, x) complex
    shifts_px : (frame, 2) float64
        Along (y, x); what leaves on one side comes in on the other.

    Returns
    -------
    (frame, mode, y, x), of the probe's type and power
    """
    dtype = probe.dtype
    spectrum = np.fft.fft2(probe.astype(np.complex128)).astype(dtype)
    rows, columns = (
        np.exp(-2j * np.pi * shifts_px[:, axis, None] * np.fft.fftfreq(probe.shape[axis + 1])).astype(dtype)
        for axis in (0, 1)
    )
    moved = spectrum * rows[:, None, :, None] * columns[:, None, None, :]
    shifted: Any = fft.ifft2(moved, overwrite_x=True)
    return shifted


def bare_far_field(
    probe: Complex[NDArray[np.complexfloating], "mode y x"],
) -> Float[NDArray[np.float64], "y x"]:
    """Return the intensity of the bare probe on the detector, zero frequency at [N/2, N/2], of its power.

    Parameters
    ----------
    probe : (mode, y, x) complex, sqrt(photons)

    Returns
    -------
    (y, x) float64, photons
    """
    field = np.fft.fftshift(np.fft.fft2(probe.astype(np.complex128), norm="ortho"), axes=(-2, -1))
    return (np.abs(field) ** 2).sum(axis=0)


def require_positions(positions_px: NDArray[np.float64]) -> None:
    """Refuse positions that are not finite (frame, 2), or none at all."""
    if positions_px.ndim != 2 or positions_px.shape[1] != 2 or len(positions_px) == 0:
        raise StudyError(
            "positions_px", f"must be (frame, 2) with at least one frame, got {positions_px.shape}"
        )
    bad = int(np.count_nonzero(~np.isfinite(positions_px).all(axis=1)))
    if bad:
        raise StudyError("positions_px", f"must be finite, found {bad} of {len(positions_px)} that are not")


def illumination(
    probe: Complex[NDArray[np.complexfloating], "mode y x"],
    positions_px: Float[NDArray[np.float64], "frame 2"],
    object_shape: tuple[int, int],
    flux: Float[NDArray[np.float64], " frame"] | None = None,
) -> Float[NDArray[np.float64], "h w"]:
    """Return the photons that fall on each object pixel: n(r) = sum_j abs(P(r - r_j))^2.

    Parameters
    ----------
    probe : (mode, y, x) complex, sqrt(photons)
        Mutually incoherent modes, whose intensities add up.
    positions_px : (frame, 2) float64, object pixels
    object_shape : (int, int)
        Rows and columns of the object.
    flux : (frame,) float64, optional
        Light of each frame, in that of the probe; all have it if not given.

    Returns
    -------
    (y, x) float64, photons
        What falls beyond the object's edge is lost.

    Raises
    ------
    StudyError
        If a position lies outside the object.
    """
    limit = np.array(object_shape) - 1
    outside = int(np.count_nonzero(((positions_px < 0) | (positions_px > limit)).any(axis=1)))
    if outside:
        problem = f"{outside} of {len(positions_px)} positions lie outside the object of {object_shape}"
        raise StudyError("positions_px", problem, "are positions in object pixels?")
    side = probe.shape[-1]
    corners, shifts = whole_and_rest(positions_px, side)
    total = np.zeros((object_shape[0] + 2 * side, object_shape[1] + 2 * side))
    for first in range(0, len(positions_px), FRAMES_PER_BLOCK):
        block = slice(first, first + FRAMES_PER_BLOCK)
        moved = shifted_probes(probe, shifts[block])
        power = (moved.real**2 + moved.imag**2).sum(axis=1, dtype=np.float64)
        if flux is not None:
            power *= flux[block, None, None]
        for (top, left), each in zip((corners[block] + side).tolist(), power, strict=True):
            total[top : top + side, left : left + side] += each
    return total[side:-side, side:-side].copy()


def fluence_summary(
    fluence: Float[NDArray[np.float64], "h w"], positions_px: Float[NDArray[np.float64], "frame 2"]
) -> dict[str, float]:
    """Summarise the photons that fall on each object pixel between the scan positions.

    Parameters
    ----------
    fluence : (y, x) float64, photons per object pixel
        From `illumination`.
    positions_px : (frame, 2) float64, object pixels

    Returns
    -------
    dict
        ``photons_per_pixel_mean``, ``_median`` and ``_max`` over the bounding box of
        the positions, and ``covered_fraction``: the part of the box that gets more
        than a tenth of the maximum.
    """
    low = np.floor(positions_px.min(axis=0)).astype(int)
    high = np.ceil(positions_px.max(axis=0)).astype(int) + 1
    box = fluence[low[0] : high[0], low[1] : high[1]]
    maximum = float(box.max())
    return {
        "photons_per_pixel_mean": float(box.mean()),
        "photons_per_pixel_median": float(np.median(box)),
        "photons_per_pixel_max": maximum,
        "covered_fraction": float(np.mean(box > COVERED_FRACTION_OF_MAXIMUM * maximum)),
    }
