"""The mosaic: groups reconstructed classically one by one, stitched on the object's grid.

A group alone leaves noise and a free phase. Its estimate is hardly biased, though, so
that overlapping groups average well once their phases agree. The network sees the
mosaic: the information of all groups that touch a pixel, and the surroundings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fly64_dose_overlap.arrays import FrameArray
from fly64_dose_overlap.learning.device_stitch import DeviceStitcher
from fly64_dose_overlap.learning.estimate import Estimate, GroupedScan, Iterations, Start
from fly64_dose_overlap.learning.stitch import Stitcher
from fly64_dose_overlap.parallel import available_threads, in_parts
from fly64_dose_overlap.physics.groups import GroupModel
from fly64_dose_overlap.physics.start import group_start
from fly64_dose_overlap.progress import track


@dataclass(frozen=True)
class GroupStart(Start):
    """A `Start`: every group by itself, stitched.

    Canvases pass through to disk batch by batch, so that memory depends on the object
    and not on the number of groups; a GPU keeps them in its memory. The early image is
    that after a quarter of the iterations.
    """

    iterations: Iterations
    """On each group."""

    def __call__(self, grouped: GroupedScan, counts: FrameArray, *, fraction: float, label: str) -> Estimate:
        """Return the mosaic; see `Start`."""
        geometry = grouped.geometry
        batches = _start_groups(grouped, counts, fraction, self.iterations)
        stitcher_type = Stitcher if grouped.device.type == "cpu" else DeviceStitcher
        stitcher = stitcher_type(geometry.origins_px, geometry.canvas_side, layers=2)
        step = grouped.groups_per_batch
        followed = track(batches, total=len(grouped.groups), label=label, unit="group", step=step)
        for early, late, light in followed:
            stitcher.add([early, late], light)
        early, late = stitcher.merge(grouped.scan.object_shape)
        return Estimate(early, late, grouped.fluence * fraction)


def _start_groups(
    grouped: GroupedScan, counts: FrameArray, fraction: float, iterations: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (early, late, illumination) of successive batches of groups.

    The operations on one batch are too small to share among processors; batches are not.
    """
    geometry = grouped.geometry

    @torch.no_grad()
    def start(first: int) -> tuple[Tensor, Tensor, Tensor]:
        batch = slice(first, first + grouped.groups_per_batch)
        frames = grouped.groups[batch]
        probes = grouped.model.probes(frames.ravel()).unflatten(0, frames.shape) * fraction**0.5
        model = GroupModel(probes, geometry.corners_px[batch], geometry.support_side, geometry.canvas_side)
        seen = torch.from_numpy(counts[frames.ravel()]).unflatten(0, frames.shape).to(grouped.device)
        early, late = group_start(model, seen, iterations)
        return early, late, model.illumination

    firsts = range(0, len(grouped.groups), grouped.groups_per_batch)
    together = 2 * available_threads() if grouped.device.type == "cpu" else 1
    for first in range(0, len(firsts), together):
        yield from in_parts(start, firsts[first : first + together])
