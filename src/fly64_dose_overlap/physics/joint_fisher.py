"""Fisher information of a scan about the object and what else is unknown: probe, positions, flux."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Complex
from torch import Tensor

from fly64_dose_overlap.parallel import frame_parts, in_parts
from fly64_dose_overlap.physics.joint import Unknowns
from fly64_dose_overlap.physics.model import ScanModel, centring
from fly64_dose_overlap.physics.propagation import from_detector, intensity, to_detector


class JointInformation:
    """The information as a product, see `FisherInformation`, of which that is the object's own block.

    A frame's own probe P_j is the shared one, shifted and in the frame's light. A change of the shared probe,
    of the frame's position and of its light changes P_j, and the far field by F(P_j dO_j + O_j dP_j).

    Parameters
    ----------
    model : ScanModel
        On the processor.
    at : Unknowns
        Where the information is taken; the model is that of the same probe, positions and flux.
    """

    def __init__(self, model: ScanModel, at: Unknowns) -> None:
        self._model, self._obj = model, at.obj
        self._waves = torch.from_numpy(-2j * np.pi * np.fft.fftfreq(model.side)).to(at.obj.dtype)
        self._shifts = torch.from_numpy(at.shifts_px.astype(np.float32))
        self._amplitudes = torch.from_numpy(np.exp(at.log_flux / 2).astype(np.float32))
        self._centre = centring(model.side, at.obj)

    def product(self, change: Unknowns) -> Unknowns:
        """Return the information times a change of all, photons."""
        model, spectrum = self._model, torch.fft.fft2(change.probe)
        shifts, light = (
            torch.from_numpy(each.astype(np.float32)) for each in (change.shifts_px, change.log_flux)
        )

        def work(part: slice) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
            onto, of_probe = model.blank(self._obj.dtype), torch.zeros_like(spectrum)
            of_shifts, of_light = list[Tensor](), list[Tensor]()
            for frames in model.batches(part):
                probes, patches = model.probes(frames), model.patches(self._obj, frames)[:, None]
                # Of each frame's own probe, in Fourier space: the ramp of its shift, and by what it is moved.
                own = torch.fft.fft2(probes * self._centre.conj())
                slopes = own[:, None] * self._slopes
                ramps = (
                    torch.exp(
                        self._shifts[frames, 0, None, None] * self._waves[:, None]
                        + self._shifts[frames, 1, None, None] * self._waves
                    )[:, None]
                    * self._amplitudes[frames, None, None, None]
                )
                moved = (slopes * shifts[frames, :, None, None, None]).sum(dim=1)
                own_change = ramps * spectrum + moved + own * (light[frames, None, None, None] / 2)
                changed = torch.fft.ifft2(own_change) * self._centre
                field = to_detector(patches * probes)
                expected = model.pixels(frames).expected(intensity(field).sum(dim=1))
                inverse = expected.clamp_min(torch.finfo(expected.dtype).tiny).rsqrt()
                if (blind := model.pixels(frames).blind) is not None:
                    inverse = inverse.masked_fill(blind, 0)
                towards = 2 * field * inverse[:, None]
                apart = to_detector(model.patches(change.obj, frames)[:, None] * probes + patches * changed)
                along = (towards.conj() * apart).real.sum(dim=1, keepdim=True)
                back = from_detector(towards * along)
                model.place((probes.conj() * back).sum(dim=1), frames, onto)
                own_back = torch.fft.fft2(patches.conj() * back * self._centre.conj())
                of_probe += (ramps.conj() * own_back).sum(dim=0)
                scale = 1 / model.side**2
                of_shifts.append((slopes.conj() * own_back[:, None]).real.sum(dim=(2, 3, 4)) * scale)
                of_light.append((own.conj() * own_back).real.sum(dim=(1, 2, 3)) * (scale / 2))
            return onto, of_probe, of_shifts, of_light

        found = in_parts(work, frame_parts(model.frames))
        onto, of_probe, of_shifts, of_light = zip(*found, strict=True)
        return Unknowns(
            torch.stack(onto).sum(dim=0),
            torch.fft.ifft2(torch.stack(of_probe).sum(dim=0)),
            torch.cat([each for part in of_shifts for each in part]).double().numpy(),
            torch.cat([each for part in of_light for each in part]).double().numpy(),
        )

    @property
    def _slopes(self) -> Complex[Tensor, "2 1 y x"]:
        side = len(self._waves)
        both = [self._waves[:, None].expand(side, side), self._waves.expand(side, side)]
        return torch.stack(both)[:, None]
