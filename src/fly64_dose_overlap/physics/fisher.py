"""Fisher information that the photon counts of a scan hold about the object."""

from __future__ import annotations

import torch
from jaxtyping import Complex
from torch import Tensor

from fly64_dose_overlap.physics.scan import ScanModel


class FisherInformation:
    """Fisher information of Poisson counts about a complex object, probe known, as a product.

    A change dO of the object changes the far field of mode m by dF_m = F(P_m dO) and the
    expected counts by dI = 2 Re sum_m conj(F_m) dF_m. Poisson counts inform on it by the
    sum of dI^2 / (I + b) over pixels and frames. As a real symmetric operator on the real
    and imaginary parts of dO, the information is

        J dO = sum_j S_j^T sum_m conj(P_m) F^-1( 4 u_m Re sum_k conj(u_k) dF_k )

    with u_m = F_m / sqrt(I + b) and S_j the patch of frame j. For one mode and b = 0 this is
    2 sum_j S_j^T conj(P) [P dO_j + F^-1(u^2 conj(F(P dO_j)))] (see Wei et al.,
    arXiv 2003.05475; Bouchet et al., arXiv 2011.04799). With b = 0 it is proportional to
    the photons in the probe.

    Parameters
    ----------
    model : ScanModel
    obj : (y, x) complex
        Object at which the information is taken: the truth, for a bound.
    background : float, photons per detector pixel, >= 0
        b, uninformative photons under the signal. They take the information of pixels
        with I << b away; without them a pixel informs by its phase however dark it is.

    Notes
    -----
    The directions u of all frames are kept, one complex number per frame, mode and pixel:
    half of the Fourier transforms of a product less.
    """

    def __init__(self, model: ScanModel, obj: Complex[Tensor, "h w"], *, background: float = 0.0) -> None:
        self._model = model
        self._directions = [
            _directions(model.far_field(obj, frames), background) for frames in model.batches()
        ]

    def product(self, change: Complex[Tensor, "h w"]) -> Complex[Tensor, "h w"]:
        """Return the information times a change of the object, photons.

        The real inner product of ``change`` and this is the information about ``change``.
        """
        onto = self._model.blank(change.dtype)
        for frames, direction in zip(self._model.batches(), self._directions, strict=True):
            field = self._model.far_field(change, frames)
            along = (direction.conj() * field).sum(dim=1, keepdim=True).real
            self._model.back_project(direction * along, frames, onto)
        return onto[:-1, :-1].contiguous()


def _directions(
    far_field: Complex[Tensor, "frame mode y x"], background: float
) -> Complex[Tensor, "frame mode y x"]:
    power = far_field.real.square() + far_field.imag.square()
    expected = power.sum(dim=1, keepdim=True) + background
    # Of a pixel without any light nothing can be learnt; its 0 / 0 is 0.
    return 2 * far_field * expected.clamp_min(torch.finfo(expected.dtype).tiny).rsqrt()
