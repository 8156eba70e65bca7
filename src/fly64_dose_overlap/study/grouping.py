"""Which frames are kept and which of them form a training group."""

from __future__ import annotations

import warnings
from math import comb, floor

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.physics.illumination import require_positions
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.study.geometry import nearest_neighbours

ROUNDING_GUARD = 1e-9
"""0.29 * 100 is 28.999999999999996 in floating point and means 29 frames."""


def subsample(n_frames: int, s_img: float, seed: int) -> NDArray[np.int64]:
    """Choose the frames that a view keeps.

    For one seed the choice is nested: a smaller fraction keeps a subset of what a
    larger one keeps.

    Parameters
    ----------
    s_img : float, 0 < s_img <= 1
        Fraction to keep; floor(s_img * n_frames) frames are drawn without replacement.

    Returns
    -------
    frames : (kept,) int64, ascending

    Raises
    ------
    StudyError
        If the fraction is out of range or keeps no frame.
    """
    if not 0 < s_img <= 1:
        raise StudyError("overlap", f"s_img must be in (0, 1], got {s_img}")
    kept = floor(s_img * n_frames + ROUNDING_GUARD)
    if kept == 0:
        raise StudyError("overlap", f"s_img={s_img} keeps none of {n_frames} frames", "keep a larger part")
    return np.sort(generator(seed, "subsample").permutation(n_frames)[:kept]).astype(np.int64)


def make_groups(
    positions_px: NDArray[np.float64],
    *,
    gridsize: int,
    n_groups: int | None,
    neighbor_count: int,
    seed: int,
    enable_oversampling: bool = False,
) -> NDArray[np.int32]:
    """Form training groups: C of the K nearest frames of a seed frame.

    The neighbourhood of a seed frame is the frame itself and the K - 1 frames
    nearest to it, so a group is a compact set, which may or may not hold its seed.
    All seeds are used equally often (to within one), and one seed never yields the
    same subset twice until all C(K, C) subsets of all seeds have been used; what is
    asked for beyond that pool is drawn from it with replacement.

    Parameters
    ----------
    positions_px : (frame, 2) float64, object pixels
    gridsize : int, 1 or 2
        Group side; C = gridsize ** 2 frames per group.
    n_groups : int or None
        None means one per frame. With group side 1 a larger number than there are frames
        is cut to the number of frames, with a warning.
    neighbor_count : int
        K; all frames if there are fewer.

    Returns
    -------
    groups : (group, C) int32
        Frame indices, ascending and without repeats in each row.

    Raises
    ------
    StudyError
        If an argument is out of range, there are fewer than C frames, K < C, or
        more groups than frames are wanted without ``enable_oversampling``.
    """
    require_positions(positions_px)
    if gridsize not in (1, 2):
        raise StudyError("overlap", f"gridsize must be 1 or 2, got {gridsize}")
    per_group = gridsize**2
    n_frames = len(positions_px)
    wanted = n_frames if n_groups is None else n_groups
    if wanted < 1:
        raise StudyError("overlap", f"n_groups must be >= 1, got {wanted}")
    if n_frames < per_group:
        raise StudyError("overlap", f"a group needs {per_group} frames, found {n_frames}", "keep more frames")
    if per_group > 1 and neighbor_count < per_group:
        raise StudyError(
            "overlap",
            f"neighbor_count={neighbor_count} < C={per_group}: a pool of {neighbor_count} frames"
            f" cannot fill a group (OVERSAMPLING-001)",
            f"set neighbor_count to {per_group} or more",
        )
    if wanted > n_frames and per_group == 1:
        told = f"{wanted} groups of one frame wanted from {n_frames} frames; making {n_frames}"
        warnings.warn(told, stacklevel=2)
        wanted = n_frames
    if wanted > n_frames and not enable_oversampling:
        raise StudyError(
            "overlap",
            f"{wanted} groups of {per_group} wanted from {n_frames} frames (OVERSAMPLING-001)",
            "ask for fewer groups or set enable_oversampling: true",
        )
    pool_size = min(neighbor_count, n_frames) if per_group > 1 else 1
    seeds, ranks = _draw_subsets(wanted, n_frames, comb(pool_size, per_group), generator(seed, "grouping"))
    if per_group == 1:
        return seeds.astype(np.int32)[:, None]
    neighbours, _ = nearest_neighbours(positions_px, pool_size)
    return np.sort(neighbours[seeds[:, None], subset_of_rank(ranks, per_group)], axis=1)


def _draw_subsets(
    wanted: int, n_seeds: int, subsets: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw (seed, subset rank) pairs, distinct up to all ``n_seeds * subsets`` of them."""
    passes, rest = divmod(min(wanted, n_seeds * subsets), n_seeds)
    chosen = np.empty((n_seeds, 0), dtype=np.int64)
    seeds: list[NDArray[np.int64]] = []
    ranks: list[NDArray[np.int64]] = []
    for number in range(passes + (rest > 0)):
        active = np.arange(n_seeds)
        if number == passes:
            active = np.sort(rng.permutation(n_seeds)[:rest])
            chosen = chosen[active]
        rank = rng.integers(subsets - number, size=len(active))
        # Step over the ranks used before: the rank-th of those still free.
        for used in chosen.T:
            rank += rank >= used
        chosen = np.sort(np.column_stack([chosen, rank]), axis=1)
        seeds.append(active)
        ranks.append(rank)
    beyond = wanted - n_seeds * subsets
    if beyond > 0:
        seeds.append(rng.integers(n_seeds, size=beyond))
        ranks.append(rng.integers(subsets, size=beyond))
    return np.concatenate(seeds), np.concatenate(ranks)


def subset_of_rank(rank: NDArray[np.integer], size: int) -> NDArray[np.int64]:
    """Return the ``rank``-th subset of ``size`` non-negative integers.

    Subsets are ordered by their largest member, then the next (colexicographic), so
    the first C(K, size) of them are those of 0 .. K - 1 for every K.

    Parameters
    ----------
    rank : (subset,) int, >= 0
    size : int, >= 1

    Returns
    -------
    members : (subset, size) int64, descending

    Examples
    --------
    >>> subset_of_rank(np.arange(4), 3).tolist()
    [[2, 1, 0], [3, 1, 0], [3, 2, 0], [3, 2, 1]]
    """
    left = np.array(rank, dtype=np.int64)
    members = np.empty((len(left), size), dtype=np.int64)
    for column, remaining in enumerate(range(size, 0, -1)):
        counts = [0]
        while counts[-1] <= int(left.max(initial=0)):
            counts.append(comb(len(counts), remaining))
        table = np.array(counts, dtype=np.int64)
        members[:, column] = np.searchsorted(table, left, side="right") - 1
        left -= table[members[:, column]]
    return members
