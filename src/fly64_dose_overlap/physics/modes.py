"""Modes of a partially coherent probe."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.physics.propagation import intensity

ENVELOPE_FLOOR, ENVELOPE_BLUR_PX = 1e-3, 2.0
"""Least variance of a probe's pixel, in the largest, and the blur of the power that it is."""


def envelope(probe: Complex[Tensor, "mode y x"]) -> Float[Tensor, "y x"]:
    """Return the variance of the pixels of a probe that is not known: the power of all modes, blurred."""
    power = intensity(probe).sum(dim=0)
    waves = torch.fft.fftfreq(probe.shape[-1])
    blur = torch.exp(-2 * (torch.pi * ENVELOPE_BLUR_PX) ** 2 * (waves[:, None] ** 2 + waves**2))
    smooth = torch.fft.ifft2(torch.fft.fft2(power) * blur).real.clamp_min(0)
    return smooth + ENVELOPE_FLOOR * smooth.max()


def orthogonal(probe: Complex[Tensor, "mode y x"]) -> Complex[Tensor, "mode y x"]:
    """Return modes that are orthogonal, the strongest first, with the same light in all."""
    if len(probe) == 1:
        return probe
    _, powers, modes = torch.linalg.svd(probe.flatten(1), full_matrices=False)
    return (powers[:, None] * modes).reshape(probe.shape)


def strongest_mode(modes: NDArray[np.complexfloating[Any, Any]]) -> tuple[NDArray[np.complex128], float]:
    """Return the strongest of the orthogonal modes that describe the same partial coherence.

    Modes of a mixed state are defined up to a unitary mixing; the singular value
    decomposition picks the orthogonal set, whose first member holds the most power
    (Thibault and Menzel, Nature 494, 68 (2013)). The free global phase is set so that the
    result is in phase with the strongest mode given.

    Of modes (mode, y, x) returns one, (y, x) complex128 in their units, of which the power is its own
    and not that of the sum; and its part of the power of all modes, 0 to 1.
    """
    flat = modes.reshape(len(modes), -1).astype(np.complex128)
    power = np.sum(np.abs(flat) ** 2, axis=1)
    if not power.any():
        return np.zeros(modes.shape[1:], np.complex128), 1.0
    _, singular, right = np.linalg.svd(flat, full_matrices=False)
    mode = singular[0] * right[0]
    inner = complex(np.sum(mode.conj() * flat[np.argmax(power)]))
    if abs(inner) > 0:
        mode = mode * (inner / abs(inner))
    return mode.reshape(modes.shape[1:]), float(singular[0] ** 2 / np.sum(singular**2))
