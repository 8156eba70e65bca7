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

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.data.contract import Dataset
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.networks.stitch import Stitcher
from fly64_dose_overlap.physics.counts import Counts, FrameCounts
from fly64_dose_overlap.physics.fluence import fluence_map
from fly64_dose_overlap.physics.groups import GroupGeometry, GroupModel, group_geometry, support_side_px
from fly64_dose_overlap.physics.patches import to_complex
from fly64_dose_overlap.physics.start import group_start
from fly64_dose_overlap.progress import track

SUPPORT_POWER = 0.995
"""Part of the probe's power inside the support on which the object is reconstructed."""
FRAMES_PER_BATCH = 64


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
        Frame indices.
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
        """Groups that make a batch of about 64 frames."""
        return max(1, FRAMES_PER_BATCH // self.groups.shape[1])


@dataclass(frozen=True, eq=False)
class Mosaic:
    """Stitched classical reconstructions of all groups.

    Attributes
    ----------
    early, late : (y, x) complex64
        After a quarter of the iterations, and after all; one where nothing was scanned.
    fluence : (y, x) float64, photons per pixel
        Photons that the mosaic is made from.
    """

    early: NDArray[np.complex64]
    late: NDArray[np.complex64]
    fluence: NDArray[np.float64]


def load_scan(dataset: Dataset, device: torch.device, support_side: int | None = None) -> Scan:
    """Prepare a dataset that has groups.

    The object in the dataset, which may be the truth, gives the size of the grid only.

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
    groups = dataset.groups.astype(np.int64)
    return Scan(
        counts=FrameCounts(dataset.amplitude),
        probe=probe,
        positions_px=dataset.positions_px,
        groups=groups,
        geometry=group_geometry(dataset.positions_px, groups, support_side),
        fluence=fluence_map(dataset.probe, dataset.positions_px, (rows, columns)),
    )


def make_mosaic(scan: Scan, counts: Counts, *, fraction: float, iterations: int, label: str) -> Mosaic:
    """Reconstruct every group by itself and stitch.

    Canvases pass through to disk batch by batch, so that memory depends on the object
    and not on the number of groups.

    Parameters
    ----------
    scan : Scan
    counts : Counts
        Of all frames of the scan.
    fraction : float
        Expected part of the photons of ``scan`` that ``counts`` holds.
    iterations : int
        Classical iterations on each group.
    label : str
        Names the work in the progress line.
    """
    geometry = scan.geometry
    batches = _start_groups(scan, counts, fraction, iterations)
    shape = (scan.fluence.shape[0], scan.fluence.shape[1])
    stitcher = Stitcher(geometry.origins_px, geometry.canvas_side, layers=2)
    step = scan.groups_per_batch
    for model, early, late in track(batches, total=len(scan.groups), label=label, unit="group", step=step):
        layers = [to_complex(canvases).cpu().numpy() for canvases in (early, late)]
        stitcher.add(layers, model.illumination.cpu().numpy())
    early, late = stitcher.merge(shape)
    return Mosaic(early, late, scan.fluence * fraction)


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
        corners = torch.from_numpy(geometry.corners_px[batch]).to(probe.device)
        model = GroupModel(probe, corners, geometry.support_side, geometry.canvas_side)
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
