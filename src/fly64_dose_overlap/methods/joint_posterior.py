"""Maximum a posteriori of object, probe, positions and flux: what is not known of a scan is found."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.methods.posterior import (
    FIRST_WEIGHT,
    Prior,
    Remembered,
    flat_object,
    minimised,
    weight_of,
)
from fly64_dose_overlap.methods.searches import (
    about_middle,
    focused,
    held_out_values,
    in_two,
    powered,
    quick_object,
    with_modes,
    with_outliers_found,
    with_probe_of_data,
)
from fly64_dose_overlap.parallel import one_torch_thread
from fly64_dose_overlap.physics.fit import Fit, fit, mean_frame_deviance, tells_nothing
from fly64_dose_overlap.physics.illumination import whole_and_rest
from fly64_dose_overlap.physics.joint import Unknowns, joint_likelihood, position_curvature, probe_curvature
from fly64_dose_overlap.physics.likelihood import BACKGROUND_PHOTONS
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.physics.modes import envelope, orthogonal
from fly64_dose_overlap.physics.propagation import intensity
from fly64_dose_overlap.progress import say, track
from fly64_dose_overlap.scan import ANEW, MOST_MODES, Scan, Unknown
from fly64_dose_overlap.seeding import generator

LEAST_MODE = 1e-6
"""Part of the power below which a mode is none: it would never grow."""
MOST_LEFT = 0.2
"""See `tells_nothing`; of frames that were fitted, which any object explains in part."""
LEFT_OUT, LEAST_FRAMES, FORETOLD_FRAMES = 8, 16, 625
"""Of these frames at most, about the middle, one of eight is left out for what was found to foretell."""
EXPLAINED = 0.97
"""Of the deviance of noise alone; an object of those very frames leaves less, if nothing is wrong."""
SURE = 3.0
"""Standard errors by which one more must be better."""


@dataclass(frozen=True)
class Stage:
    """A part of the way: its iterations, what is free beside the object, and over which background.

    The object is found first, since from an empty one the probe and positions learn nothing; a
    large background finds the shape, see `Graduated`.
    """

    iterations: int
    background: float
    probe: bool = True
    others: bool = True
    """Positions and flux."""
    modes: bool = False
    """Whether modes that the probe lacks are added before it."""
    outliers: bool = False
    """Whether positions of the frames that are explained worst are searched before it."""
    coarse: bool = False
    """Whether the object is blurred, and pixels near the edge of the detector do not count."""


FIRST = (
    Stage(15, 1.0, probe=False, others=False),
    Stage(40, 1.0, others=False),
    Stage(40, 1.0, modes=True),
)
NEXT = 2 * (Stage(30, 1.0),)
POSITIONS = Stage(100, 1.0, outliers=True)
"""Instead of `NEXT`, `ROUNDS` times, with all before and themselves coarse."""
ROUNDS = (3, 6)
"""Of positions, for errors of up to `SMALL_ERROR` and for larger ones; chosen on simulated scans."""
SMALL_ERROR = 1.0
"""Standard deviation, object pixels."""
LAST = (Stage(40, 0.3), Stage(20, 0.3, outliers=True), Stage(60, BACKGROUND_PHOTONS))

BLUR = 0.12
"""Frequency by which a coarse object is blurred (standard deviation), cycles per object pixel."""
COARSE_PART = 0.5
"""Of the photons, that the disc of the detector holds which coarse stages see."""
MODES_TRIED = Stage(30, 0.3, others=False)
"""For each number of modes."""


def stages_of(unknown: Unknown) -> tuple[Stage, ...]:
    """Return the stages by which what is unknown is found.

    Where light reaches the edge of the detector, waves beyond it come back at the other side, and an
    object is tied to whole pixels: neighbours whose positions were off by half a pixel on average settle
    a whole pixel from the rest, and stay. So positions are first found with a coarse object, of which
    nothing comes back.
    """
    if unknown.positions_px:
        rounds = ROUNDS[unknown.positions_px > SMALL_ERROR]
        return (*(replace(stage, coarse=True) for stage in (*FIRST, *rounds * (POSITIONS,))), *LAST)
    return (*FIRST, *NEXT, *LAST)


def calibrated(scan: Scan, label: str) -> Scan:
    """Return a scan with what was `Unknown` of it found.

    L-BFGS on the negative log posterior of all together, in the stages of `stages_of`. Likelihood and prior
    of the object are those of `Posterior`, with the first weight of its search. Positions and the logarithms
    of flux are normal about what was given. Pixels of the probe are normal about zero, with the probe's own
    blurred power for their variance. What frames cannot tell is held: the power of the probe, against which
    the object could be scaled and which is that of the photons, the mean of the positions, which a probe
    that is free would follow, and that of the logarithms of flux. Modes are orthogonal, the strongest first.

    Parameters
    ----------
    label : str
        Names the work in the progress line.
    """
    unknown = scan.unknown
    margin = math.ceil(3 * unknown.positions_px)
    reached, window = scan.cropped()
    # A position may go on beyond the grid that the given ones reach, until all are found.
    rows, columns = (size + 2 * margin for size in reached.object_shape)
    reached = replace(reached, positions_px=reached.positions_px + margin, object_shape=(rows, columns))
    total = sum(stage.iterations for stage in stages_of(unknown))
    with one_torch_thread():
        states = track(_states(_begun(reached), reached), total=total, label=label, unit="iteration")
        here, obj = deque(states, maxlen=1).pop()
        own = fit(here.model, here.counts, obj, generator(0, "calibrated", "floor"))
        _warn_if_little_is_explained(here, own, label)
    low = np.array([window[0].start, window[1].start]) - margin
    positions = scan.on_grid(here.positions_px + low)
    return replace(scan, probe=here.probe, positions_px=positions, flux=here.flux, unknown=Unknown())


def _warn_if_little_is_explained(scan: Scan, own: Fit, label: str) -> None:
    """Warn where a scan's frames, of which ``own`` is the fit, are hardly explained or others not foretold.

    Few frames are explained by some object whatever their positions, if not as well as by a right one;
    frames that it was not made of are not.
    """
    found, problem = own, "explains the frames little better than their own mean does"
    little = tells_nothing(own, mean_frame_deviance(scan.model, scan.counts), MOST_LEFT)
    if not little and len(scan) >= LEAST_FRAMES and own.deviance > EXPLAINED * own.deviance_floor:
        part = about_middle(scan, FORETOLD_FRAMES)
        left_out = np.arange(len(part)) % LEFT_OUT == LEFT_OUT // 2
        obj = quick_object(part.frames(np.flatnonzero(~left_out)))
        others = part.frames(np.flatnonzero(left_out))
        found = fit(others.model, others.counts, obj, generator(0, "calibrated", "left out"))
        problem = "foretells frames that were left out no better than their own mean does"
        little = tells_nothing(found, mean_frame_deviance(others.model, others.counts), most_left=1.0)
    if little:
        figures = f"(R-factor {found.r_factor:.3f}, noise {found.r_floor:.3f})"
        hint = "do unit, axes and order of positions, frames and probe belong together? Do frames overlap?"
        warnings.warn(f"{label}: what was found {problem} {figures}: {hint}", stacklevel=3)


def started(scan: Scan) -> Scan:
    """Return the scan with the probe that a method may begin with which looks for it by its own means.

    It is that which joint MAP begins with, and as many modes.
    """
    unknown, begun = scan.unknown, _begun(scan)
    if unknown.modes == "auto":
        *_, (there, obj) = islice(_states(begun, begun), sum(stage.iterations for stage in FIRST[:2]))
        return with_modes(begun, _told_modes(there, obj))
    return with_modes(begun, unknown.modes) if unknown.modes else begun


def _begun(scan: Scan) -> Scan:
    """Return the scan with a probe to begin with if it is unknown: in focus, with the photons' power."""
    if scan.unknown.probe == ANEW:
        return focused(with_probe_of_data(scan))
    return focused(powered(_sound(scan))) if scan.unknown.probe else scan


def _sound(scan: Scan) -> Scan:
    """Return the scan with its probe in the middle of its frame, and with others for modes that are none."""
    probe = torch.from_numpy(scan.probe)
    modes = orthogonal(probe)
    light = intensity(modes).sum(dim=(1, 2))
    lit = int((light > LEAST_MODE * light.sum()).sum())
    turns = torch.polar(torch.ones(scan.side), 2 * torch.pi * torch.arange(scan.side) / scan.side)
    power = intensity(modes).sum(dim=0)
    centre = [float(torch.angle((power.sum(dim=axis) * turns).sum())) for axis in (1, 0)]
    away = [round(scan.side // 2 - angle * scan.side / (2 * math.pi)) % scan.side for angle in centre]
    if all(min(each, scan.side - each) < scan.side / 4 for each in away):
        away = [0, 0]
    else:
        say("probe: it lies at the edge of its frame, and is moved to the middle")
    if lit == len(modes):
        return replace(scan, probe=torch.roll(probe, away, dims=(1, 2)).numpy())
    say(f"probe: {len(modes) - lit} of its modes are none of their own, and others take their place")
    moved = torch.roll(modes[:lit], away, dims=(1, 2)).numpy()
    return with_modes(replace(scan, probe=moved), len(modes))


def _states(scan: Scan, given: Scan) -> Iterator[tuple[Scan, Tensor]]:
    """Yield scan and object after every iteration of all stages, from a scan that was begun."""
    unknown, obj, mask = scan.unknown, flat_object(scan), scan.mask
    middle = _middle(scan) if unknown.positions_px else scan
    for stage in stages_of(unknown):
        scan = replace(scan, mask=middle.mask if stage.coarse else mask)
        if stage.modes and unknown.modes:
            scan = with_modes(scan, unknown.modes if unknown.modes != "auto" else _told_modes(scan, obj))
        if stage.outliers and unknown.positions_px:
            scan = with_outliers_found(scan, given.positions_px, obj, stage.background)
        for found in _iterations(scan, given, obj, stage):
            scan, obj = found
            yield found


def _middle(scan: Scan) -> Scan:
    """Return the scan with pixels masked outside of the disc that holds `COARSE_PART` of the photons."""
    photons = np.zeros((scan.side, scan.side))
    for block in scan.blocks():
        photons += block.sum(axis=0, dtype=np.float64)
    photons *= scan.always_counting
    waves = np.arange(scan.side) - scan.side // 2
    away = np.hypot(waves[:, None], waves)
    order = np.argsort(away, axis=None, kind="stable")
    held = np.cumsum(photons.ravel()[order])
    radius = away.ravel()[order][np.searchsorted(held, COARSE_PART * held[-1])]
    disc = away <= radius
    return replace(scan, mask=disc if scan.mask is None else scan.mask[:] & disc)


def _iterations(scan: Scan, given: Scan, obj: Tensor, stage: Stage) -> Iterator[tuple[Scan, Tensor]]:
    """Yield scan and object after every iteration of a stage, priors about what was ``given``."""
    objective = _Objective(stage, scan, given, obj)
    for variables in islice(minimised(Remembered(objective), objective.blank()), stage.iterations):
        found = objective.unknowns(variables)
        yield objective.told(found), found.obj


def continued(scan: Scan, obj: Tensor, stage: Stage) -> tuple[Scan, Tensor]:
    """Return scan and object after a stage on from some object, with what is unknown of the scan free."""
    return deque(_iterations(scan, scan, obj, stage), maxlen=1).pop()


def _told_modes(scan: Scan, obj: Tensor) -> int:
    """Return the number of modes from which on one more does not explain held-out photons better.

    Each number is given some iterations on the other photons, on from what the one before has reached.
    """
    fit, held = in_two(scan, "modes")
    fit, before = replace(fit, unknown=Unknown(probe=True)), None
    for modes in range(1, MOST_MODES + 1):
        fit, obj = continued(with_modes(fit, modes), obj, MODES_TRIED)
        values = held_out_values(held, fit, obj, BACKGROUND_PHOTONS)
        if before is not None:
            gain = before - values
            surely = gain.mean() > SURE * gain.std(ddof=1) / len(gain) ** 0.5
            say(f"modes: {modes} explain held-out photons by {gain.mean():.4g} nats per frame better")
            if not surely:
                return modes - 1
        before = values
    return MOST_MODES


class _Objective:
    """What is minimised in a stage, by variables along which it is about equally curved."""

    def __init__(self, stage: Stage, scan: Scan, given: Scan, obj: Tensor) -> None:
        unknown = scan.unknown
        self._stage, self._scan, self._given = stage, scan, given
        corners, shifts = whole_and_rest(scan.positions_px, scan.side)
        self._whole = (corners + scan.side // 2).astype(np.float64)
        log_flux = np.zeros(len(scan)) if scan.flux is None else np.log(scan.flux)
        self._start = Unknowns(obj, torch.from_numpy(scan.probe), shifts, log_flux)
        probe = self._start.probe
        self._model = model = ScanModel(probe, self._whole, scan.object_shape, scan.detector)
        blur = BLUR if stage.coarse else None
        self._prior = Prior(scan, weight_of(FIRST_WEIGHT, scan), obj, waves=stage.probe, blur=blur)
        self._shapes = [torch.view_as_real(obj).shape]
        self._power = float(intensity(probe).sum(dtype=torch.float64))
        self._probe_scale = self._shift_scale = self._flux_scale = None
        if unknown.probe and stage.probe:
            seen = probe_curvature(model, obj)
            self._envelope = 1 / envelope(probe)
            self._probe_scale = (seen + 2 * self._envelope).sqrt()
            self._shapes.append(torch.view_as_real(probe).shape)
        if unknown.positions_px and stage.others:
            self._shift_scale = np.sqrt(position_curvature(probe) + 1 / unknown.positions_px**2)
            self._shapes.append(torch.Size(shifts.shape))
        if unknown.flux and stage.others:
            self._flux_scale = math.sqrt(scan.photons_per_frame + 1 / unknown.flux**2)
            self._shapes.append(torch.Size(log_flux.shape))

    def blank(self) -> Tensor:
        """Return the variables (number,) of the start."""
        return torch.zeros(sum(map(math.prod, self._shapes)))

    def unknowns(self, variables: Tensor) -> Unknowns:
        """Return what variables stand for."""
        return self._unknowns(variables)[0]

    def told(self, found: Unknowns) -> Scan:
        """Return the scan with what was found, its modes orthogonal."""
        unknown = self._scan.unknown
        probe = orthogonal(found.probe).numpy() if unknown.probe else self._scan.probe
        positions = self._scan.positions_px
        if unknown.positions_px:
            positions = self._scan.on_grid(self._whole + found.shifts_px)
        flux = np.exp(found.log_flux) if unknown.flux else self._scan.flux
        return replace(self._scan, probe=probe, positions_px=positions, flux=flux)

    def _unknowns(self, variables: Tensor) -> tuple[Unknowns, float]:
        """Return what variables stand for, and by what its probe was scaled to the power of the first."""
        parts, start, gain = self._parted(variables), self._start, 1.0
        obj = self._prior.to_object(next(parts))
        probe, shifts, log_flux = start.probe, start.shifts_px, start.log_flux
        if self._probe_scale is not None:
            changed = probe + torch.view_as_complex(next(parts)) / self._probe_scale
            gain = math.sqrt(self._power / float(intensity(changed).sum(dtype=torch.float64)))
            probe = changed * gain
        if self._shift_scale is not None:
            change = next(parts).double().numpy() / self._shift_scale
            shifts = shifts + self._with_mean_held(change)
        if self._flux_scale is not None:
            change = next(parts).double().numpy() / self._flux_scale
            log_flux = log_flux + change - change.mean()
        return Unknowns(obj, probe, shifts, log_flux), gain

    def __call__(self, variables: Tensor) -> tuple[float, Tensor]:
        """Return the negative log posterior, nats, and its gradient by the variables."""
        at, gain = self._unknowns(variables)
        value, slope = joint_likelihood(self._model, self._scan.counts, at, self._stage.background)
        value, of_object = self._prior.added(value, slope.obj, at.obj)
        found, unknown = [of_object], self._scan.unknown
        if self._probe_scale is not None:
            pull = self._envelope * at.probe
            value += float((pull.conj() * at.probe).real.sum(dtype=torch.float64))
            of_probe = slope.probe + 2 * pull
            along = float((of_probe.conj() * at.probe).real.sum(dtype=torch.float64)) / self._power
            found.append(torch.view_as_real((of_probe - along * at.probe) * (gain / self._probe_scale)))
        if self._shift_scale is not None:
            away = self._whole + at.shifts_px - self._given.positions_px
            value += float((away**2).sum()) / (2 * unknown.positions_px**2)
            of_shifts = slope.shifts_px + away / unknown.positions_px**2
            of_shifts = self._with_mean_held(of_shifts) / self._shift_scale
            found.append(torch.from_numpy(of_shifts).float())
        if self._flux_scale is not None:
            away = at.log_flux if self._given.flux is None else at.log_flux - np.log(self._given.flux)
            value += float((away**2).sum()) / (2 * unknown.flux**2)
            of_flux = slope.log_flux + away / unknown.flux**2
            found.append(torch.from_numpy((of_flux - of_flux.mean()) / self._flux_scale).float())
        return value, torch.cat([each.flatten() for each in found])

    def _with_mean_held(self, along: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return changes of positions without what a probe that is free would follow."""
        return along - along.mean(axis=0) if self._scan.unknown.probe else along

    def _parted(self, variables: Tensor) -> Iterator[Tensor]:
        sizes = [math.prod(shape) for shape in self._shapes]
        for part, shape in zip(variables.split(sizes), self._shapes, strict=True):
            yield part.view(shape)
