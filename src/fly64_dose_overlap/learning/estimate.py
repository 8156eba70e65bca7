"""What the networks are given: a scan in groups, and a classical estimate of its object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from fly64_dose_overlap.arrays import FrameArray
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.physics.groups import GroupGeometry, group_geometry, support_side_px
from fly64_dose_overlap.physics.model import ScanModel, frames_per_batch
from fly64_dose_overlap.scan import Scan

SUPPORT_POWER = 0.995
"""Part of the probe's power inside the support on which the object is reconstructed."""

Iterations = Annotated[int, Field(ge=0, le=1000)]


@dataclass(frozen=True, eq=False)
class GroupedScan:
    """A scan with its groups laid out, on the device that works on it."""

    scan: Scan
    model: ScanModel
    """Of the whole scan, on the device."""
    groups: NDArray[np.int64]
    """Frame indices (group, C); of the scan's groups those that hold every frame."""
    geometry: GroupGeometry
    fluence: NDArray[np.float64]
    """Photons that fall on each object pixel, (y, x)."""

    @property
    def device(self) -> torch.device:
        """Where the work is done."""
        return self.model.probe.device

    @property
    def groups_per_batch(self) -> int:
        """Groups that make a batch of the frames that suit the device."""
        return max(1, frames_per_batch(self.device) // self.groups.shape[1])


@dataclass(frozen=True, eq=False)
class Estimate:
    """Two classical images (y, x), of few iterations and of all; one where nothing was scanned."""

    early: NDArray[np.complex64]
    """With little noise yet."""
    late: NDArray[np.complex64]
    """With all detail."""
    fluence: NDArray[np.float64]
    """Photons per pixel that the images are made from."""


@dataclass(frozen=True)
class Start(ABC):
    """Makes the estimate that a network corrects; its fields are what it is made with, JSON-able."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    @abstractmethod
    def __call__(self, grouped: GroupedScan, counts: FrameArray, *, fraction: float, label: str) -> Estimate:
        """Return the estimate from some photons of a scan: counts of all its frames, (frame, y, x).

        They are an expected ``fraction`` of all; ``label`` names the work in the progress line.
        """


def covering_groups(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return some of the groups (group, C), which together hold every frame that is in any of them.

    Taken in their order: first those of which no frame is in one yet, then those of which
    one is, and so on.
    """
    missing = np.ones(int(groups.max()) + 1, bool)
    kept = np.zeros(len(groups), bool)
    for enough in range(groups.shape[1], 0, -1):
        for index in np.flatnonzero(~kept):
            if np.count_nonzero(missing[groups[index]]) >= enough:
                kept[index] = True
                missing[groups[index]] = False
    return groups[kept]


def grouped_scan(scan: Scan, device: torch.device, support_side: int | None = None) -> GroupedScan:
    """Lay out the groups of a scan; one that has none is refused.

    Of the groups those that hold every frame once: more of them take more time and make
    the mosaic hardly better.
    """
    if scan.groups is None:
        raise StudyError("scan", "has no groups", "make a view of it")
    if support_side is None:
        support_side = support_side_px(scan.probe, SUPPORT_POWER)
    groups = covering_groups(scan.groups.astype(np.int64))
    model = scan.model
    if device.type != "cpu":
        probe = torch.from_numpy(scan.probe).to(device)
        model = ScanModel(probe, scan.positions_px, scan.object_shape, scan.detector, scan.flux)
    geometry = group_geometry(scan.positions_px, groups, support_side)
    return GroupedScan(scan, model, groups, geometry, scan.illumination())
