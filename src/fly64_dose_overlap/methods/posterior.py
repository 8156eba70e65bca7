"""Maximum a posteriori reconstruction: Poisson likelihood and total variation by L-BFGS."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import torch
from torch import Tensor

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.physics.fisher import information_of_waves
from fly64_dose_overlap.physics.likelihood import BACKGROUND_PHOTONS, scan_likelihood
from fly64_dose_overlap.physics.propagation import intensity
from fly64_dose_overlap.scan import Scan

WEAK_ILLUMINATION = 0.01
"""Part of the largest illumination below which variables are scaled no further."""
EDGE_CONTRAST = 0.05
"""Differences well below this count squared in total variation, so that it has a gradient everywhere."""
SPREAD = 3.0
"""Standard deviation of the object about its mean, of real and imaginary part, in the prior."""
BACKGROUNDS = ((1.0, 0.2), (0.3, 0.2), (BACKGROUND_PHOTONS, 0.6))
"""Backgrounds of `Graduated`, photons per detector pixel, each with its part of the epochs."""
WAVES = 64
"""Spatial frequencies for which the information is computed; between them it is interpolated."""
FIRST_STEP = 0.2
"""Length of the first step that L-BFGS tries, in slopes; in scaled variables about one is best."""
HISTORY = 10
"""Pairs of steps and gradients that L-BFGS keeps."""


@dataclass(frozen=True)
class Posterior:
    """L-BFGS on the negative log posterior of the object.

    The likelihood is the shifted Poisson one, I + b - (n + b) log(I + b) summed
    over pixels and frames. The prior is the total variation of the complex object,
    ``weight`` times the sum of sqrt(|d_y O|^2 + |d_x O|^2 + c^2), c = `EDGE_CONTRAST`, and the
    sum of |O - mean|^2 / (2 `SPREAD`^2): total variation hardly minds slow waves, of which few
    photons tell nothing. With weight 0 there is no prior: maximum likelihood.

    Variables are such that the posterior is about equally curved everywhere. They are the
    change of the object times the root of an estimate of the curvature: twice the illumination,
    close to the Fisher information, and weight / c of the prior where the object is smooth. On
    from a given start, its waves of amplitude and phase are also weighted by the root of what
    frames tell of them (`information_of_waves`): of slow phases they tell a thousandth of the
    rest, which would take some hundred iterations otherwise. From an empty object first steps
    are so large that this does harm.

    One epoch is one iteration: mostly one evaluation of all frames and its gradient.
    """

    weight: float = 0.0
    """Nats per unit of object contrast and pixel."""
    start: Tensor | None = None
    """First object, (y, x) complex64; the empty object if not given."""
    background: float = BACKGROUND_PHOTONS
    """Photons per detector pixel."""

    def __call__(self, scan: Scan) -> Iterator[Tensor]:
        """Yield the object after every iteration, (y, x) complex64; refuse a posterior that is not finite."""
        objective = _Objective(self, scan)
        variables = torch.zeros_like(torch.view_as_real(flat_object(scan))).requires_grad_()
        optimiser = torch.optim.LBFGS(
            [variables],
            max_iter=1,
            max_eval=20,
            history_size=HISTORY,
            tolerance_grad=0,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )

        def evaluate() -> Tensor:
            value, variables.grad = objective.value_and_gradient(variables.detach())
            return value

        # L-BFGS divides the first step by the sum of all slopes: the larger the object, the
        # more often its line search would have to lengthen it.
        slopes = objective.value_and_gradient(variables.detach())[1]
        optimiser.param_groups[0]["lr"] = max(1.0, FIRST_STEP * float(slopes.abs().sum()))
        for epoch in count(1):
            value = optimiser.step(evaluate)
            optimiser.param_groups[0]["lr"] = 1.0
            if not torch.isfinite(value):
                raise StudyError("L-BFGS", f"what it minimises is {float(value)} in iteration {epoch}")
            yield objective.to_object(variables.detach())


@dataclass(frozen=True)
class Graduated:
    """`Posterior` with a background that falls in steps, `BACKGROUNDS`.

    The smaller the background, the better is each photon used, and the more do wrong phases
    hold each other in place, since a photon where none is expected counts for much. A large
    background first finds the shape, a small one the rest (graduated non-convexity: Blake
    and Zisserman, Visual Reconstruction, 1987). After ``epochs`` the last background stays.
    """

    weight: float
    """Nats per unit of object contrast and pixel."""
    epochs: int
    """Iterations that the steps divide."""

    def __call__(self, scan: Scan) -> Iterator[Tensor]:
        """Yield the object after every iteration, (y, x) complex64."""
        start: Tensor | None = None
        for background, part in BACKGROUNDS:
            last = background == BACKGROUNDS[-1][0]
            solver = Posterior(self.weight, start, background)
            for obj in islice(solver(scan), None if last else round(part * self.epochs)):
                start = obj
                yield obj


def weight_of(relative: float, scan: Scan) -> float:
    """Return the weight of total variation, in nats, from one that hardly depends on the dose.

    Noise of the object has a standard deviation of 1 / sqrt(2 n) at n photons per pixel,
    and total variation removes it if its weight is of the order of 2 n times that. So
    weight = relative * sqrt(2 n), n the median illumination of the lit pixels.
    """
    illumination = scan.illumination()
    lit = illumination[illumination > 0.1 * illumination.max()]
    return relative * math.sqrt(2 * float(np.median(lit)))


def flat_object(scan: Scan) -> Tensor:
    """Return the empty object, (y, x) complex64 ones, from which methods start."""
    return torch.ones(scan.object_shape, dtype=torch.complex64)


class _Objective:
    def __init__(self, settings: Posterior, scan: Scan) -> None:
        self._settings = settings
        self._scan = scan
        illumination = torch.from_numpy(scan.illumination().astype(np.float32))
        curvature = 2 * illumination + WEAK_ILLUMINATION * illumination.max()
        self._scale = (curvature + settings.weight / EDGE_CONTRAST).sqrt()
        start = settings.start
        self._filter = None if start is None else _wave_filter(scan)
        self._start = flat_object(scan) if start is None else start
        size = self._start.abs()
        self._turn = torch.where(size > 0, self._start / size, 1)
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def to_object(self, variables: Tensor) -> Tensor:
        change = torch.view_as_complex(self._filtered(variables)) / self._scale
        return self._start + self._turn * change

    def _filtered(self, planes: Tensor) -> Tensor:
        """Filter amplitude and phase, (y, x, 2); the filter is its own adjoint."""
        if self._filter is None:
            return planes
        waves = torch.fft.rfft2(planes, dim=(0, 1)) * self._filter
        return torch.fft.irfft2(waves, s=planes.shape[:2], dim=(0, 1)).contiguous()

    def value_and_gradient(self, variables: Tensor) -> tuple[Tensor, Tensor]:
        """Return the negative log posterior and its gradient; a repeated question costs nothing.

        L-BFGS asks for its present point again at the start of every iteration.
        """
        if self._last is None or not torch.equal(self._last[0], variables):
            settings, obj = self._settings, self.to_object(variables)
            value, gradient = scan_likelihood(self._scan.model, self._scan.counts, obj, settings.background)
            if settings.weight > 0:
                variation, slope = total_variation(obj)
                distance, pull = distance_from_mean(obj)
                value += settings.weight * variation + distance
                gradient = gradient + settings.weight * slope + pull
            slopes = self._filtered(torch.view_as_real(gradient * self._turn.conj() / self._scale))
            self._last = variables.clone(), torch.tensor(value, dtype=torch.float64), slopes
        return self._last[1], self._last[2].clone()


def _wave_filter(scan: Scan) -> Tensor:
    """Return 1 over the root of what frames tell of amplitude and phase, (y, x / 2 + 1, 2)."""
    rows, columns = scan.object_shape
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns))
    known = np.geomspace(1 / max(rows, columns), frequency.max(), WAVES)
    roots = np.sqrt(information_of_waves(torch.from_numpy(scan.probe), known))
    planes = [np.interp(frequency, known, 1 / root) for root in roots]
    return torch.from_numpy(np.stack(planes, axis=-1).astype(np.float32))


def total_variation(obj: Tensor) -> tuple[float, Tensor]:
    """Return the total variation of a complex image (y, x), and its gradient.

    The value changes by the real part of sum conj(gradient) change. It is the
    sum of sqrt(|d_y O|^2 + |d_x O|^2 + c^2) - c, c = `EDGE_CONTRAST`, with forward differences
    that are zero at the far edges (Rudin, Osher, Fatemi, Physica D 60, 259, 1992).
    """
    down, across = torch.zeros_like(obj), torch.zeros_like(obj)
    down[:-1] = obj[1:] - obj[:-1]
    across[:, :-1] = obj[:, 1:] - obj[:, :-1]
    size = (intensity(down) + intensity(across) + EDGE_CONTRAST**2).sqrt()
    value = float((size - EDGE_CONTRAST).sum(dtype=torch.float64))
    down, across = down / size, across / size
    gradient = -down - across
    gradient[1:] += down[:-1]
    gradient[:, 1:] += across[:, :-1]
    return value, gradient


def distance_from_mean(obj: Tensor) -> tuple[float, Tensor]:
    """Return the sum of |O - mean|^2 / (2 `SPREAD`^2) over the pixels, nats, and its gradient.

    Takes and gives what `total_variation` does.
    """
    away = obj - obj.mean()
    return float(intensity(away).sum(dtype=torch.float64)) / (2 * SPREAD**2), away / SPREAD**2
