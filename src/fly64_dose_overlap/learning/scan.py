"""What the networks are given: the frames of a scan, and a classical estimate of its object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import Dataset
from fly64_dose_overlap.physics.counts import Counts, FrameCounts
from fly64_dose_overlap.physics.fluence import fluence_map
from fly64_dose_overlap.physics.groups import GroupGeometry, group_geometry, support_side_px
from fly64_dose_overlap.physics.scan import frames_per_batch

SUPPORT_POWER = 0.995
"""Part of the probe's power inside the support on which the object is reconstructed."""


@dataclass(frozen=True, eq=False)
class Scan:
    """The frames of a dataset in the layout of the inner loops.

    Attributes
    ----------
    counts : Counts
        On disk if the dataset's frames are.
    probe : (y, x) complex64, sqrt(photons)
    positions_px : (frame, 2) float64, object pixels
    groups : (group, C) int64
        Frame indices; of the dataset's groups those that hold every frame.
    geometry : GroupGeometry
    fluence : (y, x) float64, photons per object pixel
    """

    counts: Counts
    probe: Tensor
    positions_px: NDArray[np.float64]
    groups: NDArray[np.int64]
    geometry: GroupGeometry
    fluence: NDArray[np.float64]

    @property
    def groups_per_batch(self) -> int:
        """Groups that make a batch of the frames that suit the device."""
        return max(1, frames_per_batch(self.probe.device) // self.groups.shape[1])


@dataclass(frozen=True, eq=False)
class Estimate:
    """Two classical images of an object, one of few iterations and one of all.

    Attributes
    ----------
    early, late : (y, x) complex64
        With little noise yet, and with all detail; one where nothing was scanned.
    fluence : (y, x) float64, photons per pixel
        Photons that the images are made from.
    """

    early: NDArray[np.complex64]
    late: NDArray[np.complex64]
    fluence: NDArray[np.float64]


class Start(Protocol):
    """Makes the estimate that a network corrects."""

    def __call__(self, scan: Scan, counts: Counts, *, fraction: float, label: str) -> Estimate:
        """Return the estimate from some photons of a scan.

        Parameters
        ----------
        scan : Scan
        counts : Counts
            Of all frames of the scan.
        fraction : float
            Expected part of the photons of ``scan`` that ``counts`` holds.
        label : str
            Names the work in the progress line.
        """
        ...


def covering_groups(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return some of the groups, which together hold every frame that is in any of them.

    Taken in their order: first those of which no frame is in one yet, then those of which
    one is, and so on.

    Parameters
    ----------
    groups : (group, C) int64
        Frame indices.
    """
    missing = np.ones(int(groups.max()) + 1, bool)
    kept = np.zeros(len(groups), bool)
    for enough in range(groups.shape[1], 0, -1):
        for index in np.flatnonzero(~kept):
            if np.count_nonzero(missing[groups[index]]) >= enough:
                kept[index] = True
                missing[groups[index]] = False
    return groups[kept]


def load_scan(dataset: Dataset, device: torch.device, support_side: int | None = None) -> Scan:
    """Prepare a dataset that has groups.

    Of the groups those that hold every frame once: more of them take more time and make
    the mosaic hardly better. The object in the dataset, which may be the truth, gives the
    size of the grid only.

    Raises
    ------
    StudyError
        If the dataset has no groups.
    """
    if dataset.groups is None:
        raise StudyError("training data", "hold no groups", "make the view again: dvc repro overlap")
    probe = torch.from_numpy(dataset.probe).to(device)
    if support_side is None:
        support_side = support_side_px(probe, SUPPORT_POWER)
    rows, columns = dataset.obj.shape
    groups = covering_groups(dataset.groups.astype(np.int64))
    return Scan(
        counts=FrameCounts(dataset.amplitude),
        probe=probe,
        positions_px=dataset.positions_px,
        groups=groups,
        geometry=group_geometry(dataset.positions_px, groups, support_side),
        fluence=fluence_map(dataset.probe, dataset.positions_px, (rows, columns)),
    )
