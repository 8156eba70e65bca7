"""The gauge of object and probe: what no frame can tell, fixed once and for all.

Frames stay the same where the object is multiplied by a factor and the probe divided by it,
and where a linear phase ramp moves from one to the other. Settings in units of the object,
and scores of the phase, would depend on where they stand.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import BaseSet
from fly64_dose_overlap.physics.illumination import illumination
from fly64_dose_overlap.provenance import with_step
from fly64_dose_overlap.scan import Scan

LIT_FRACTION_OF_MAXIMUM = 0.1


def in_standard_gauge(base: BaseSet) -> BaseSet:
    """Return the base set with an object of mean modulus 1, without mean phase and phase ramp.

    All three are those of the object where more than a tenth of the largest illumination
    falls; the ramp is the mean phase step from pixel to pixel. They go into the probe. Of a
    probe that reaches the edge of its frame, where it is taken to go on at the other side,
    a ramp changes how it goes on, and so faintly the frames.

    Returns
    -------
    BaseSet
        With a step in its provenance; the same frames, to rounding, if the probe lies inside
        its own. An object that is zero where light falls is left as it is.
    """
    found = _gauged(base.obj, base.probe, base.positions_px)
    if found is None:
        return base
    obj, probe, parameters = found
    what = "move modulus and phase ramp of the object into the probe"
    return replace(base, obj=obj, probe=probe, record=with_step(base.record, "gauge", what, **parameters))


def gauged_truth(scan: Scan, truth: NDArray[np.complexfloating]) -> tuple[Scan, NDArray[np.complex64]]:
    """Return a scan and its true object in the gauge of `in_standard_gauge`.

    Parameters
    ----------
    truth : (y, x) complex
        On the object's grid of the scan, in any gauge.

    Returns
    -------
    scan : Scan
        With the probe that belongs to the truth.
    truth : (y, x) complex64

    Raises
    ------
    StudyError
        If the truth is not complex, finite and of the size of the object's grid.
    """
    if np.shape(truth) != scan.object_shape:
        problem = f"has the shape {np.shape(truth)}, but the object's grid is {scan.object_shape}"
        raise StudyError("truth", problem)
    if not np.iscomplexobj(truth) or not np.isfinite(truth).all():
        hint = "give the transmission, not its modulus or phase"
        raise StudyError("truth", "must be complex and finite", hint)
    found = _gauged(truth, scan.probe, scan.positions_px)
    return (scan, truth.astype(np.complex64)) if found is None else (replace(scan, probe=found[1]), found[0])


def lit_pixels(
    probe: NDArray[np.complexfloating], positions_px: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Return where more than a tenth of the largest illumination falls on an object, (y, x)."""
    # Of any unit: squares of single precision end at 1e38.
    normalised = probe.astype(np.complex128) / np.abs(probe).max()
    # At whole positions no ramp of the probe changes which pixels count as lit.
    light = illumination(normalised, np.rint(positions_px), (shape[0], shape[1]))
    return light > LIT_FRACTION_OF_MAXIMUM * light.max()


def _gauged(
    given: NDArray[np.complexfloating], probe: NDArray[np.complex64], positions_px: NDArray[np.float64]
) -> tuple[NDArray[np.complex64], NDArray[np.complex64], dict[str, Any]] | None:
    """Return object and probe in the standard gauge and what it took; None for an object of zeros."""
    lit = lit_pixels(probe, positions_px, given.shape)
    obj = given.astype(np.complex128)
    modulus = float(np.abs(obj[lit]).mean())
    if not modulus > 0:
        return None
    slopes: list[float] = []
    for ahead, behind in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        steps = obj[ahead] * np.conj(obj[behind]) * (lit[ahead] & lit[behind])
        slopes.append(float(np.angle(steps.sum())))
    side = probe.shape[-1]
    obj = obj * np.conj(_ramp(slopes, (given.shape[0], given.shape[1]), (0, 0)))
    phase = float(np.angle(obj[lit].sum()))
    obj *= np.exp(-1j * phase) / modulus
    turned = probe * (_ramp(slopes, (side, side), (side // 2, side // 2)) * modulus)
    parameters = {
        "modulus": float(f"{modulus:.6g}"),
        "phase_rad": float(f"{phase:.6g}"),
        "ramp_rad_per_px": [float(f"{slope:.6g}") for slope in slopes],
    }
    return obj.astype(np.complex64), turned.astype(np.complex64), parameters


def _ramp(slopes: list[float], shape: tuple[int, int], zero: tuple[int, int]) -> NDArray[np.complex128]:
    rows, columns = (np.arange(length) - at for length, at in zip(shape, zero, strict=True))
    return np.exp(1j * (slopes[0] * rows[:, None] + slopes[1] * columns))
