"""Test objects: complex transmission with structure at every scale and everywhere.

The upper half of the field trains and the lower one tests, so both must hold the
same kind of structure, fine and coarse. A single Siemens star would not do: its fine
structure sits in the middle, where the halves are cut apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.errors import StudyError

PHASE_CONTRAST_RAD = 0.8
ABSORPTION = 0.2
BACKGROUND_PHASE_RAD = 0.2
BACKGROUND_ABSORPTION = 0.06
BACKGROUND_LENGTH_PX = 16.0
"""Standard deviation of the Gaussian that smooths the background."""
EDGE_BLUR_PX = 0.6
"""Leaves a third of the contrast at 0.8 of the Nyquist frequency."""

CELL_SIDE_PX = 128
FINEST_PERIOD_PX = 3.0
SPOKE_COUNTS = (36, 20, 28)
HALF_SIZE_SPOKE_COUNTS = (12, 16, 20, 24)
CORNER_SPOKE_COUNTS = (8, 12, 16)
LEAST_THICKNESS = 0.7
ROUGHNESS_EXPONENT = 1.4
ROUGHNESS_LENGTH_PX = 64.0
MIN_SIDE_PX = 16

Field = NDArray[np.float64]
Point = tuple[float, float]
Transfer = Callable[[Field], Field]
"""Factor of a filter at spatial frequencies in cycles per pixel."""


def siemens_star(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.complex64]:
    """Draw a field of Siemens stars.

    Square cells of about 128 px hold one star or four of half the size, each with
    rings about it; small stars fill the corners between cells. Every row of cells
    holds the same kinds in another order. Spokes narrow to a period of 3 px at the
    hub. Thickness differs from star to star and a slowly varying layer lies below, so
    that low spatial frequencies are there too.

    Parameters
    ----------
    shape : (int, int), px
        Height and width, each at least 16.
    rng : numpy.random.Generator
        Source of order, rotation, thickness and background.

    Returns
    -------
    obj : (y, x) complex64
        Transmission, modulus within 0.7 to 1, phase within -1.1 to 0 rad.

    Raises
    ------
    StudyError
        If the shape is too small.
    """
    _require_shape(shape)
    rows, columns = (max(1, round(side / CELL_SIDE_PX)) for side in shape)
    height, width = shape[0] / rows, shape[1] / columns
    radius = 0.48 * min(height, width)
    corner_radius = 0.95 * (0.5 * math.hypot(height, width) - radius)
    kinds = np.arange(columns) % (len(SPOKE_COUNTS) + 1)
    thickness = np.zeros(shape)
    for row in range(rows):
        for column, kind in enumerate(rng.permutation(kinds)):
            centre = ((row + 0.5) * height, (column + 0.5) * width)
            _fill_cell(thickness, centre, radius, int(kind), rng)
    for row, column in np.ndindex(rows + 1, columns + 1):
        spokes = int(rng.choice(CORNER_SPOKE_COUNTS))
        _add_star(thickness, (row * height, column * width), corner_radius, spokes, rng)
    return _transmission(thickness, thickness, rng)


def texture(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.complex64]:
    """Draw a natural texture: scale-free roughness and cells with edges at two sizes.

    Takes and gives what `siemens_star` does.

    The phase follows the whole thickness; the absorption sees the cells more and the
    roughness less, as in a specimen of several materials. The two are correlated but
    not copies, so an algorithm that ties one to the other gains nothing.
    """
    _require_shape(shape)
    rough = _random_field(shape, rng, _scale_free)
    rough_absorption = _random_field(shape, rng, _scale_free)
    cells = 0.5 * _cells(shape, rng, size_px=7.0) + 0.5 * _cells(shape, rng, size_px=2.2)
    phase_layer = 0.5 * rough + 0.5 * cells
    absorption_layer = 0.2 * rough + 0.2 * rough_absorption + 0.6 * cells
    return _transmission(phase_layer, absorption_layer, rng)


def _require_shape(shape: tuple[int, int]) -> None:
    if min(shape) < MIN_SIDE_PX:
        raise StudyError("shape", f"sides must be at least {MIN_SIDE_PX} px, got {shape}")


def _transmission(
    phase_layer: Field, absorption_layer: Field, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Return the transmission of two layers within 0 to 1, blurred, and of a background.

    Matter advances the phase of X-rays, which is a negative phase where a wave
    travels as ``exp(+ikz)``, the sign of the probe's Fresnel transfer function.
    """
    background = _random_field(phase_layer.shape, rng, _gaussian(BACKGROUND_LENGTH_PX))
    phase = PHASE_CONTRAST_RAD * _blurred(phase_layer) + BACKGROUND_PHASE_RAD * background
    modulus = (1 - ABSORPTION * _blurred(absorption_layer)) * (1 - BACKGROUND_ABSORPTION * background)
    return (modulus * np.exp(-1j * phase)).astype(np.complex64)


def _fill_cell(thickness: Field, centre: Point, radius: float, kind: int, rng: np.random.Generator) -> None:
    if kind > 0:
        _add_star(thickness, centre, radius, SPOKE_COUNTS[kind - 1], rng)
        return
    quarters = ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5))
    for spokes, (dy, dx) in zip(rng.permutation(HALF_SIZE_SPOKE_COUNTS), quarters, strict=True):
        quarter = (centre[0] + dy * radius, centre[1] + dx * radius)
        _add_star(thickness, quarter, 0.48 * radius, int(spokes), rng)


def _add_star(thickness: Field, centre: Point, radius: float, spokes: int, rng: np.random.Generator) -> None:
    """Draw one star with rings; edges are one pixel wide, by their signed distance.

    A star too small for its spokes gets fewer, so that the hub stays within half of it.
    """
    spokes = max(3, min(spokes, int(math.pi * radius / FINEST_PERIOD_PX)))
    angle = rng.uniform(0, 2 * math.pi)
    height = rng.uniform(LEAST_THICKNESS, 1.0)
    y_start, x_start = (max(0, math.floor(c - radius - 2)) for c in centre)
    y_stop, x_stop = (math.ceil(c + radius + 2) for c in centre)
    window = thickness[y_start:y_stop, x_start:x_stop]
    y = np.arange(window.shape[0])[:, None] + (y_start - centre[0])
    x = np.arange(window.shape[1]) + (x_start - centre[1])
    r = np.hypot(y, x)
    hub = spokes * FINEST_PERIOD_PX / (2 * math.pi)
    edge_distance = r * np.arcsin(np.cos(spokes * np.arctan2(y, x) + angle)) / spokes
    star = np.clip(0.5 + edge_distance, 0, 1) * _annulus(r, hub, 0.86 * radius)
    star *= 1 - _annulus(r, 0.6 * radius - 1.5, 0.6 * radius + 1.5)
    star += _annulus(r, 0.92 * radius, radius) + _annulus(r, 0.0, 0.5 * hub)
    np.maximum(window, height * np.clip(star, 0, 1), out=window)


def _annulus(r: Field, inner: float, outer: float) -> Field:
    inside = np.clip(0.5 + outer - r, 0, 1)
    return inside if inner <= 0 else inside * np.clip(0.5 + r - inner, 0, 1)


def _cells(shape: tuple[int, int], rng: np.random.Generator, *, size_px: float) -> Field:
    """Return blobs of 0 or 1 with edges about a pixel wide, covering half of the field."""
    field = _random_field(shape, rng, _gaussian(size_px)) - 0.5
    slope_y: Field = np.gradient(field, axis=0)
    slope_x: Field = np.gradient(field, axis=1)
    return np.clip(0.5 + field / np.maximum(np.hypot(slope_y, slope_x), 0.02 / size_px), 0, 1)


def _blurred(layer: Field) -> Field:
    return np.clip(_filtered(layer, _gaussian(EDGE_BLUR_PX)), 0, 1)


def _gaussian(length_px: float) -> Transfer:
    """Return the transfer function of smoothing with a Gaussian of this standard deviation."""
    return lambda q: np.exp(-2 * (math.pi * length_px * q) ** 2)


def _scale_free(q: Field) -> Field:
    return (q + 1 / ROUGHNESS_LENGTH_PX) ** -ROUGHNESS_EXPONENT


def _filtered(field: Field, transfer: Transfer) -> Field:
    q = np.hypot(np.fft.fftfreq(field.shape[0])[:, None], np.fft.rfftfreq(field.shape[1])[None, :])
    return np.fft.irfft2(np.fft.rfft2(field) * transfer(q), s=field.shape)


def _random_field(shape: tuple[int, ...], rng: np.random.Generator, transfer: Transfer) -> Field:
    """Return filtered noise, spread nearly evenly over 0 to 1."""
    field = _filtered(rng.standard_normal(shape), transfer)
    field -= field.mean()
    # The logistic function of 1.702 times a normal variable is within 0.01 of its distribution.
    return 1 / (1 + np.exp(-1.702 * field / field.std()))
