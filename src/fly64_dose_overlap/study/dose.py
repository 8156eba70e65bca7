"""Expected diffraction of a scan at a dose, and photon counts drawn from it.

Everything up to the draw is in double precision, although single would do for the physics:
a rate that differs in its last bit turns into another count now and then. Rates in single
precision would change some counts of every dataset from one kind of processor to the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import BaseSet
from fly64_dose_overlap.parallel import in_parts
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.physics.propagation import intensity
from fly64_dose_overlap.progress import track
from fly64_dose_overlap.seeding import generator

BLOCK_FRAMES = 256
"""Frames simulated at once. Each block has its own random stream, so the number decides the counts."""

FACTOR_DIGITS = 9
"""Significant digits of the dose factor; the digits beyond may depend on the processor."""


class Simulation:
    """The noise-free frames of a base set."""

    def __init__(self, base: BaseSet) -> None:
        rows, columns = base.obj.shape
        probe = torch.from_numpy(base.probe.astype(np.complex128))
        self._model = ScanModel(probe, base.positions_px, (rows, columns))
        self._obj = torch.from_numpy(base.obj.astype(np.complex128))
        self._base = base

    def expected(self, frames: slice) -> NDArray[np.float64]:
        """Return the noise-free diffraction of some frames.

        Returns
        -------
        (frame, y, x) float64, photons
            Zero frequency at [N/2, N/2]. The far field is unitary: a frame sums to the
            photons that leave the object.
        """
        with torch.no_grad():
            return self._model.expected(self._obj, frames).numpy()

    def blocks(self) -> list[slice]:
        """Return the consecutive blocks of at most `BLOCK_FRAMES` frames."""
        firsts = range(0, self._model.frames, BLOCK_FRAMES)
        return [slice(first, min(first + BLOCK_FRAMES, self._model.frames)) for first in firsts]

    def with_dose(self, photons_per_frame: float) -> tuple[BaseSet, float]:
        """Return the base set with its probe in sqrt(photons), and the factor on the probe.

        One factor scales the whole scan, so the scan-averaged frame expects
        ``photons_per_frame``; normalising frames singly would erase absorption contrast.
        The far field keeps the energy, so exit waves are added up and nothing is propagated.

        Parameters
        ----------
        photons_per_frame : float, photons
            Expected detected photons per frame, averaged over the scan; > 0.

        Returns
        -------
        base : BaseSet
            Without measured frames.
        factor : float, sqrt(photons) per unit of the probe

        Raises
        ------
        StudyError
            If the dose is not positive, or the exit waves sum to zero or to infinity.
        """
        if not 0 < photons_per_frame < math.inf:
            raise StudyError("dose", f"must be > 0 photons per frame, got {photons_per_frame}")
        mean = sum(in_parts(self._power, self.blocks())) / self._model.frames
        if not 0 < mean < math.inf:
            problem = f"the exit waves have a mean power of {mean:g}"
            hint = "no dose can be reached; is the object zero under the probe?"
            raise StudyError("base set", problem, hint)
        factor = float(f"{math.sqrt(photons_per_frame / mean):.{FACTOR_DIGITS}g}")
        probe = (self._base.probe.astype(np.complex128) * factor).astype(np.complex64)
        return replace(self._base, probe=probe, amplitude=None), factor

    def _power(self, frames: slice) -> float:
        with torch.no_grad():
            return float(intensity(self._model.exit_waves(self._obj, frames)).sum())


def require_measured(dose: int, there: float) -> None:
    """Refuse a dose, photons per frame, above what was measured beside the photons of the reference."""
    if dose > there:
        problem = f"the frames have {there:.6g} photons on average beside those of the reference"
        raise StudyError(f"dose {dose}", problem, "take it out of doses, or lower reference.fraction")


def draw_counts(base: BaseSet, *, seed: int, dose: int) -> Iterator[NDArray[np.int64]]:
    """Draw photon counts for a scan, block by block.

    Parameters
    ----------
    base : BaseSet
        Sum of the probe's squared modulus in photons, as `Simulation.with_dose` returns it.
    dose : int, photons per frame
        Names the random stream; it scales nothing.

    Yields
    ------
    counts : (frame, y, x) int64, photons
        The blocks of `Simulation.blocks`, in order.
    """
    simulation = Simulation(base)
    blocks = list(enumerate(simulation.blocks()))

    def draw(numbered: tuple[int, slice]) -> NDArray[np.int64]:
        number, block = numbered
        rng = generator(seed, "simulate", "counts", dose, number)
        return rng.poisson(simulation.expected(block)).astype(np.int64, copy=False)

    label = f"expose, {dose} photons per frame"
    pairs = (blocks[first : first + 2] for first in range(0, len(blocks), 2))
    for pair in track(pairs, total=len(base.positions_px), label=label, step=2 * BLOCK_FRAMES):
        yield from in_parts(draw, pair)
