"""The rules that make arrays a dataset of the study, and the names they have in files."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import AnyArray
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.scan import check_groups

DIFFRACTION = "diffraction"
OBJECT = "objectGuess"
PROBE = "probeGuess"
XCOORDS = "xcoords"
YCOORDS = "ycoords"
XCOORDS_START = "xcoords_start"
YCOORDS_START = "ycoords_start"
SCAN_INDEX = "scan_index"
GROUPS = "groups"
MASK = "mask"
BACKGROUND = "background"
METADATA = "_metadata"
MASK_THEM = "name them in base.mend.bad_pixels, or give the file a mask (y, x) that is false"
"""What to do about pixels that are no pixels, continued with: at these."""

BASE_KEYS = (OBJECT, PROBE, XCOORDS, YCOORDS)
OF_FRAMES = frozenset({MASK, BACKGROUND})
"""What says nothing without frames."""
KNOWN_KEYS = frozenset(
    {DIFFRACTION, *BASE_KEYS, XCOORDS_START, YCOORDS_START, SCAN_INDEX, GROUPS, *OF_FRAMES}
)


def check_grouping(where: str, gridsize: int, neighbor_count: int | None) -> None:
    """Refuse a group of C = gridsize squared frames that K neighbours cannot fill."""
    if gridsize < 1:
        raise StudyError(where, f"gridsize must be at least 1, got {gridsize}")
    frames_per_group = gridsize**2
    if gridsize == 1:
        return
    if neighbor_count is None:
        problem = f"gridsize={gridsize} needs a neighbor_count, got none"
        raise StudyError(where, problem, f"give K >= C={frames_per_group}")
    if neighbor_count < frames_per_group:
        problem = f"neighbor_count={neighbor_count} < C={frames_per_group} (OVERSAMPLING-001)"
        raise StudyError(where, problem, "a group cannot be filled; raise overlap.neighbor_count")


def check_base(arrays: Mapping[str, AnyArray], where: str) -> None:
    """Check the arrays of a base set without frames, by their NPZ keys; unknown keys are ignored."""
    require(arrays, BASE_KEYS, where)
    count = arrays[XCOORDS].shape[0] if arrays[XCOORDS].ndim == 1 else 1
    if count == 0:
        raise StudyError(where, f"'{XCOORDS}' holds no position")
    _check_scan(arrays, where, frames=count, side=_check_probe(where, arrays[PROBE]))


def check_layout(
    arrays: Mapping[str, AnyArray],
    where: str,
    frames_shape: tuple[int, ...],
    frames_dtype: np.dtype[Any],
    frames_per_group: int | None,
) -> None:
    """Check all but the frames' values, which may not be in memory.

    Spacing and overlap are results, not conditions, and are not checked. Keys that the
    contract does not know are ignored. Without ``frames_per_group``, groups may have any
    square size. The first rule that is broken is refused; ``where`` names the file.

    Arrays, by NPZ key, are complex images (y, x), ``xcoords`` and ``ycoords`` (frame,) in object
    pixels, and perhaps ``xcoords_start``, ``ycoords_start`` and integer ``scan_index`` (frame,), integer
    ``groups`` (group, C), boolean ``mask`` (y, x) or (frame, y, x) and real ``background`` (y, x).
    """
    require(arrays, BASE_KEYS, where)
    frames, side = _check_frame_type(where, frames_shape, frames_dtype)
    probe = arrays[PROBE]
    if probe.ndim in (2, 3) and probe.shape[-2:] != (side, side):
        problem = f"'{PROBE}' is {probe.shape} but frames are {(side, side)}"
        raise StudyError(where, problem, "frames and probe must have one side N")
    _check_probe(where, probe)
    _check_scan(arrays, where, frames=frames, side=side)
    if GROUPS in arrays:
        check_groups(where, arrays[GROUPS], frames, frames_per_group)
    if BACKGROUND in arrays:
        check_background(where, arrays[BACKGROUND], side)
    if MASK in arrays:
        check_mask(where, arrays[MASK].shape, arrays[MASK].dtype, frames_shape)


def check_mask(
    where: str, shape: tuple[int, ...], dtype: np.dtype[Any], frames_shape: tuple[int, ...]
) -> None:
    """Refuse a mask that is not boolean and of one frame or of all frames."""
    if dtype != np.bool_ or shape not in (frames_shape, frames_shape[1:]):
        problem = f"'{MASK}' must be boolean, (y, x) or (frame, y, x), got {dtype} {shape}"
        raise StudyError(where, problem, f"True stands for pixels that count; frames are {frames_shape}")


def check_background(where: str, background: AnyArray, side: int) -> None:
    """Refuse a background that is not expected photons of one frame."""
    if background.dtype.kind not in "iuf" or background.shape != (side, side):
        found = f"{background.dtype} {background.shape}"
        problem = f"'{BACKGROUND}' must hold photons of a frame {(side, side)}, got {found}"
        raise StudyError(where, problem, "average frames that were taken without light")
    if not (np.isfinite(background) & (background >= 0)).all():
        raise StudyError(where, f"'{BACKGROUND}' must be finite and not negative")


def require(arrays: Container[str], keys: tuple[str, ...], where: str) -> None:
    """Refuse arrays among which a key is missing."""
    missing = [key for key in keys if key not in arrays]
    if missing:
        raise StudyError(where, f"lacks {', '.join(map(repr, missing))}", f"required keys: {', '.join(keys)}")


def _check_frame_type(where: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the number of frames and their side."""
    if dtype.kind != "f":
        hint = f"{DIFFRACTION} holds sqrt(photons)"
        if dtype.kind in "iu":
            hint += "; integer frames are intensities, import the file as base.source, which takes the root"
        raise StudyError(where, f"'{DIFFRACTION}' must be a real float amplitude, got {dtype}", hint)
    if len(shape) != 3:
        raise StudyError(where, f"'{DIFFRACTION}' must have axes (frame, y, x), got shape {shape}")
    if shape[0] == 0:
        raise StudyError(where, f"'{DIFFRACTION}' holds zero frames")
    if shape[1] != shape[2] or shape[1] == 0:
        hint = "crop them; the frame axis comes first"
        raise StudyError(where, f"frames must be square, got {shape[1:]} in '{DIFFRACTION}'", hint)
    return shape[0], shape[1]


def checked_frames(where: str, blocks: Iterable[AnyArray]) -> Iterator[AnyArray]:
    """Pass blocks of frames on and refuse values that no amplitude can have.

    A single frame without photons is legal at low dose; a whole set without any is not.
    """
    done = 0
    brightest = np.float32(0)
    for block in blocks:
        with np.errstate(over="ignore", invalid="ignore"):
            low = block.min(axis=(1, 2))
            high = block.max(axis=(1, 2)).astype(np.float32)
        bad = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))
        if bad.size:
            first = f"first in frame {done + bad[0]}"
            hint = "a bad frame is left out by base.mend.leave_out, a bad pixel by base.mend.bad_pixels"
            raise StudyError(where, f"'{DIFFRACTION}' has NaN or infinite values, {first}", hint)
        bad = np.flatnonzero(low < 0)
        if bad.size:
            first = f"first in frame {done + bad[0]} ({low[bad[0]]:g})"
            problem = f"'{DIFFRACTION}' has negative amplitudes, {first}"
            raise StudyError(where, problem, "amplitudes are sqrt(photons), so at least 0")
        brightest = max(brightest, high.max(initial=0))
        done += len(block)
        yield block
    if brightest == 0:
        hint = "was the detector on, and is the mask true where a pixel counts?"
        raise StudyError(where, f"all {done} frames are zero: no photon was detected", hint)


def check_image(where: str, key: str, image: AnyArray, axes: str = "(y, x)") -> NDArray[np.complex64]:
    """Return finite complex images in single precision; refuse others, and other axes than ``axes``."""
    if image.dtype.kind != "c":
        raise StudyError(where, f"'{key}' must be complex, got {image.dtype}")
    if image.ndim not in {each.count(",") + 1 for each in axes.split(" or ")} or not image.size:
        raise StudyError(where, f"'{key}' must have axes {axes}, got shape {image.shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        single = image.astype(np.complex64, copy=False)
    if not np.isfinite(single).all():
        raise StudyError(where, f"'{key}' has NaN or infinite values")
    return single


def _check_probe(where: str, probe: AnyArray) -> int:
    """Return the probe's side."""
    check_image(where, PROBE, probe, "(y, x) or (mode, y, x)")
    side = square_side(where, PROBE, probe)
    if not probe.any():
        raise StudyError(where, f"'{PROBE}' is zero everywhere")
    return side


def square_side(where: str, key: str, images: AnyArray) -> int:
    """Return the side of square images (..., y, x); refuse others."""
    if images.shape[-2] != images.shape[-1]:
        raise StudyError(where, f"'{key}' must be square, got {images.shape}")
    return images.shape[-1]


def _check_scan(arrays: Mapping[str, AnyArray], where: str, *, frames: int, side: int) -> None:
    """Check the object, the per-frame vectors and that every window lies in the object."""
    obj = arrays[OBJECT]
    check_image(where, OBJECT, obj)
    if min(obj.shape) <= side:
        problem = f"'{OBJECT}' is {obj.shape}, not larger than the probe {(side, side)}"
        raise StudyError(where, problem, "the object spans the whole scan")
    for key in (XCOORDS, YCOORDS, XCOORDS_START, YCOORDS_START, SCAN_INDEX):
        if key in arrays:
            _check_per_frame(where, key, arrays[key], frames)
    check_windows(where, arrays[YCOORDS], arrays[XCOORDS], obj.shape, side)


def _check_per_frame(where: str, key: str, values: AnyArray, frames: int) -> None:
    if values.ndim != 1:
        raise StudyError(where, f"'{key}' must have one axis, got shape {values.shape}")
    if len(values) != frames:
        raise StudyError(where, f"'{key}' has {len(values)} entries but there are {frames} frames")
    if key == SCAN_INDEX:
        if values.dtype.kind not in "iu":
            raise StudyError(where, f"'{key}' must hold integers from 0 up, got {values.dtype}")
        if values.min() < 0 or values.max() > np.iinfo(np.int64).max:
            found = f"{values.min()} to {values.max()}"
            raise StudyError(where, f"'{key}' must hold integers from 0 up to 2^63 - 1, got {found}")
    else:
        check_reals(where, key, values)


def check_reals(where: str, key: str, values: AnyArray) -> NDArray[np.float64]:
    """Return a list of finite real numbers in double precision; refuse anything else."""
    if values.dtype.kind not in "iuf" or values.ndim != 1:
        found = f"{values.dtype} {values.shape}"
        raise StudyError(where, f"'{key}' must hold real numbers with one axis, got {found}")
    if not np.isfinite(values).all():
        raise StudyError(where, f"'{key}' has NaN or infinite values")
    return values.astype(np.float64, copy=False)


def check_windows(where: str, y: AnyArray, x: AnyArray, object_shape: tuple[int, ...], side: int) -> None:
    """Refuse positions whose N x N patch lies partly outside the object.

    y may range from N/2 to M - N/2, both included.
    """
    lowest = side // 2
    outside = np.zeros(len(y), dtype=bool)
    worst = (0.0, "")
    for axis, values, length in (("y", y, object_shape[0]), ("x", x, object_shape[1])):
        limit = length - side + lowest
        outside |= (values < lowest) | (values > limit)
        low, high = float(values.min()), float(values.max())
        worst = max(worst, (high - limit, f"largest {axis} {high:.1f}, limit {limit}"))
        worst = max(worst, (lowest - low, f"smallest {axis} {low:.1f}, limit {lowest}"))
    count = int(outside.sum())
    if count:
        sizes = f"{side}x{side} probe outside the {object_shape[0]}x{object_shape[1]} object"
        problem = f"{count} of {len(y)} positions put the {sizes} ({worst[1]})"
        hint = "are positions in object pixels? base.fields understands lengths: docs/own-data.md"
        raise StudyError(where, problem, hint)
