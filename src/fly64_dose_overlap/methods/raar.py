"""Relaxed averaged alternating reflections, a projection method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from fly64_dose_overlap.config import Epochs
from fly64_dose_overlap.methods.base import Iteration, IterationSettings
from fly64_dose_overlap.methods.posterior import flat_object
from fly64_dose_overlap.methods.state import State
from fly64_dose_overlap.physics.detector import Pixels
from fly64_dose_overlap.physics.propagation import from_detector, intensity, to_detector
from fly64_dose_overlap.scan import Scan

BACKGROUND_PHOTONS = 0.1
"""Stands under counted and expected photons, so that empty pixels do not pull at full strength."""
WEAK_ILLUMINATION = 0.001
"""Part of the largest illumination below which the object keeps its former value."""


class RelaxedReflections(Iteration):
    """RAAR on the exit waves of all frames (D. R. Luke, Inverse Problems 21, 37, 2005).

    With M the projection onto the measured amplitudes and S the one onto exit waves that have
    an object in common, an epoch takes the exit waves x to

        beta / 2 (R_S R_M + 1) x + (1 - beta) M x,   R = 2 (projection) - 1.

    S is linear, and S x of this epoch is S M x of the one before: what has to be kept is one
    exit wave per frame and the last two objects. The object of S M x is the result.
    """

    name = "raar"
    label = "RAAR"
    threaded = False

    class Settings(IterationSettings):
        """Settings of RAAR."""

        epochs: Epochs = 60
        beta: Annotated[float, Field(ge=0.5, le=1)] = 0.6
        """1 is Douglas-Rachford, 1/2 the most damped. Held-out photons prefer 0.5 to 0.6."""

    def run(self, scan: Scan, seed: int) -> Iterator[State]:
        """Yield the object after every epoch; nothing is random."""
        del seed
        model, beta = scan.model, self.settings.beta
        light = torch.from_numpy(scan.illumination()).float()
        floor = WEAK_ILLUMINATION * light.max()
        obj = before = flat_object(scan)
        rest = torch.zeros(len(scan), *scan.probe.shape, dtype=torch.complex64)
        mixed = obj
        while True:
            total = floor * obj
            for frames in model.batches():
                waves = rest[frames] + model.exit_waves(mixed, frames)
                measured = with_amplitudes(waves, torch.from_numpy(scan.counts[frames]), model.pixels(frames))
                model.place((measured * model.probes(frames).conj()).sum(dim=1), frames, total)
                rest[frames] = beta * waves + (1 - 2 * beta) * measured
            before, obj = obj, total / (light + floor)
            mixed = 2 * beta * obj - beta * before
            yield State(obj)


def with_amplitudes(waves: Tensor, counts: Tensor, pixels: Pixels) -> Tensor:
    """Return exit waves (frame, mode, y, x) with the counted photons in their far fields.

    Blind pixels keep theirs.
    """
    field = to_detector(waves)
    expected = pixels.expected(intensity(field).sum(dim=1))
    counts = pixels.filled(counts, expected)
    ratio = ((counts + BACKGROUND_PHOTONS) / (expected + BACKGROUND_PHOTONS)).sqrt()
    return from_detector(field * ratio[:, None])
