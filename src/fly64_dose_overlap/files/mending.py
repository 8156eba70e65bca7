"""What a user says is wrong with a file, put right: turned axes, bad pixels, frames to leave out.

Pixels and frames are the file's own, whatever is turned; lines that advise more hold what is there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import AnyArray
from fly64_dose_overlap.config import NOTHING_TO_MEND, MendParams, TurnName
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files import rules

POSITION_TURNS: tuple[TurnName, ...] = ("swap_positions", "invert_y", "invert_x")
FRAME_TURNS: tuple[TurnName, ...] = ("transpose_frames", "flip_frames_y", "flip_frames_x", "shift_frames")
ORDER_TURNS: tuple[TurnName, ...] = ("advance_frames", "delay_frames", "reverse_frames")
MOVES: dict[TurnName, int] = {"advance_frames": 1, "delay_frames": -1}
PROBE_TURNS: tuple[TurnName, ...] = ("conjugate_probe", "shift_probe")
MOST_NAMED = 12
"""Pixels or frames that a message names one by one."""


def subsets(turns: tuple[TurnName, ...]) -> Iterator[tuple[TurnName, ...]]:
    """Yield every choice among turns, none of them first."""
    for way in product((False, True), repeat=len(turns)):
        yield tuple(turn for turn, wanted in zip(turns, way, strict=True) if wanted)


def rows_of(
    arrays: dict[str, AnyArray], mend: MendParams, where: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which positions of a file are paired with which of its frames, both (frame,), by place.

    Frames go by their ``scan_index``, or in their order.

    Raises
    ------
    StudyError
        If there is no such frame, or none is left.
    """
    count = min(arrays[key].size for key in (rules.XCOORDS, rules.YCOORDS))
    places = frames = np.arange(count)
    if "reverse_frames" in mend.turn:
        frames = frames[::-1]
    if "advance_frames" in mend.turn:
        places, frames = places[:-1], frames[1:]
    if "delay_frames" in mend.turn:
        places, frames = places[1:], frames[:-1]
    numbers = arrays.get(rules.SCAN_INDEX, np.arange(count))
    if unknown := sorted({*mend.leave_out} - {*numbers.tolist()}):
        hint = f"they go from {numbers.min()} to {numbers.max()}" if numbers.size else ""
        raise StudyError(where, f"base.mend.leave_out: there is no frame {unknown[0]}", hint)
    kept = ~np.isin(numbers[frames], mend.leave_out)
    if not kept.any():
        raise StudyError(where, "base.mend leaves no frame", "leave out fewer")
    return places[kept], frames[kept]


def turn_positions(
    arrays: dict[str, AnyArray], places: NDArray[np.int64], turns: Collection[TurnName]
) -> None:
    """Keep some positions by their NPZ keys, swap them, and invert them within their bounds.

    The grid of an object that is the same everywhere goes with swapped positions that do not fit it.

    Examples
    --------
    >>> arrays = {"ycoords": np.array([0, 1, 9]), "xcoords": np.array([5, 7, 9])}
    >>> arrays |= {"objectGuess": np.ones((4, 12)), "probeGuess": np.ones((2, 2))}
    >>> turn_positions(arrays, np.arange(2), ["swap_positions", "invert_x"])
    >>> arrays["ycoords"].tolist(), arrays["xcoords"].tolist(), arrays["objectGuess"].shape
    ([5, 7], [1.0, 0.0], (12, 4))
    """
    keys = (rules.YCOORDS, rules.XCOORDS)
    y, x = (arrays[key][places] for key in keys)
    if "swap_positions" in turns:
        y, x, obj = x, y, arrays[rules.OBJECT]
        side = arrays[rules.PROBE].shape[-1]
        reach = [
            each.max(initial=0) + side // 2 >= rows for each, rows in zip((y, x), obj.shape, strict=False)
        ]
        if any(reach) and obj.ndim == 2 and np.all(obj == obj.flat[0]):
            arrays[rules.OBJECT] = np.ascontiguousarray(obj.T)
    for name, key, each in zip(("invert_y", "invert_x"), keys, (y, x), strict=True):
        arrays[key] = each
        if name in turns and each.dtype.kind in "iuf":
            each = each.astype(np.float64)
            arrays[key] = each.min() + each.max() - each


def turn_probe(probe: AnyArray, turns: Collection[TurnName]) -> AnyArray:
    """Return a probe (..., y, x) shifted by half its side, and conjugated."""
    probe = np.fft.fftshift(probe, axes=(-2, -1)) if "shift_probe" in turns and probe.ndim > 1 else probe
    return probe.conj() if "conjugate_probe" in turns else probe


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


def counting_pixels(mend: MendParams, shape: tuple[int, ...], where: str) -> NDArray[np.bool_]:
    """Return which pixels (y, x) of the detector are not called bad.

    Raises
    ------
    StudyError
        If there is no such pixel in frames of that shape.
    """
    counting = np.ones(shape, np.bool_)
    for y, x in mend.bad_pixels:
        if y >= shape[0] or x >= shape[1]:
            problem = f"base.mend.bad_pixels: there is no pixel [{y}, {x}]"
            raise StudyError(where, problem, f"frames have {shape[0]} x {shape[1]}")
        counting[y, x] = False
    return counting


def pixels_line(pixels: NDArray[np.intp], side: int, mend: MendParams) -> str:
    """Return the line for ``params.yaml`` that masks pixels (pixel, 2) of frames that ``mend`` has turned."""
    own = turned(np.arange(side**2).reshape(side, side), mend.turn)
    there = np.stack(np.divmod(own[tuple(pixels.T)], side), axis=1).tolist()
    return _line(
        "bad_pixels", sorted([*mend.bad_pixels, *(each for each in there if each not in mend.bad_pixels)])
    )


def frames_line(numbers: NDArray[np.int64], mend: MendParams) -> str:
    """Return the line for ``params.yaml`` that leaves frames (frame,) out, by their numbers."""
    shown = sorted({*mend.leave_out, *numbers[:MOST_NAMED].tolist()})
    more = f" and {len(numbers) - MOST_NAMED} more" if len(numbers) > MOST_NAMED else ""
    return f"{_line('leave_out', shown)}{more}"


def turn_line(changes: Collection[TurnName], mend: MendParams = NOTHING_TO_MEND) -> str:
    """Return the line for ``params.yaml`` that turns what ``mend`` has already turned.

    Examples
    --------
    >>> turn_line(["transpose_frames"], NOTHING_TO_MEND.model_copy(update={"turn": ["flip_frames_y"]}))
    'base.mend.turn: [transpose_frames, flip_frames_x]'
    """
    detector = np.arange(36).reshape(6, 6)
    wanted = turned(turned(detector, mend.turn), changes)
    frames = next(each for each in subsets(FRAME_TURNS) if np.array_equal(turned(detector, each), wanted))
    positions = {each: _turned_corners([each]) for each in subsets(POSITION_TURNS)}
    both = _turned_corners([mend.turn, changes])
    order, more = _order(mend.turn, changes)
    probe = [name for name in PROBE_TURNS if (name in mend.turn) != (name in changes)]
    corners = next(each for each, at in positions.items() if at == both)
    return f"{_line('turn', [*corners, *frames, *order, *probe])}{more}"


def _order(given: Collection[TurnName], changes: Collection[TurnName]) -> tuple[list[TurnName], str]:
    """Return what two lists of turns, one after the other, make of the frames' order, and what else to say.

    Frames are reversed first and then moved by one. Reversed once more, those that were moved meet their
    positions as if none had been.
    """
    lists = (changes,) if "reverse_frames" in changes else (given, changes)
    moved = sum(step * (name in turns) for turns in lists for name, step in MOVES.items())
    steps: list[TurnName] = [name for name, step in MOVES.items() if step * moved > 0]
    if ("reverse_frames" in given) != ("reverse_frames" in changes):
        steps.append("reverse_frames")
    more = "" if abs(moved) < 2 else f", and move frames on by {abs(moved) - 1} more in the file"
    return steps, more


def _turned_corners(turns: Collection[Collection[TurnName]]) -> list[list[float]]:
    """Return three corners of a square, turned one way after another."""
    arrays: dict[str, AnyArray] = {
        rules.YCOORDS: np.array([0.0, 0.0, 1.0]),
        rules.XCOORDS: np.array([0.0, 1.0, 1.0]),
        rules.OBJECT: np.zeros((9, 9)),
        rules.PROBE: np.zeros((1, 1)),
    }
    for each in turns:
        turn_positions(arrays, np.arange(3), each)
    return [arrays[key].tolist() for key in (rules.YCOORDS, rules.XCOORDS)]


def _line(key: str, values: Collection[Any]) -> str:
    return f"base.mend.{key}: [{', '.join(map(str, values))}]"
