"""The gauge of object and probe: what no frame can tell, fixed once and for all.

Frames stay the same where the object is multiplied by a factor and the probe divided by it,
and where a linear phase ramp moves from one to the other. Settings in units of the object,
and scores of the phase, would depend on where they stand.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.files.dataset import BaseSet
from fly64_dose_overlap.physics.illumination import illumination
from fly64_dose_overlap.provenance import with_step

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
        its own.
    """
    obj = base.obj.astype(np.complex128)
    rows, columns = obj.shape
    # At whole positions no ramp of the probe changes which pixels count as lit.
    light = illumination(base.probe, np.rint(base.positions_px), (rows, columns))
    lit = light > LIT_FRACTION_OF_MAXIMUM * light.max()
    modulus = float(np.abs(obj[lit]).mean())
    if not modulus > 0:
        return base
    slopes = [_mean_phase_step(obj, lit, axis) for axis in (0, 1)]
    side = base.probe.shape[-1]
    obj = obj * np.conj(_ramp(slopes, (rows, columns), (0, 0)))
    phase = float(np.angle(obj[lit].sum()))
    obj *= np.exp(-1j * phase) / modulus
    probe = base.probe * (_ramp(slopes, (side, side), (side // 2, side // 2)) * modulus)
    record = with_step(
        base.record,
        "gauge",
        "move modulus and phase ramp of the object into the probe",
        modulus=float(f"{modulus:.6g}"),
        phase_rad=float(f"{phase:.6g}"),
        ramp_rad_per_px=[float(f"{slope:.6g}") for slope in slopes],
    )
    return replace(base, obj=obj.astype(np.complex64), probe=probe.astype(np.complex64), record=record)


def _mean_phase_step(obj: NDArray[np.complex128], lit: NDArray[np.bool_], axis: int) -> float:
    """Return the mean phase difference of neighbours along an axis, radians per pixel."""
    ahead, behind = (np.s_[1:], np.s_[:-1]) if axis == 0 else (np.s_[:, 1:], np.s_[:, :-1])
    steps = obj[ahead] * np.conj(obj[behind]) * (lit[ahead] & lit[behind])
    return float(np.angle(steps.sum()))


def _ramp(slopes: list[float], shape: tuple[int, int], zero: tuple[int, int]) -> NDArray[np.complex128]:
    rows, columns = (np.arange(length) - at for length, at in zip(shape, zero, strict=True))
    return np.exp(1j * (slopes[0] * rows[:, None] + slopes[1] * columns))
