"""Whether counts scatter as photons do: their Fano factor, and what neighbouring pixels share.

Photons that are counted one by one are independent Poisson numbers. Detector units that were not
divided by the gain, charge that neighbours share, and frames that were averaged are not, and
thinning them gives halves that share noise: held-out photons, training targets and doses all
rest on it.

What differs from frame to frame is noise and, as the square of the counts, the object. Noise belongs to
a pixel, or to it and those beside it; what the object does fades slowly from pixel to pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.scan import Scan

LEAST_COUNTS, LEAST_FRAMES = 30, 20
"""Of a pixel over all frames, for it to be looked at, and of a scan."""
DIMMEST, FEWEST_PAIRS = 4.0, 64
"""Looked at are pixels up to so many times the dimmest, and at least so many."""
BRIGHT = 0.6
"""Mean counts of the pixels that are looked at, from which on the object may hide the noise."""
LARGEST_FANO, LEAST_FANO, LARGEST_SHARE = 1.6, 0.65, 0.25
"""What chance leaves."""
OBJECT_PER_COUNT = 1.5
"""What the object may add to a variance over its mean, for each mean count: light that an object
scatters varies by some one and a half times its mean at most."""

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Dispersion:
    """How counts scatter from frame to frame in dim pixels."""

    fano: float
    """Variance over mean, less what the object does there by the pixels around: 1 of photons."""
    neighbours: float
    """Covariance of neighbouring pixels over their mean, as much less: 0 of photons."""
    variance: float
    """Variance over mean, the object's part included: at least 1 of photons."""
    covariance: float
    """Covariance of neighbouring pixels over their mean, the object's part included."""
    light: float
    """Mean counts of these pixels."""

    @property
    def tells(self) -> bool:
        """Whether these pixels are dim enough for noise to be told from the object."""
        return self.light < BRIGHT

    @property
    def doubt(self) -> str:
        """Say in one line why the counts cannot be those of photons, or "".

        What the object does is bounded twice, by the pixels around and by the light: both must leave too
        much. It is never less alike in pixels beside each other than in one, which bounds what is too
        little.
        """
        of_object = OBJECT_PER_COUNT * self.light
        too_much = self.fano > LARGEST_FANO and self.variance > LARGEST_FANO + of_object
        shared = self.neighbours > LARGEST_SHARE and self.covariance > LARGEST_SHARE + of_object
        too_little = self.variance - max(self.covariance, 0.0) < LEAST_FANO
        if not (too_much or shared or too_little):
            return ""
        return (
            f"counts do not scatter as photons do: their Fano factor is {self.fano:.2f} for 1, and "
            f"neighbours share {self.neighbours:.2f} for 0: are they units of the detector, averaged or "
            "smoothed?"
        )


def dispersion(scan: Scan) -> Dispersion | None:
    """Return how the counts of a scan scatter from frame to frame, None where too few frames or pixels tell.

    The covariance of pixels 0 to 3 apart along an axis is taken over their mean, in the dimmest. Pixels 2
    and 3 apart share little but the object, and a line through these two is what it does. Pixels that a
    mask leaves out in any frame are not looked at. One pass over the frames.
    """
    if len(scan) < LEAST_FRAMES:
        return None
    pairs = [[overlaid(0, 0)], *([overlaid(apart, 0), overlaid(0, apart)] for apart in (1, 2, 3))]
    light = np.zeros((scan.side, scan.side))
    products = [[np.zeros_like(light[one]) for one, _ in windows] for windows in pairs]
    for block in scan.blocks():
        counts = block.astype(np.float64)
        light += counts.sum(axis=0)
        for windows, sums in zip(pairs, products, strict=True):
            for (one, other), total in zip(windows, sums, strict=True):
                total += np.einsum("fyx,fyx->yx", counts[:, *one], counts[:, *other])
    seen = (light >= LEAST_COUNTS) & scan.always_counting
    mean = light / len(scan)
    shared: list[float] = []
    lights: list[float] = []
    for windows, sums in zip(pairs, products, strict=True):
        both = [seen[one] & seen[other] for one, other in windows]
        expected = [mean[one] * mean[other] for one, other in windows]
        means = np.concatenate([np.sqrt(each[lit]) for each, lit in zip(expected, both, strict=True)])
        covariances = np.concatenate(
            [(total / len(scan) - each)[lit] for total, each, lit in zip(sums, expected, both, strict=True)]
        )
        if len(means) < FEWEST_PAIRS:
            return None
        dim = dimmest(means, FEWEST_PAIRS)
        shared.append(float(np.median(covariances[dim] / means[dim])))
        lights.append(float(np.median(means[dim])))
    slope = shared[2] - shared[3]
    fano, neighbours = shared[0] - (shared[2] + 2 * slope), shared[1] - (shared[2] + slope)
    return Dispersion(fano, neighbours, shared[0], shared[1], lights[0])


def overlaid(dy: int, dx: int) -> tuple[Window, Window]:
    """Return the windows of pixels that have one at (dy >= 0, dx) from them, and of those."""
    one = (slice(0, -dy or None), slice(max(-dx, 0), -max(dx, 0) or None))
    other = (slice(dy, None), slice(max(dx, 0), -max(-dx, 0) or None))
    return one, other


def dimmest(light: NDArray[np.float64], fewest: int) -> NDArray[np.int64]:
    """Return the places of the values up to `DIMMEST` times the least, and of so many at least."""
    order = np.argsort(light, kind="stable")
    return order[: max(fewest, int((light <= DIMMEST * light.min(initial=np.inf)).sum()))]
