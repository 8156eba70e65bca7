"""What a user says is wrong with a file, put right: turned axes, bad pixels, frames to leave out."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import AnyArray, select_rows, spool
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files import rules
from fly64_dose_overlap.files.stream import as_stream
from fly64_dose_overlap.provenance import with_step

if TYPE_CHECKING:
    from fly64_dose_overlap.config import MendParams, TurnName
    from fly64_dose_overlap.files.dataset import BaseSet

POSITION_TURNS: tuple[TurnName, ...] = ("swap_positions", "invert_y", "invert_x")
FRAME_TURNS: tuple[TurnName, ...] = ("transpose_frames", "flip_frames_y", "flip_frames_x", "shift_frames")
ORDER_TURNS: tuple[TurnName, ...] = ("advance_frames", "delay_frames", "reverse_frames")
MOST_NAMED = 12
"""Pixels or frames that a message names one by one."""


def subsets(turns: tuple[TurnName, ...]) -> Iterator[tuple[TurnName, ...]]:
    """Yield every choice among turns, none of them first."""
    for way in product((False, True), repeat=len(turns)):
        yield tuple(turn for turn, wanted in zip(turns, way, strict=True) if wanted)


def turn_positions(arrays: dict[str, AnyArray], obj: AnyArray, turns: Collection[TurnName]) -> None:
    """Swap positions by their NPZ keys and invert them within their bounds, and add the object.

    Both come before they are held against each other. The grid of a stand-in goes with swapped positions.

    Examples
    --------
    >>> arrays = {"ycoords": np.array([0, 1]), "xcoords": np.array([5, 7])}
    >>> turn_positions(arrays, np.ones((4, 12)), ["swap_positions", "invert_x"])
    >>> {key: array.shape if array.ndim > 1 else array.tolist() for key, array in arrays.items()}
    {'ycoords': [5, 7], 'xcoords': [1.0, 0.0], 'objectGuess': (12, 4)}
    """
    if "swap_positions" in turns:
        arrays[rules.YCOORDS], arrays[rules.XCOORDS] = arrays[rules.XCOORDS], arrays[rules.YCOORDS]
        obj = np.ascontiguousarray(obj.T) if obj.size and np.all(obj == obj.flat[0]) else obj
    for name, key in (("invert_y", rules.YCOORDS), ("invert_x", rules.XCOORDS)):
        if name in turns and arrays[key].size and arrays[key].dtype.kind in "iuf":
            each = arrays[key].astype(np.float64)
            arrays[key] = each.min() + each.max() - each
    arrays[rules.OBJECT] = obj


def turned(images: AnyArray, turns: Collection[TurnName]) -> AnyArray:
    """Return images (..., y, x) of the detector transposed, then flipped, then shifted by half their side.

    Examples
    --------
    >>> turned(np.array([[1, 2], [3, 4]]), ["transpose_frames", "flip_frames_y"]).tolist()
    [[2, 4], [1, 3]]
    """
    images = np.swapaxes(images, -1, -2) if "transpose_frames" in turns else images
    y, x = (-1 if name in turns else 1 for name in ("flip_frames_y", "flip_frames_x"))
    images = images[..., ::y, ::x]
    if "shift_frames" in turns:
        half = images.shape[-1] // 2
        images = np.roll(images, (half, half), axis=(-2, -1))
    return np.ascontiguousarray(images)


def mended(base: BaseSet, mend: MendParams, where: str) -> BaseSet:
    """Return a base set of which frames, their order and the probe are turned, and what is bad is left out.

    Its positions have been turned and its bad pixels masked as it was read, since both decide whether it
    is a base set: see `turn_positions` and `counting_pixels`. Frames go by their ``scan_index``.

    Raises
    ------
    StudyError
        If there is no such frame, none is left, or there are none to be turned.
    """
    probe, turns = base.probe, mend.turn
    if "shift_probe" in turns:
        probe = np.fft.fftshift(probe, axes=(-2, -1))
    if "conjugate_probe" in turns:
        probe = probe.conj()
    places = frames = np.arange(len(base.positions_px))
    if "advance_frames" in turns:
        places, frames = places[:-1], frames[1:]
    if "delay_frames" in turns:
        places, frames = places[1:], frames[:-1]
    if "reverse_frames" in turns:
        frames = frames[::-1]
    numbers = base.scan_index[places]
    if unknown := sorted({*mend.leave_out} - {*numbers.tolist()}):
        hint = f"they go from {numbers.min()} to {numbers.max()}" if len(numbers) else ""
        raise StudyError(where, f"base.mend.leave_out: there is no frame {unknown[0]}", hint)
    kept = ~np.isin(numbers, mend.leave_out)
    if not kept.any():
        raise StudyError(where, "base.mend.leave_out: no frame is left", "name fewer")
    places, frames = places[kept], frames[kept]
    found = replace(
        base,
        probe=np.ascontiguousarray(probe),
        positions_px=base.positions_px[places],
        scan_index=base.scan_index[places],
        record=with_step(base.record, "mend", "base.mend", **mend.model_dump()),
    )
    if base.amplitude is None:
        if mend.bad_pixels or {*FRAME_TURNS, *ORDER_TURNS} & {*turns}:
            problem = "base.mend is of frames, and none are studied"
            raise StudyError(where, problem, "state base.frames: measured, or take them out")
        return found
    mask: Any = base.mask
    if mask is not None:
        mask = turned(np.asarray(mask if mask.ndim == 2 else select_rows(mask, frames)[:]), turns)
    blocks = as_stream(select_rows(base.amplitude, frames)).chunks
    return replace(
        found,
        amplitude=spool(
            (len(frames), *base.amplitude.shape[1:]), np.float32, (turned(block, turns) for block in blocks)
        ),
        mask=mask,
        background=None if base.background is None else turned(base.background, turns),
    )


def counting_pixels(mend: MendParams, shape: tuple[int, ...], where: str) -> NDArray[np.bool_]:
    """Return which pixels (y, x) of the detector, as the file has them, are not called bad.

    Raises
    ------
    StudyError
        If there is no such pixel in frames of that shape.
    """
    own = turned(np.arange(shape[0] * shape[1]).reshape(shape), mend.turn)
    counting = np.ones(shape, np.bool_)
    for y, x in mend.bad_pixels:
        if y >= own.shape[0] or x >= own.shape[1]:
            problem = f"base.mend.bad_pixels: there is no pixel [{y}, {x}]"
            raise StudyError(where, problem, f"frames have {own.shape[0]} x {own.shape[1]}")
        counting.ravel()[own[y, x]] = False
    return counting


def advised(key: str, values: Collection[Any]) -> str:
    """Return the line for ``params.yaml`` that mends something."""
    return f"base.mend.{key}: [{', '.join(map(str, values))}]"
