"""The mosaic: groups reconstructed classically one by one, stitched on the object's grid.

A group alone leaves noise and a free phase. Its estimate is hardly biased, though, so
that overlapping groups average well once their phases agree. The network sees the
mosaic: the information of all groups that touch a pixel, and the surroundings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from fly64_dose_overlap.learning.device_stitch import DeviceStitcher
from fly64_dose_overlap.learning.scan import Estimate, Scan
from fly64_dose_overlap.learning.stitch import Stitcher
from fly64_dose_overlap.physics.counts import Counts
from fly64_dose_overlap.physics.groups import GroupModel
from fly64_dose_overlap.physics.start import group_start
from fly64_dose_overlap.progress import track


@dataclass(frozen=True)
class GroupStart:
    """A `Start`: every group by itself, stitched.

    Canvases pass through to disk batch by batch, so that memory depends on the object
    and not on the number of groups; a GPU keeps them in its memory. The early image is
    that after a quarter of the iterations.

    Attributes
    ----------
    iterations : int
        Classical iterations on each group.
    """

    iterations: int

    def __call__(self, scan: Scan, counts: Counts, *, fraction: float, label: str) -> Estimate:
        """Return the mosaic; see `Start`."""
        geometry = scan.geometry
        batches = _start_groups(scan, counts, fraction, self.iterations)
        shape = (scan.fluence.shape[0], scan.fluence.shape[1])
        stitcher_type = Stitcher if scan.probe.device.type == "cpu" else DeviceStitcher
        stitcher = stitcher_type(geometry.origins_px, geometry.canvas_side, layers=2)
        step = scan.groups_per_batch
        for model, early, late in track(
            batches, total=len(scan.groups), label=label, unit="group", step=step
        ):
            stitcher.add([early, late], model.illumination)
        early, late = stitcher.merge(shape)
        return Estimate(early, late, scan.fluence * fraction)


def _start_groups(
    scan: Scan, counts: Counts, fraction: float, iterations: int
) -> Iterator[tuple[GroupModel, Tensor, Tensor]]:
    """Yield (model, early, late) of successive batches of groups.

    The operations on one batch are too small to share among cores; batches are not, so
    each core takes batches of its own. Which one takes which changes no result.
    """
    geometry = scan.geometry
    probe = scan.probe * fraction**0.5

    @torch.no_grad()
    def start(first: int) -> tuple[GroupModel, Tensor, Tensor]:
        batch = slice(first, first + scan.groups_per_batch)
        model = GroupModel(probe, geometry.corners_px[batch], geometry.support_side, geometry.canvas_side)
        seen = counts[torch.from_numpy(scan.groups[batch])].to(probe.device)
        return model, *group_start(model, seen, iterations)

    workers = torch.get_num_threads() if probe.device.type == "cpu" else 1
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        pending: deque[Future[tuple[GroupModel, Tensor, Tensor]]] = deque()
        for first in range(0, len(scan.groups), scan.groups_per_batch):
            pending.append(pool.submit(start, first))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    if probe.device.type == "cpu":
        # The workers' setting holds for them alone, but for MKL, where it is everyone's.
        torch.set_num_threads(workers)
