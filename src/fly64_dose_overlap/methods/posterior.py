"""Maximum a posteriori reconstruction: Poisson likelihood and total variation by L-BFGS."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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

FIRST_WEIGHT = 0.4
"""Of total variation, where a search for it begins, see `weight_of`."""
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
        start = flat_object(scan) if self.start is None else self.start
        prior = Prior(scan, self.weight, start, waves=self.start is not None)

        def value_and_gradient(variables: Tensor) -> tuple[float, Tensor]:
            obj = prior.to_object(variables)
            return prior.added(*scan_likelihood(scan.model, scan.counts, obj, self.background), obj)

        blank = torch.zeros_like(torch.view_as_real(start))
        yield from map(prior.to_object, minimised(Remembered(value_and_gradient), blank))


def minimised(
    value_and_gradient: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor
) -> Iterator[Tensor]:
    """Yield the variables after every iteration of L-BFGS; refuse a value that is not finite.

    Variables are to be scaled such that what is minimised is about equally curved along all.
    """
    variables = start.clone().requires_grad_()
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
        value, variables.grad = value_and_gradient(variables.detach())
        return value

    # L-BFGS divides the first step by the sum of all slopes: the larger the object, the
    # more often its line search would have to lengthen it.
    slopes = value_and_gradient(variables.detach())[1]
    optimiser.param_groups[0]["lr"] = max(1.0, FIRST_STEP * float(slopes.abs().sum()))
    for epoch in count(1):
        value = optimiser.step(evaluate)
        optimiser.param_groups[0]["lr"] = 1.0
        if not torch.isfinite(value):
            raise StudyError("L-BFGS", f"what it minimises is {float(value)} in iteration {epoch}")
        yield variables.detach()


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


class Prior:
    """Total variation and distance from the mean, and the variables in which a posterior with it is even.

    Parameters
    ----------
    scan : Scan
    weight : float
        Of total variation, nats.
    start : (y, x) complex64
        What variables of zero stand for.
    waves : bool
        Whether waves are weighted by what frames tell of them, see `Posterior`.
    blur : float, cycles per pixel, optional
        Frequency (standard deviation) by which changes of the object are blurred.
    """

    def __init__(
        self, scan: Scan, weight: float, start: Tensor, *, waves: bool, blur: float | None = None
    ) -> None:
        illumination = torch.from_numpy(scan.illumination().astype(np.float32))
        curvature = 2 * illumination + WEAK_ILLUMINATION * illumination.max()
        self._weight, self._start = weight, start
        self._scale = (curvature + weight / EDGE_CONTRAST).sqrt()
        self._filter = _wave_filter(scan) if waves else None
        if blur is not None:
            low = _low_pass(scan, blur)
            self._filter = low if self._filter is None else self._filter * low
        size = start.abs()
        self._turn = torch.where(size > 0, start / size, 1)

    def to_object(self, variables: Tensor) -> Tensor:
        """Return the object (y, x) of variables (y, x, 2)."""
        change = torch.view_as_complex(self._filtered(variables)) / self._scale
        return self._start + self._turn * change

    def added(self, value: float, gradient: Tensor, obj: Tensor) -> tuple[float, Tensor]:
        """Return a value and its gradient by the object with the prior; the latter by the variables then."""
        if self._weight > 0:
            variation, slope = total_variation(obj)
            distance, pull = distance_from_mean(obj)
            value += self._weight * variation + distance
            gradient = gradient + self._weight * slope + pull
        return value, self._filtered(torch.view_as_real(gradient * self._turn.conj() / self._scale))

    def _filtered(self, planes: Tensor) -> Tensor:
        """Filter amplitude and phase, (y, x, 2); the filter is its own adjoint."""
        if self._filter is None:
            return planes
        waves = torch.fft.rfft2(planes, dim=(0, 1)) * self._filter
        return torch.fft.irfft2(waves, s=planes.shape[:2], dim=(0, 1)).contiguous()


class Remembered:
    """A function of variables whose repeated question costs nothing.

    L-BFGS asks for its present point again at the start of every iteration.
    """

    def __init__(self, function: Callable[[Tensor], tuple[float, Tensor]]) -> None:
        self._function = function
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def __call__(self, variables: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and gradient at the variables."""
        if self._last is None or not torch.equal(self._last[0], variables):
            value, slopes = self._function(variables)
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


def _low_pass(scan: Scan, blur: float) -> Tensor:
    """Return a Gaussian of the spatial frequency, (y, x / 2 + 1, 1)."""
    rows, columns = scan.object_shape
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns))
    return torch.from_numpy(np.exp(-((frequency / blur) ** 2) / 2).astype(np.float32))[:, :, None]


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
