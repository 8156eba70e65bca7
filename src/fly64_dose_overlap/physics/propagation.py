"""Far-field propagation by the unitary Fourier transform."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def to_detector(exit_wave: Complex[Tensor, "*batch y x"]) -> Complex[Tensor, "*batch y x"]:
    """Propagate exit waves to the far field, zero frequency in the corner [0, 0].

    Detector arrays keep the corner layout in every inner loop: a centred input only
    multiplies the far field by a phase ramp, which neither the intensity nor the
    round trip through `from_detector` sees, so that no shift is ever computed.

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


def centre(detector: Tensor) -> Tensor:
    """Move the zero frequency from the corner [0, 0] to [N/2, N/2], the layout of files."""
    return torch.fft.fftshift(detector, dim=(-2, -1))


def uncentre(detector: Tensor) -> Tensor:
    """Move the zero frequency from [N/2, N/2] to the corner [0, 0], the layout of inner loops."""
    return torch.fft.ifftshift(detector, dim=(-2, -1))
