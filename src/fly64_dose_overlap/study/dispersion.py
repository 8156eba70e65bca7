"""Whether counts scatter as photons do: their Fano factor, and what neighbouring pixels share.

Photons that are counted one by one are independent Poisson numbers. Detector units that were not
divided by the gain, charge that neighbours share, and frames that were averaged are not, and
thinning them gives halves that share noise: held-out photons, training targets and doses all
rest on it.

What differs from frame to frame is noise and, as the square of the counts, the object. Both are told
apart by pixels that are dim, and by those where the object changes least.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.scan import Scan

LEAST_COUNTS = 30
"""Of a pixel over all frames, for it to be looked at."""
DIMMEST, FEWEST_PIXELS = 4.0, 64
"""Looked at are pixels up to so many times the dimmest, and at least so many."""
STEADIEST = 0.1
"""Part of them with the least variance over mean, where the object changes least."""
BRIGHT, LIT = 1.0, 2.0
"""Mean counts of the dimmest pixel from which on the object hides the noise, and those of a pixel from
which on rounding does not."""
LARGEST_FANO, LARGEST_SHARE, LEAST_FANO = 1.6, 0.25, 0.6
"""What chance, and a few counts of light, leave."""
OBJECT_PER_COUNT = 3.0
"""What the object may add to the first two for each mean count of the dimmest pixel."""


@dataclass(frozen=True)
class Dispersion:
    """How counts scatter from frame to frame."""

    fano: float
    """Variance over mean in dim pixels, one of photons; more where light is bright and the object changes."""
    fano_of_lit: float
    """The same in lit pixels, one or more of photons."""
    neighbours: float
    """Covariance of neighbouring dim pixels over their mean, zero of photons."""
    dimmest: float
    """Mean counts of the dimmest pixel."""

    @property
    def doubt(self) -> str:
        """Say in one line why the counts cannot be those of photons, or ""."""
        by_object = OBJECT_PER_COUNT * self.dimmest
        too_much = self.fano > LARGEST_FANO + by_object or self.neighbours > LARGEST_SHARE + by_object
        if self.fano_of_lit >= LEAST_FANO and (self.dimmest >= BRIGHT or not too_much):
            return ""
        return (
            f"counts do not scatter as photons do: their Fano factor is {self.fano:.2f} in dim pixels and "
            f"{self.fano_of_lit:.2f} in lit ones for 1, and neighbours share {self.neighbours:.2f} for 0: "
            "are they units of the detector, averaged or smoothed?"
        )


def dispersion(scan: Scan) -> Dispersion | None:
    """Return how the counts of a scan scatter from frame to frame, None where too few pixels tell.

    Pixels that a mask leaves out in any frame are not looked at. One pass over the frames.
    """
    sums = np.zeros((4, scan.side, scan.side))
    for block in scan.blocks():
        counts = block.astype(np.float64)
        sums[0] += counts.sum(axis=0)
        sums[1] += (counts**2).sum(axis=0)
        sums[2, 1:] += (counts[:, 1:] * counts[:, :-1]).sum(axis=0)
        sums[3, :, 1:] += (counts[:, :, 1:] * counts[:, :, :-1]).sum(axis=0)
    frames, mean = len(scan), sums[0] / len(scan)
    seen = (sums[0] >= LEAST_COUNTS) & scan.always_counting
    ratio = (sums[1] / frames - mean**2)[seen] / mean[seen]
    if len(ratio) < FEWEST_PIXELS:
        return None
    lit = ratio[mean[seen] >= LIT]
    below, right = (slice(1, None), slice(None)), (slice(None), slice(1, None))
    above, left = (slice(None, -1), slice(None)), (slice(None), slice(None, -1))
    light: list[NDArray[np.float64]] = []
    shared: list[NDArray[np.float64]] = []
    for products, one, other in ((sums[2], below, above), (sums[3], right, left)):
        both = seen[one] & seen[other]
        geometric = np.sqrt(mean[one] * mean[other])[both]
        light.append(geometric)
        shared.append((products[one] / frames - mean[one] * mean[other])[both] / geometric)
    pairs = _of_dimmest(np.concatenate(light), np.concatenate(shared))
    return Dispersion(
        float(np.quantile(_of_dimmest(mean[seen], ratio), STEADIEST)),
        float(np.quantile(lit, STEADIEST)) if len(lit) >= FEWEST_PIXELS else 1.0,
        float(np.median(pairs)) if len(pairs) else 0.0,
        float(mean[seen].min()),
    )


def _of_dimmest(light: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values of the dimmest, in the order of their light."""
    order = np.argsort(light, kind="stable")
    dim = int((light <= DIMMEST * light.min(initial=np.inf)).sum())
    return values[order[: max(FEWEST_PIXELS, dim)]]
