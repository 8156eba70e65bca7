"""What every iterative method is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.files.dataset import Dataset
from fly64_dose_overlap.files.disk_array import spool
from fly64_dose_overlap.physics.counts import Counts, FrameCounts
from fly64_dose_overlap.physics.scan import ScanModel
from fly64_dose_overlap.physics.thinning import divide


@dataclass(frozen=True, eq=False)
class Problem:
    """Counts, calibrated probe and positions of a scan; no object, so that no truth can leak.

    Attributes
    ----------
    counts : Counts
        Of all frames, on disk if the dataset's are.
    probe : (mode, y, x) complex64, sqrt(photons)
        Mutually incoherent modes of the unitary convention: the expected counts are
        abs(fft2(probe * patch, norm="ortho"))^2 summed over the modes.
    positions_px : (frame, 2) float64, object pixels
        (y, x) of the object pixel under patch pixel [N/2, N/2]; bilinear if fractional.
    object_shape : (int, int)
        Rows and columns of the object's grid.
    """

    counts: Counts
    probe: Tensor
    positions_px: NDArray[np.float64]
    object_shape: tuple[int, int]

    def model(self) -> ScanModel:
        """Return the forward model of the scan."""
        return ScanModel(self.probe, self.positions_px, self.object_shape)

    def flat_object(self) -> Tensor:
        """Return the empty object, (y, x) complex64 ones, from which every method starts."""
        return torch.ones(self.object_shape, dtype=self.probe.dtype, device=self.probe.device)

    def split_photons(self, fraction: float, rng: np.random.Generator) -> tuple[Problem, Problem]:
        """Divide the photons into two independent problems, the first with ``fraction`` of them.

        Each has the probe scaled to its share, so that both have the same solution.
        """
        first, second = divide(self.counts, fraction, rng, spool)
        return (
            replace(self, counts=first, probe=self.probe * fraction**0.5),
            replace(self, counts=second, probe=self.probe * (1 - fraction) ** 0.5),
        )


class Solver(Protocol):
    """An iterative method: yields its object after every epoch, for as long as it is asked."""

    def __call__(self, problem: Problem, seed: int) -> Iterator[Tensor]:
        """Yield (y, x) complex64 objects on the problem's grid; the yielded tensor may be reused."""
        ...


def load_problem(dataset: Dataset) -> Problem:
    """Return the problem that a dataset poses; its object gives the size of the grid only."""
    rows, columns = dataset.obj.shape
    return Problem(
        counts=FrameCounts(dataset.amplitude),
        probe=torch.from_numpy(dataset.probe)[None],
        positions_px=dataset.positions_px,
        object_shape=(rows, columns),
    )
