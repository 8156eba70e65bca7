"""Compiled loops of the passes over a scan; see `fly64_dose_overlap.physics.sweep`.

Complex numbers are pairs of real ones along the last axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

PIXELS_PER_SUM = 512
"""Terms added up in single precision before the sum goes on in double."""

# Sums may be reordered and products fused; NaN and infinity keep their meaning.
OPTIONS: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz", "arcp"}}


def _compiled(loop: Any) -> Any:
    """Compile a loop at its first call; in each process anew where its code can be kept in no folder."""
    try:
        return njit(cache=True, **OPTIONS)(loop)
    except RuntimeError:
        return njit(**OPTIONS)(loop)


@_compiled
def exit_waves(obj, probes, corners, out):  # pyright: ignore
    """Write (frame, mode, N, 2N) products of probes and the windows of obj (h, 2w)."""
    modes, side = probes.shape[1], probes.shape[2]
    for frame in range(probes.shape[0]):
        top, left = corners[frame, 0], 2 * corners[frame, 1]
        for mode in range(modes):
            for row in range(side):
                a = obj[top + row, left : left + 2 * side]
                p, o = probes[frame, mode, row], out[frame, mode, row]
                for x in range(side):
                    re, im = a[2 * x], a[2 * x + 1]
                    o[2 * x] = p[2 * x] * re - p[2 * x + 1] * im
                    o[2 * x + 1] = p[2 * x] * im + p[2 * x + 1] * re


@_compiled
def ratios(field, seen, scale, background, ratio):  # pyright: ignore
    """Write counted over expected photons of field (frame, mode, 2 pixel) on a background (pixel,)."""
    for frame in range(field.shape[0]):
        q, s = ratio[frame], seen[frame]
        for mode in range(field.shape[1]):
            f, last = field[frame, mode], mode == field.shape[1] - 1
            for x in range(q.shape[0]):
                power = scale * (f[2 * x] * f[2 * x] + f[2 * x + 1] * f[2 * x + 1])
                q[x] = power + (background[x] if mode == 0 else q[x])
            if last:
                for x in range(q.shape[0]):
                    q[x] = s[x] / q[x]


@_compiled
def weigh(field, seen, ratio, logarithm, factor, sums):  # pyright: ignore
    """Sum rate - seen + seen log(seen / rate) of each frame; multiply field by factor (1 - ratio)."""
    one = np.float32(1)
    for frame in range(ratio.shape[0]):
        total = 0.0
        for first in range(0, ratio.shape[1], PIXELS_PER_SUM):
            stop = min(first + PIXELS_PER_SUM, ratio.shape[1])
            s, q, l = seen[frame, first:stop], ratio[frame, first:stop], logarithm[frame, first:stop]  # noqa: E741
            part = np.float32(0)
            for x in range(q.shape[0]):
                part += s[x] * (one / q[x] - one + l[x])
                q[x] = factor * (one - q[x])
            total += part
            for mode in range(field.shape[1]):
                f = field[frame, mode, 2 * first : 2 * stop]
                for x in range(q.shape[0]):
                    f[2 * x] *= q[x]
                    f[2 * x + 1] *= q[x]
        sums[frame] = total


@_compiled
def place(back, probes, corners, onto):  # pyright: ignore
    """Add back (frame, mode, N, 2N) times the conjugate of probes onto the windows of onto."""
    modes, side = probes.shape[1], probes.shape[2]
    for frame in range(probes.shape[0]):
        top, left = corners[frame, 0], 2 * corners[frame, 1]
        for mode in range(modes):
            for row in range(side):
                a = onto[top + row, left : left + 2 * side]
                p, b = probes[frame, mode, row], back[frame, mode, row]
                for x in range(side):
                    a[2 * x] += p[2 * x] * b[2 * x] + p[2 * x + 1] * b[2 * x + 1]
                    a[2 * x + 1] += p[2 * x] * b[2 * x + 1] - p[2 * x + 1] * b[2 * x]


@_compiled
def project(field, direction, scale, along):  # pyright: ignore
    """Replace field (frame, mode, 2 pixel) by scale times direction times its part along direction."""
    for frame in range(field.shape[0]):
        a = along[frame]
        for mode in range(field.shape[1]):
            f, u = field[frame, mode], direction[frame, mode]
            for x in range(a.shape[0]):
                part = scale * (u[2 * x] * f[2 * x] + u[2 * x + 1] * f[2 * x + 1])
                a[x] = part + (np.float32(0) if mode == 0 else a[x])
        for mode in range(field.shape[1]):
            f, u = field[frame, mode], direction[frame, mode]
            for x in range(a.shape[0]):
                f[2 * x] = u[2 * x] * a[x]
                f[2 * x + 1] = u[2 * x + 1] * a[x]
