"""Fisher information that the photon counts of a scan hold about the object.

`FisherInformation` is that of a given scan and object; `information_of_waves` is what one probe
tells of each spatial frequency of a nearly empty object, which shows how slow an iteration will be.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.parallel import frame_parts, in_parts
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.physics.propagation import intensity, to_detector
from fly64_dose_overlap.physics.sweep import information_product


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
    obj : (y, x) complex
        Object at which the information is taken: the truth, for a bound.
    background : float, photons per detector pixel, >= 0
        b, uninformative photons under the signal, beside the detector's own. They take the
        information of pixels with I << b away; without them a pixel informs by its phase however dark it is.

    Notes
    -----
    The directions u of all frames are kept, one complex number per frame, mode and pixel:
    half of the Fourier transforms of a product less.
    """

    def __init__(self, model: ScanModel, obj: Complex[Tensor, "h w"], *, background: float = 0.0) -> None:
        self._model = model

        def directions(part: slice) -> Tensor:
            found: list[Tensor] = []
            for frames in model.batches(part):
                field, pixels = model.far_field(obj, frames), model.pixels(frames)
                expected = pixels.expected(intensity(field).sum(dim=1)) + background
                # Of a pixel without any light nothing can be learnt; its 0 / 0 is 0.
                inverse = expected.clamp_min(torch.finfo(expected.dtype).tiny).rsqrt()
                if pixels.blind is not None:
                    inverse = inverse.masked_fill(pixels.blind, 0)
                found.append(2 * field * inverse[:, None])
            return torch.cat(found)

        self._directions = in_parts(directions, frame_parts(model.frames))

    def product(self, change: Complex[Tensor, "h w"]) -> Complex[Tensor, "h w"]:
        """Return the information times a change of the object, photons.

        The real inner product of ``change`` and this is the information about ``change``.
        """
        model = self._model
        if change.device.type == "cpu" and change.dtype == torch.complex64:
            return information_product(model, self._directions, change)
        onto = model.blank(change.dtype)
        for part, directions in zip(frame_parts(model.frames), self._directions, strict=True):
            for frames in model.batches(part):
                direction = directions[frames.start - part.start : frames.stop - part.start]
                field = model.far_field(change, frames)
                along = (direction.conj() * field).sum(dim=1, keepdim=True).real
                model.back_project(direction * along, frames, onto)
        return onto


def information_of_waves(
    probe: Complex[Tensor, "mode y x"], frequencies: NDArray[np.float64]
) -> Float[NDArray[np.float64], "2 frequency"]:
    """Return the information on weak waves of amplitude and of phase on an empty object.

    A wave of spatial frequency q scatters light from k - q and from k + q to k. With the far
    field F of the empty object and C(k, q) = conj(F(k)) F(k - q), averaged over where the wave
    has its crests, counts inform on its amplitude or phase by the sum over k of

        abs(C(k, q) +- conj(C(k, -q)))^2 / (2 I(k))

    times its mean square: + for amplitude, - for phase. A slow phase hardly changes any count,
    since both terms cancel: its information falls as q^2.

    Parameters
    ----------
    probe : (mode, y, x) complex
    frequencies : (frequency,) float, cycles per object pixel
        Taken along y and along x, and averaged.

    Returns
    -------
    (2, frequency) float
        Amplitude and phase, in multiples of what they tend to when the two terms no longer meet,
        twice the photons of the probe.
    """
    side = probe.shape[-1]
    far_field = to_detector(probe)
    expected = intensity(far_field).sum(dim=0)
    weight = 1 / (4 * expected.sum() * expected.clamp_min(torch.finfo(expected.dtype).tiny))
    places = torch.arange(side, dtype=expected.dtype, device=probe.device)
    found = np.zeros((2, len(frequencies)))
    for index, frequency in enumerate(frequencies):
        wave = torch.polar(torch.ones_like(places), 2 * torch.pi * frequency * places)
        for ramp in (wave[:, None], wave):
            up, down = (
                (far_field.conj() * to_detector(probe * part)).sum(dim=0) for part in (ramp, ramp.conj())
            )
            for row, both in zip(found, (up + down.conj(), up - down.conj()), strict=True):
                row[index] += float((intensity(both) * weight).sum())
    return found
