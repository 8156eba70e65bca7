"""Plane geometry behind the overlap metrics: discs, probe width, nearest neighbours."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
from scipy.spatial import KDTree  # pyright: ignore[reportMissingTypeStubs]

from fly64_dose_overlap.errors import StudyError

DEFAULT_DIAMETER_FRACTION = 0.6
DEFAULT_SOURCE = f"{DEFAULT_DIAMETER_FRACTION} N"
DIAMETER_DECIMALS = 4
"""The probe is stored in single precision, scaled to each dose: later digits differ between doses."""
TIE_TOLERANCE_PX = 1e-6
TIE_CANDIDATES = 16
"""Extra neighbours looked at, so that ties at the cut are settled by index."""
BLOCK_ELEMENTS = 2_000_000
RADIAL_STEP_PX = 0.25
ANGLES = 360
SPOT_POWER_LIMIT = 0.15
"""A central lobe with less of the power than this is a diffraction spot, not the beam."""


def disc_overlap(distance_px: ArrayLike, diameter_px: float) -> NDArray[np.float64]:
    """Return the part of a disc's area that an equal disc covers.

    The lens of two circles of radius R at distance d has the area
    2 R^2 acos(d / 2R) - (d / 2) sqrt(4 R^2 - d^2).

    Parameters
    ----------
    distance_px : (...) array_like, >= 0
        Distance of the centres, object pixels.
    diameter_px : float, > 0
        Diameter D of both discs, object pixels.

    Returns
    -------
    fraction : (...) float64, 0..1
        1 at distance 0, exactly 0 from ``diameter_px`` on.

    Raises
    ------
    StudyError
        If the diameter is not positive.

    Examples
    --------
    >>> disc_overlap([0.0, 19.2, 38.4], 38.4).round(6).tolist()
    [1.0, 0.391002, 0.0]
    """
    require_diameter(diameter_px)
    ratio = np.clip(np.asarray(distance_px, dtype=np.float64) / diameter_px, 0.0, 1.0)
    fraction = (np.arccos(ratio) - ratio * np.sqrt(1.0 - ratio * ratio)) * (2.0 / np.pi)
    return np.asarray(fraction, dtype=np.float64)


def require_diameter(diameter_px: float) -> None:
    """Refuse a probe diameter that is not a positive finite number."""
    if not (np.isfinite(diameter_px) and diameter_px > 0):
        raise StudyError("overlap", f"probe_diameter_px must be > 0, got {diameter_px}")


def probe_fwhm_px(probe: NDArray[np.inexact]) -> float | None:
    """Measure the probe's diameter at half maximum.

    A zone plate out of focus gives a ring, for which the first crossing of the half
    level lies on the inner rim. The diameter is therefore twice the *outermost*
    radius at which the azimuthally averaged intensity falls through half of its
    maximum. The bright spot on the axis behind the central stop is left out of the
    maximum: it holds about 1 % of the power, yet can exceed the ring twofold.

    Parameters
    ----------
    probe : (mode, y, x) complex
        Any scale; the intensity's centroid is the centre.

    Returns
    -------
    diameter_px : float or None
        Object pixels; None if the average stays above half up to the frame's edge.

    Raises
    ------
    StudyError
        If the probe has other axes, is not finite, or zero everywhere.
    """
    radii, profile = radial_profile(probe)
    half = profile[_spot_end(radii, profile) :].max() / 2
    above = np.flatnonzero(profile >= half)
    last = int(above[-1])
    if last == len(profile) - 1:
        return None
    part = (profile[last] - half) / (profile[last] - profile[last + 1])
    return float(2 * (radii[last] + part * (radii[last + 1] - radii[last])))


def _spot_end(radii: NDArray[np.float64], profile: NDArray[np.float64]) -> int:
    """Return the index of the first minimum if the lobe inside it holds next to no power, else 0."""
    rising = np.flatnonzero(np.diff(profile) > 0)
    rising = rising[rising > int(np.argmax(np.diff(profile) < 0))]
    if len(rising) == 0:
        return 0
    power = np.cumsum(radii * profile)
    end = int(rising[0])
    return end if power[end] < SPOT_POWER_LIMIT * power[-1] else 0


def radial_profile(probe: NDArray[np.inexact]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average the probe's intensity, that of all modes, over the angle about its centroid.

    Returns
    -------
    radii_px, intensity : (radius,) float64
        From the centre to the nearest edge of the frame.
    """
    if probe.ndim != 3:
        raise StudyError("probe", f"must have axes (mode, y, x), got shape {probe.shape}")
    intensity = (np.abs(probe.astype(np.complex128)) ** 2).sum(axis=0)
    total = float(intensity.sum())
    if not np.isfinite(total) or total <= 0:
        raise StudyError("probe", f"must be finite and not zero, its power is {total}")
    centre = np.array([np.sum(grid * intensity) / total for grid in np.indices(intensity.shape)])
    reach = min(float(centre.min()), float((np.array(intensity.shape) - 1 - centre).min()))
    radii = np.arange(0.0, reach + 1e-9, RADIAL_STEP_PX)
    angles = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    offset = radii[:, None, None] * np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    interpolate = cast(Any, map_coordinates)
    sampled = interpolate(intensity, np.moveaxis(centre + offset, -1, 0), order=1, mode="nearest")
    return radii, np.asarray(sampled.mean(axis=1), dtype=np.float64)


def resolve_diameter(probe: NDArray[np.inexact], override_px: float | None) -> tuple[float, str]:
    """Return the diameter D of a probe (mode, y, x) for the overlap metrics, and where it comes from.

    That is ``parameter``, if the user chose one, ``full width at half maximum`` or ``0.6 N``.
    """
    if override_px is not None:
        require_diameter(override_px)
        return override_px, "parameter"
    if (measured := probe_fwhm_px(probe)) is not None:
        return round(measured, DIAMETER_DECIMALS), "full width at half maximum"
    return DEFAULT_DIAMETER_FRACTION * probe.shape[-1], DEFAULT_SOURCE


def nearest_neighbours(
    positions_px: NDArray[np.float64], count: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Find the nearest points of each point, itself first.

    Ties (on an exact raster nearly every cut is one) go to the lower index, so the
    answer depends on the points alone. More than ``TIE_CANDIDATES`` points at one
    distance are left in the order of the search tree.

    Parameters
    ----------
    positions_px : (point, 2) float64, object pixels
    count : int, >= 1
        Neighbours wanted, the point itself included; all points if there are fewer.

    Returns
    -------
    index : (point, min(count, point)) int32
    distance_px : (point, min(count, point)) float64
        Ascending.
    """
    total = len(positions_px)
    wanted = min(count, total)
    candidates = min(total, wanted + TIE_CANDIDATES)
    nearest = np.empty((total, wanted), dtype=np.int32)
    distances = np.empty((total, wanted), dtype=np.float64)
    tree: Any = KDTree(positions_px)
    block = max(1, BLOCK_ELEMENTS // candidates)
    for first in range(0, total, block):
        own = np.arange(first, min(first + block, total))
        distance, index = tree.query(positions_px[own], k=np.arange(1, candidates + 1))
        distance = np.where(index == own[:, None], np.inf, distance)
        # With many coincident points the search may not list the point itself.
        distance = np.column_stack([np.zeros(len(own)), distance])
        index = np.column_stack([own, index])
        ticks = np.round(distance / TIE_TOLERANCE_PX)
        ticks[:, 0] = -1
        order = np.lexsort((index, ticks), axis=-1)[:, :wanted]
        nearest[own] = np.take_along_axis(index, order, axis=1)
        distances[own] = np.take_along_axis(distance, order, axis=1)
    return nearest, distances
