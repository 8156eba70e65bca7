"""Maximum a posteriori reconstruction where the probe and the positions are found with the object."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.methods.posterior import Prior, Remembered, flat_object, minimised, weight_of
from fly64_dose_overlap.methods.state import State
from fly64_dose_overlap.physics.illumination import whole_and_rest
from fly64_dose_overlap.physics.joint import Unknowns, joint_likelihood
from fly64_dose_overlap.physics.likelihood import BACKGROUND_PHOTONS
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.physics.propagation import intensity
from fly64_dose_overlap.scan import Scan

DIM_PROBE = 0.05
"""Part of the largest curvature below which pixels of the probe are scaled no further."""

JUST_HALF = 0.499
"""Of a pixel, which is rounded off."""


@dataclass(frozen=True)
class Stage:
    """A part of the way: what is free, for which part of the iterations, and over which background.

    The object is found first, since from an empty one the probe and positions learn nothing; a
    large background finds the shape, see `Graduated`.
    """

    part: float
    background: float
    probe: bool = True
    positions: bool = True
    waves: bool = True


STAGES = (
    Stage(0.08, 1.0, probe=False, positions=False, waves=False),
    Stage(0.22, 1.0, positions=False),
    Stage(0.22, 1.0),
    Stage(0.16, 0.3),
    Stage(0.32, BACKGROUND_PHOTONS),
)


@dataclass(frozen=True)
class JointPosterior:
    """L-BFGS on the negative log posterior of object, probe and positions, in `STAGES`.

    Likelihood and prior of the object are those of `Posterior`. The prior of a position is a normal
    distribution about the one that was given. What frames cannot tell is held: the power of the
    probe, against which the object could be scaled, and the mean of the positions. Modes are
    orthogonal, the strongest first.
    """

    weight: float
    """Of total variation, see `weight_of`."""
    probe: bool
    """Whether the probe is found."""
    position_px: float | None
    """Standard deviation of each coordinate about the given one, object pixels; None: they are right."""
    epochs: int
    """Iterations that the stages divide; the last goes on after them."""

    def __call__(self, scan: Scan) -> Iterator[State]:
        """Yield the object after every iteration, and probe and positions where they are found."""
        corners, shifts = whole_and_rest(scan.positions_px, scan.side)
        at = Unknowns(flat_object(scan), torch.from_numpy(scan.probe), shifts)
        whole = (corners + scan.side // 2).astype(np.float64)
        model = ScanModel(at.probe, whole, scan.object_shape, scan.detector)
        # A window reaches no further than the grid, however far its probe is shifted.
        low = scan.side // 2 - JUST_HALF
        high = np.array(scan.object_shape) - scan.side + scan.side // 2 + JUST_HALF
        done = 0.0
        for stage in STAGES:
            first, done = round(done * self.epochs), done + stage.part
            objective = _Objective(self, stage, scan, model, at, shifts)
            last = None if stage is STAGES[-1] else round(done * self.epochs) - first
            for variables in islice(minimised(Remembered(objective), objective.blank()), last):
                at = objective.unknowns(variables)
                probe = _orthogonal(at.probe) if self.probe else None
                found = None if self.position_px is None else np.clip(whole + at.shifts_px, low, high)
                yield State(at.obj, probe, found)
            at = replace(at, probe=_orthogonal(at.probe) if self.probe else at.probe)


class _Objective:
    """What is minimised in a stage, by variables along which it is about equally curved."""

    def __init__(
        self,
        solver: JointPosterior,
        stage: Stage,
        scan: Scan,
        model: ScanModel,
        start: Unknowns,
        given_px: Float[NDArray[np.float64], "frame 2"],
    ) -> None:
        self._stage, self._scan, self._model = stage, scan, model
        self._start, self._given = start, given_px
        here = replace(scan, probe=start.probe.numpy())
        self._prior = Prior(here, weight_of(solver.weight, here), start.obj, waves=stage.waves)
        self._shapes = [torch.view_as_real(start.obj).shape]
        self._power = float(intensity(start.probe).sum(dtype=torch.float64))
        self._probe_scale = self._shift_scale = None
        if solver.probe and stage.probe:
            seen = torch.zeros(model.side, model.side)
            for frames in model.batches():
                seen += 2 * intensity(model.patches(start.obj, frames)).sum(dim=0)
            self._probe_scale = (seen + DIM_PROBE * seen.max()).sqrt()
            self._shapes.append(torch.view_as_real(start.probe).shape)
        self._tolerance = solver.position_px
        if solver.position_px is not None and stage.positions:
            waves = 2 * torch.pi * torch.fft.fftfreq(model.side, dtype=torch.float64)
            power = intensity(torch.fft.fft2(start.probe, norm="ortho")).sum(dim=0, dtype=torch.float64)
            curvature = [2 * float(waves.square() @ power.sum(dim=axis)) for axis in (1, 0)]
            self._shift_scale = np.sqrt(np.array(curvature) + 1 / solver.position_px**2)
            self._shapes.append(torch.Size(given_px.shape))

    def blank(self) -> Tensor:
        """Return the variables (number,) of the start."""
        return torch.zeros(sum(map(math.prod, self._shapes)))

    def unknowns(self, variables: Tensor) -> Unknowns:
        """Return what variables stand for."""
        return self._unknowns(variables)[0]

    def _unknowns(self, variables: Tensor) -> tuple[Unknowns, float]:
        """Return what variables stand for, and by what its probe was scaled to the power of the first."""
        parts = self._parted(variables)
        obj, probe, shifts, gain = (
            self._prior.to_object(next(parts)),
            self._start.probe,
            self._start.shifts_px,
            1.0,
        )
        if self._probe_scale is not None:
            changed = probe + torch.view_as_complex(next(parts)) / self._probe_scale
            gain = math.sqrt(self._power / float(intensity(changed).sum(dtype=torch.float64)))
            probe = changed * gain
        if self._shift_scale is not None:
            change = next(parts).double().numpy() / self._shift_scale
            shifts = shifts + change - change.mean(axis=0)
        return Unknowns(obj, probe, shifts), gain

    def __call__(self, variables: Tensor) -> tuple[float, Tensor]:
        """Return the negative log posterior, nats, and its gradient by the variables."""
        at, gain = self._unknowns(variables)
        value, slope = joint_likelihood(self._model, self._scan.counts, at, self._stage.background)
        value, of_object = self._prior.added(value, slope.obj, at.obj)
        found = [of_object]
        if self._probe_scale is not None:
            along = float((slope.probe.conj() * at.probe).real.sum(dtype=torch.float64)) / self._power
            found.append(torch.view_as_real((slope.probe - along * at.probe) * (gain / self._probe_scale)))
        if self._shift_scale is not None:
            assert self._tolerance is not None
            away = (at.shifts_px - self._given) / self._tolerance**2
            value += float((away * (at.shifts_px - self._given)).sum()) / 2
            of_shifts = slope.shifts_px + away
            found.append(torch.from_numpy((of_shifts - of_shifts.mean(axis=0)) / self._shift_scale).float())
        return value, torch.cat([each.flatten() for each in found])

    def _parted(self, variables: Tensor) -> Iterator[Tensor]:
        sizes = [math.prod(shape) for shape in self._shapes]
        for part, shape in zip(variables.split(sizes), self._shapes, strict=True):
            yield part.view(shape)


def _orthogonal(probe: Complex[Tensor, "mode y x"]) -> Complex[Tensor, "mode y x"]:
    """Return modes that are orthogonal, the strongest first, with the same light in all."""
    if len(probe) == 1:
        return probe
    _, powers, modes = torch.linalg.svd(probe.flatten(1), full_matrices=False)
    return (powers[:, None] * modes).reshape(probe.shape)
