"""The frames of a user's own file: counts or their roots, made amplitudes, every change on record."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap import provenance
from fly64_dose_overlap.arrays import AnyArray, DiskArray, spool
from fly64_dose_overlap.config import NOTHING_TO_MEND, MendParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files import rules
from fly64_dose_overlap.files.foreign import ForeignScan
from fly64_dose_overlap.files.formats import COUNTS
from fly64_dose_overlap.files.mending import counting_pixels, turned
from fly64_dose_overlap.files.npz import NpzReader

TOOL = "transpose_rename_convert"
FRAME_KEYS = (rules.DIFFRACTION, "diff3d", COUNTS)
"""Names of the frames, the first one present is taken; ``counts`` are photons by their name."""

ROOT_ERROR = 4e-7
"""Relative error of a count whose square root was kept in single precision, at most."""

UNCOUNTED = (
    "must hold counted photons or their square roots",
    f"scale what was normalised or averaged to photons, round it and name it {COUNTS}, or leave it out",
)


@dataclass
class Import:
    """A user's file on its way to the canonical form."""

    reader: NpzReader | ForeignScan
    where: str
    record: provenance.Record
    frames_first: bool
    """The file says that this tool, ours or the ancestor's, has already put the frame axis first."""
    arrays: dict[str, AnyArray] = field(default_factory=lambda: {})
    counts_per_photon: float | None = None
    mend: MendParams = NOTHING_TO_MEND

    def note(self, operation: str, **parameters: Any) -> None:
        """Record a step of the conversion."""
        self.record = provenance.with_step(self.record, TOOL, operation, **parameters)


def load(work: Import, key: str, *, axes: int) -> AnyArray:
    """Load an array and drop trailing and leading axes of length one beyond ``axes``."""
    array = work.reader.load(key)
    found = array.shape
    while array.ndim > axes and array.shape[-1] == 1:
        array = array[..., 0]
    while array.ndim > axes and array.shape[0] == 1:
        array = array[0]
    if array.shape != found:
        work.note("squeeze", key=key, from_shape=list(found), to_shape=list(array.shape))
    return array


def load_frames(work: Import, source: str) -> DiskArray:
    """Return the frames as float32 amplitudes with the frame axis first, on disk."""
    shape, dtype = work.reader.header(source)
    if source != rules.DIFFRACTION:
        work.note("rename", from_key=source, to_key=rules.DIFFRACTION)
    axis = _frame_axis(work, source, shape)
    if dtype.kind not in "iuf":
        problem = f"'{source}' must be real: float amplitudes or integer intensities, got {dtype}"
        raise StudyError(work.where, problem, f"{rules.DIFFRACTION} holds sqrt(photons)")
    if axis != 0:
        work.note("move_frame_axis", key=source, from_axis=axis, to_axis=0)
    count = shape[axis]
    side = tuple(length for index, length in enumerate(shape[:3]) if index != axis)
    if (mask := work.arrays.get(rules.MASK)) is not None:
        rules.check_mask(work.where, mask.shape, mask.dtype, (count, *side))
    if work.mend.bad_pixels:
        counting = counting_pixels(work.mend, side, work.where)
        work.arrays[rules.MASK] = counting if mask is None else mask & counting
    scaled = work.counts_per_photon is not None
    intensity = dtype.kind in "iu" or source == COUNTS or _are_counts(work, source, axis)
    saturated: list[NDArray[np.int64]] = []
    turn = work.mend.turn
    amplitudes = (turned(block, turn) for block in _amplitudes(work, source, axis, intensity, saturated))
    frames = spool((count, *(side[::-1] if "transpose_frames" in turn else side)), np.float32, amplitudes)
    if saturated:
        _mask_saturated(work, source, np.concatenate(saturated), (count, *side))
    if scaled:
        work.note("divide", key=source, counts_per_photon=work.counts_per_photon)
        if (background := work.arrays.get(rules.BACKGROUND)) is not None and background.dtype.kind in "iuf":
            work.arrays[rules.BACKGROUND] = background / work.counts_per_photon
            work.note("divide", key=rules.BACKGROUND, counts_per_photon=work.counts_per_photon)
    if intensity:
        work.note("square_root", key=source, from_dtype=str(dtype), to_dtype="float32")
    elif dtype != np.float32:
        work.note("convert_dtype", key=source, from_dtype=str(dtype), to_dtype="float32")
    for key in rules.OF_FRAMES & work.arrays.keys():
        if work.arrays[key].ndim > 1:
            work.arrays[key] = turned(work.arrays[key], turn)
    return frames


def _are_counts(work: Import, source: str, axis: int) -> bool:
    """Return whether floats are whole numbers, which square roots of counts are not, and say so."""
    brightest = 0.0
    for _, block in _counting_blocks(work, source, axis):
        if not np.array_equal(block, np.rint(block)):
            return False
        brightest = max(brightest, float(block.max(initial=0)))
    if brightest <= 1:  # the roots of 0 and 1 are 0 and 1
        return False
    warnings.warn(
        f"{work.where}: '{source}' holds whole numbers, which are taken for photons and not for their roots; "
        f"name them {COUNTS}",
        stacklevel=6,
    )
    return True


def _mask_saturated(
    work: Import, source: str, places: NDArray[np.int64], frames_shape: tuple[int, ...]
) -> None:
    """Take out of the mask, and say so, what holds the largest value of its type: (place, 3), frame, y, x."""
    mask = np.ones(frames_shape, np.bool_)
    mask &= work.arrays.get(rules.MASK, np.True_)
    mask[tuple(places.T)] = False
    work.arrays[rules.MASK] = mask
    pixels, frames = (len(np.unique(places[:, columns], axis=0)) for columns in ([1, 2], [0]))
    work.note("mask_saturated", key=source, pixels=pixels, frames=frames)
    place, y, x = places[0].tolist()
    warnings.warn(
        f"{work.where}: {pixels} pixels of '{source}' hold the largest value of its type in {frames} frames, "
        f"such as [{y}, {x}] in frame {_number(work, place)}: saturated or dead, they are masked there",
        stacklevel=6,
    )


def _amplitudes(
    work: Import, source: str, axis: int, intensity: bool, saturated: list[NDArray[np.int64]]
) -> Iterator[AnyArray]:
    """Yield blocks of amplitudes; refuse frames that are neither counted photons nor their roots.

    What is saturated, (place, 3) frame, y, x, is added to the list and becomes 0.
    Rounding would make other frames of densities, of frames that were normalised, of means
    of several exposures, and of amplitudes that pass for counts. What is not finite is left
    to the rules of the contract.
    """
    for done, counted in _counting_blocks(work, source, axis):
        block = counted
        if block.dtype.kind in "iu" and (full := block == np.iinfo(block.dtype).max).any():
            saturated.append(np.argwhere(full) + np.array([done, 0, 0]))
            block = np.where(full, block.dtype.type(0), block)
        with np.errstate(over="ignore", invalid="ignore"):
            amplitude = block.astype(np.float32)
            photons = block if intensity else np.square(amplitude)
            uncounted = ~(np.abs(photons - np.rint(photons)) <= (0 if intensity else ROOT_ERROR * photons))
            if work.counts_per_photon is not None:
                # Units of a detector may be broken numbers; of their roots nobody could tell then.
                uncounted &= not intensity
                photons = np.rint(photons / work.counts_per_photon)
            if intensity or work.counts_per_photon is not None:
                amplitude = np.sqrt(photons, dtype=np.float64)
        checks: list[tuple[NDArray[np.bool_], str, str]] = [(uncounted & np.isfinite(block), *UNCOUNTED)]
        if intensity:
            checks.insert(0, (photons < 0, "has negative counts", f"dead or hot? {rules.MASK_THEM} there"))
        for bad, problem, hint in checks:
            if bad.any():
                frame, y, x = (int(index) for index in np.argwhere(bad)[0])
                number = _number(work, done + frame)
                found = f"{photons[frame, y, x]:.6g} in frame {number} at [{y}, {x}]"
                among = f"one of {bad.any(axis=0).sum()} pixels"
                if bad is checks[0][0] and intensity and bad[frame].all():
                    hint = f"leave the frame out: base.mend.leave_out: [{number}]"
                raise StudyError(work.where, f"'{source}' {problem}: {found}, {among}", hint)
        yield amplitude


def _number(work: Import, place: int) -> int:
    """Return the number of the frame at a place of the file."""
    numbers = work.arrays.get(rules.SCAN_INDEX)
    return place if numbers is None else int(numbers[place])


def _counting_blocks(work: Import, source: str, axis: int) -> Iterator[tuple[int, AnyArray]]:
    """Yield blocks of frames and the place of their first, 0 where a pixel or a frame does not count."""
    done, mask = 0, work.arrays.get(rules.MASK)
    numbers = work.arrays.get(rules.SCAN_INDEX)
    for block in _frame_blocks(work, source, axis):
        here = slice(done, done + len(block))
        counting: Any = np.True_ if mask is None else mask if mask.ndim == 2 else mask[here]
        if work.mend.leave_out:
            own = np.arange(here.start, here.stop) if numbers is None else numbers[here]
            counting = counting & ~np.isin(own, work.mend.leave_out)[:, None, None]
        yield done, block if counting is np.True_ else np.where(counting, block, block.dtype.type(0))
        done = here.stop


def _frame_blocks(work: Import, source: str, axis: int) -> Iterator[AnyArray]:
    shape, dtype = work.reader.header(source)
    images = (block.reshape(len(block), *shape[1:3]) for block in work.reader.stream(source))
    if axis == 0:
        return images
    return spool(shape[:3], dtype.newbyteorder("="), images).blocks(axis)


def _frame_axis(work: Import, source: str, shape: tuple[int, ...]) -> int:
    """Return the one axis that is as long as the list of positions."""
    trimmed = shape
    while len(trimmed) > 3 and trimmed[-1] == 1:
        trimmed = trimmed[:-1]
    if trimmed != shape:
        work.note("squeeze", key=source, from_shape=list(shape), to_shape=list(trimmed))
    positions = work.arrays[rules.XCOORDS].size
    if len(trimmed) != 3:
        raise StudyError(work.where, f"'{source}' must have axes (frame, y, x), got shape {shape}")
    matching = [axis for axis, length in enumerate(trimmed) if length == positions]
    if not matching:
        problem = f"'{source}' is {shape} but there are {positions} entries in '{rules.XCOORDS}'"
        raise StudyError(work.where, problem, "no axis can be the frames")
    if len(matching) > 1 and not (work.frames_first and matching[0] == 0):
        problem = (
            f"'{source}' is {shape} and its frame axis ambiguous: axes {matching} have length {positions}"
        )
        hint = "name frames, y and x in base.fields, for which the first axis is that of the frames"
        raise StudyError(work.where, problem, hint)
    return matching[0]
