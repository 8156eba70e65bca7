"""Far-field propagation by the unitary Fourier transform."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def to_detector(exit_wave: Complex[Tensor, "*batch y x"]) -> Complex[Tensor, "*batch y x"]:
    """Propagate exit waves to the far field.

    The zero frequency lies in the corner [0, 0], unless the exit waves carry the phases that
    move it (`fly64_dose_overlap.physics.model.centring`).

    Parameters
    ----------
    exit_wave : (..., y, x) complex, sqrt(photons)

    Returns
    -------
    (..., y, x) complex, sqrt(photons)
        Unitary: the sum of the squared modulus is that of ``exit_wave``.
    """
    return torch.fft.fft2(exit_wave, norm="ortho")


def from_detector(far_field: Complex[Tensor, "*batch y x"]) -> Complex[Tensor, "*batch y x"]:
    """Invert `to_detector`, which is also its adjoint."""
    return torch.fft.ifft2(far_field, norm="ortho")


def intensity(far_field: Complex[Tensor, "*batch y x"]) -> Float[Tensor, "*batch y x"]:
    """Return the expected photons per pixel, the squared modulus of the far field."""
    squares = torch.view_as_real(far_field).square()
    return squares[..., 0] + squares[..., 1]
