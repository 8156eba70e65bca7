"""Measured overlap of a scan; geometry alone, never frame values."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree  # pyright: ignore[reportMissingTypeStubs]

from fly64_dose_overlap.config import ViewParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.physics.illumination import require_positions
from fly64_dose_overlap.study.geometry import disc_overlap, nearest_neighbours, require_diameter
from fly64_dose_overlap.study.grouping import subsample, subset_of_rank

METRICS_VERSION = "1.0"
MAX_ACCEPTANCE = 0.10
ACCEPTANCE_FLOOR = 1e-6
BLOCK_PAIRS = 4_000_000


def measure_overlap(
    positions_px: NDArray[np.float64],
    sampling: ViewParams,
    *,
    probe_diameter_px: float,
    neighbor_count: int = 6,
    seed: int = 456,
) -> dict[str, Any]:
    """Measure the three overlap metrics of the frames that ``sampling`` keeps.

    Metric 1 compares the frames of a group with each other, metric 2 each frame with
    its neighbours in the scan, metric 3 the groups' centres of mass.

    Parameters
    ----------
    positions_px : (frame, 2) float64, object pixels
        All frames, before sampling.
    probe_diameter_px : float, > 0
        Diameter D of the disc that stands for the probe, object pixels.
    neighbor_count : int, >= 1
        Neighbours averaged over by metrics 1 and 2.
    seed : int
        Of the choice of frames.

    Returns
    -------
    dict
        Arguments, counts, ``metric_1_group_based_avg`` (None with group side 1),
        ``metric_2_image_based_avg``, ``metric_3_group_to_group_avg``, and the
        acceptance bound and floor, which are reported and never enforced.

    Raises
    ------
    StudyError
        If an argument is out of range or too few frames are kept.
    """
    require_positions(positions_px)
    require_diameter(probe_diameter_px)
    if neighbor_count < 1:
        raise StudyError("overlap", f"metric_neighbor_count must be >= 1, got {neighbor_count}")
    frames = subsample(len(positions_px), sampling.s_img, seed)
    kept_px = positions_px[frames]
    groups = metric_groups(kept_px, sampling)
    members_px = kept_px[groups]
    grouped = sampling.gridsize > 1
    inner = group_based_overlap(members_px, probe_diameter_px, neighbor_count) if grouped else None
    bound = geometry_acceptance_bound(kept_px, probe_diameter_px)
    return {
        "metrics_version": METRICS_VERSION,
        "gridsize": sampling.gridsize,
        "s_img": sampling.s_img,
        "n_groups": sampling.n_groups,
        "neighbor_count": neighbor_count,
        "probe_diameter_px": probe_diameter_px,
        "rng_seed_subsample": seed,
        "metric_1_group_based_avg": inner,
        "metric_2_image_based_avg": image_based_overlap(kept_px, probe_diameter_px, neighbor_count),
        "metric_3_group_to_group_avg": group_to_group_overlap(members_px.mean(axis=1), probe_diameter_px),
        "n_images_total": len(positions_px),
        "n_images_subsampled": len(kept_px),
        "n_unique_images": len(np.unique(kept_px, axis=0)),
        "n_groups_actual": len(groups),
        "geometry_acceptance_bound": bound,
        "effective_min_acceptance": max(bound, ACCEPTANCE_FLOOR),
    }


def metric_groups(kept_px: NDArray[np.float64], sampling: ViewParams) -> NDArray[np.int32]:
    """Group frames for the metrics, without a random draw and apart from training groups.

    With group side 1 each frame is a group, cut off at ``n_groups``. With side 2
    there are exactly ``n_groups`` groups: a frame and its three nearest neighbours,
    for frames spread evenly over the scan; beyond one group per frame, each further
    round takes the next nearest triple of neighbours.

    Returns
    -------
    groups : (group, gridsize ** 2) int32
    """
    n_frames = len(kept_px)
    per_group = sampling.gridsize**2
    wanted = n_frames if sampling.n_groups is None else sampling.n_groups
    if per_group == 1:
        return np.arange(min(wanted, n_frames), dtype=np.int32)[:, None]
    if n_frames < per_group:
        raise StudyError("overlap", f"a group needs {per_group} frames, found {n_frames}", "keep more frames")
    rounds, place = np.divmod(np.arange(wanted), n_frames)
    in_last_round = wanted - int(rounds[-1]) * n_frames
    seeds = np.where(rounds == rounds[-1], place * n_frames // in_last_round, place)
    others = per_group - 1
    triples = subset_of_rank(rounds % comb(n_frames - 1, others), others) + 1
    neighbours, _ = nearest_neighbours(kept_px, int(triples.max()) + 1)
    return np.column_stack([seeds.astype(np.int32), neighbours[seeds[:, None], triples]])


def group_based_overlap(members_px: NDArray[np.float64], diameter_px: float, neighbor_count: int) -> float:
    """Return metric 1: overlap of the frames within a group.

    Every member in turn is the centre; its up to ``neighbor_count`` nearest other
    members are averaged over, then all members of all groups.

    Parameters
    ----------
    members_px : (group, C, 2) float64, C >= 2, object pixels
    """
    per_group = members_px.shape[1]
    nearest = min(neighbor_count, per_group - 1)
    total = 0.0
    block = max(1, BLOCK_PAIRS // per_group**2)
    for first in range(0, len(members_px), block):
        part = members_px[first : first + block]
        distance = np.linalg.norm(part[:, :, None] - part[:, None, :], axis=-1)
        distance[:, np.arange(per_group), np.arange(per_group)] = -1.0
        closest = np.sort(distance, axis=-1)[:, :, 1 : nearest + 1]
        total += float(disc_overlap(closest, diameter_px).mean(axis=-1).sum())
    return total / (len(members_px) * per_group)


def image_based_overlap(positions_px: NDArray[np.float64], diameter_px: float, neighbor_count: int) -> float:
    """Return metric 2: overlap of a frame with its nearest neighbours in the scan.

    Exact duplicates of a position count once. A single position gives 0.

    Parameters
    ----------
    positions_px : (frame, 2) float64, object pixels
    """
    unique = np.unique(positions_px, axis=0)
    if len(unique) == 1:
        return 0.0
    _, distance = nearest_neighbours(unique, neighbor_count + 1)
    return float(disc_overlap(distance[:, 1:], diameter_px).mean(axis=1).mean())


def group_to_group_overlap(centres_px: NDArray[np.float64], diameter_px: float) -> float:
    """Return metric 3: overlap of groups with the groups around them.

    Neighbours are all other groups nearer than the diameter. A group without any
    counts 0 and stays in the mean.

    Parameters
    ----------
    centres_px : (group, 2) float64, object pixels
        Centre of mass of each group.
    """
    tree: Any = KDTree(centres_px)
    counts = np.asarray(tree.query_ball_point(centres_px, diameter_px, return_length=True), dtype=np.int64)
    ends = np.cumsum(counts)
    total = 0.0
    first = 0
    while first < len(centres_px):
        done = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + BLOCK_PAIRS, side="right")))
        block: Any = KDTree(centres_px[first:last])
        pairs = block.sparse_distance_matrix(tree, diameter_px, output_type="ndarray")
        own, other, distance = pairs["i"], pairs["j"], pairs["v"]
        near = (own + first != other) & (distance < diameter_px)
        fraction = disc_overlap(distance[near], diameter_px)
        neighbours = np.bincount(own[near], minlength=last - first)
        sums = np.bincount(own[near], weights=fraction, minlength=last - first)
        total += float((sums / np.maximum(neighbours, 1)).sum())
        first = last
    return total / len(centres_px)


def geometry_acceptance_bound(positions_px: NDArray[np.float64], diameter_px: float) -> float:
    """Return the part of the frames that could be laid out without overlap, at most 0.10.

    The area of the positions' bounding box over the area of all discs.
    """
    area = float(np.prod(np.ptp(positions_px, axis=0)))
    return min(MAX_ACCEPTANCE, area / (len(positions_px) * np.pi * (diameter_px / 2) ** 2))
