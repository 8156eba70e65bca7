"""What is likely wrong with the instrument of a scan: each fault is tried alone, and gains tell."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from torch import Tensor

from fly64_dose_overlap.arrays import Brief
from fly64_dose_overlap.methods.joint_posterior import Stage, continued
from fly64_dose_overlap.methods.posterior import FIRST_WEIGHT, Graduated, Posterior, weight_of
from fly64_dose_overlap.methods.searches import (
    HELD_OUT,
    about_middle,
    defocused,
    frame_values,
    held_out_values,
    in_two,
    lowest_of,
    nearest_focus,
    nearest_valley,
    powered,
    quick_misfit,
    with_modes,
)
from fly64_dose_overlap.parallel import one_torch_thread
from fly64_dose_overlap.physics.likelihood import BACKGROUND_PHOTONS
from fly64_dose_overlap.progress import track
from fly64_dose_overlap.scan import MOST_MODES, Scan, Unknown

FRAMES = 625
"""About the middle of a scan, by which it is told."""
ITERATIONS = 60
"""On the object, of `Graduated`, and as many from there on with a fault mended."""
LEAST_GAIN = 40.0
"""Nats that light which falls evenly must gain; of 20 sound scans none gained 10."""
SURE = 4.0
"""Standard errors by which held-out photons must be explained better."""
FREE_STAGE = Stage(40, BACKGROUND_PHOTONS)
DRIFT_STEP_PX = 0.5
MOST_DRIFT_STEPS = 6
"""To either side."""
FALL = 0.1
"""Of the logarithm of the light, between which and none a parabola is laid."""
MOST_FALL = 5
"""Times that."""
DEAD_PHOTONS = 30
"""In all frames, that half the pixels around one must exceed which counts none."""
AROUND = 5
"""Side of the square of pixels around one."""

FREE = {
    "probe": Unknown(probe=True),
    "modes": Unknown(probe=True, modes=3),
    "positions": Unknown(positions_px=1.0),
    "flux": Unknown(flux=0.1),
}
"""What is let free for each of the others; of modes two more than there are, if these are more."""


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Brief):
    """What is likely wrong with probe, positions, light and pixels.

    Attributes
    ----------
    fault : str or None
        ``dead pixels``, ``focus``, ``drift``, ``fall``, ``probe``, ``modes``, ``positions`` or ``flux``; None
        if nothing is sure.
    dead : (pixel, 2) int64
        Detector pixels (y, x) that count nothing, unlike those around them.
    frames : int
        By which it was told.
    gains : dict of str to float
        By how many nats those frames are explained better with each fault mended alone: of a tenth of the
        photons, which were held out, times ten, but ``fall`` of all.
    curvature : float
        Wavelength times distance over the square of an object pixel, by which the probe is out of focus.
    distance_um : float or None
        That distance, where the optics are known.
    drift_px : (2,) float64
        Of positions (y, x), from the first to the last frame of the scan.
    fall : float
        Part of the light that is lost from the first to the last frame.
    """

    fault: str | None
    dead: NDArray[np.int64]
    frames: int
    gains: dict[str, float]
    curvature: float
    distance_um: float | None
    drift_px: Float[NDArray[np.float64], " 2"]
    fall: float

    def described(self) -> dict[str, Any]:
        """Return what was found, JSON-able."""
        return {
            "fault": self.fault,
            "sentence": str(self),
            "frames": self.frames,
            "gain_per_frame": {name: gain / self.frames for name, gain in self.gains.items()},
            "dead": self.dead.tolist(),
            "defocus_um": self.distance_um,
            "drift_px": self.drift_px.tolist(),
            "fall": self.fall,
        }

    def __str__(self) -> str:
        """Return in one sentence what is likely wrong and what to do."""
        if self.fault is None:
            return "nothing is surely wrong with probe, positions, light and pixels"
        if self.fault == "dead pixels":
            named = ", ".join(f"[{y}, {x}]" for y, x in self.dead[:12].tolist())
            more = ", ..." if len(self.dead) > 12 else ""
            return f"{len(self.dead)} detector pixels count nothing: base.mend.bad_pixels: [{named}{more}]"
        dy, dx = self.drift_px
        way = "falls" if self.fall > 0 else "rises"
        far = "" if self.distance_um is None else f" by {self.distance_um:.3g} um"
        told = {
            "focus": f"the probe is out of focus{far}: refine.probe: true",
            "drift": f"positions drift by ({dy:.2f}, {dx:.2f}) px over the scan: refine.positions: 1.0",
            "fall": f"the light {way} by {abs(self.fall):.1%} over the scan: refine.flux: 0.1",
            "probe": "the probe is another one: refine.probe: true",
            "modes": "the probe lacks modes: refine.probe: true, refine.modes: auto",
            "positions": "positions are off: refine.positions: 1.0",
            "flux": "the light of frames varies: refine.flux: 0.1",
        }[self.fault]
        return f"{told} (gains {self.gains[self.fault] / self.frames:.3g} nats per frame)"


def diagnosed(scan: Scan) -> Diagnosis:
    """Tell what is likely wrong with a scan; no truth is needed.

    Faults that few numbers mend are mended by those that explain the photons best: the probe in another
    focus, positions that drift evenly, light that falls evenly. Of each of the others all numbers are let
    free. Held-out photons tell the gain, but of falling light, with which no object is freer than without.
    The fault with the greatest gain is named; one with many numbers only if it surely gains more than any
    with few, and modes only if they surely gain more than the probe.
    """
    dead = dead_pixels(scan)
    if len(dead):
        alive = np.ones((scan.side, scan.side), bool)
        alive[tuple(dead.T)] = False
        scan = replace(scan, mask=alive if scan.mask is None else scan.mask[:] & alive)
    with one_torch_thread():
        tried = _Tried(scan)
        gains: dict[str, NDArray[np.float64]] = {}
        few = {"focus": tried.focus, "drift": tried.drift, "fall": tried.fall}
        ways = few | {name: partial(tried.by_many, unknown) for name, unknown in FREE.items()}
        for name, way in track(ways.items(), total=len(ways), label="diagnose", unit="fault"):
            gains[name] = way()
    optics, far = scan.optics, None
    if optics is not None:
        far = tried.curvature * optics.object_pixel_m**2 / optics.wavelength_m * 1e6
    return Diagnosis(
        "dead pixels" if len(dead) else _named(gains),
        dead,
        len(tried.scan),
        {name: float(gain.sum()) for name, gain in gains.items()},
        tried.curvature,
        far,
        tried.drift_px,
        1 - math.exp(tried.slope),
    )


class _Tried:
    """Faults of a scan, mended one by one: each gives by how many nats every frame (frame,) gains."""

    def __init__(self, scan: Scan) -> None:
        scan = replace(scan, unknown=Unknown())
        part = powered(about_middle(scan, FRAMES)).cropped()[0]
        first, last = scan.scan_index.min(), scan.scan_index.max()
        self._time = (part.scan_index - first) / max(last - first, 1) - 0.5
        # Positions that drift need some room.
        margin = math.ceil(DRIFT_STEP_PX * MOST_DRIFT_STEPS / 2)
        rows, columns = (size + 2 * margin for size in part.object_shape)
        self.scan = replace(part, positions_px=part.positions_px + margin, object_shape=(rows, columns))
        self.curvature, self.drift_px, self.slope = 0.0, np.zeros(2), 0.0
        self._told, self._held = in_two(self.scan, "diagnose")
        self._begun = _begun(self._told)
        given = _further(self._told, self._begun)
        self._given = held_out_values(self._held, self._told, given, BACKGROUND_PHOTONS)

    def focus(self) -> NDArray[np.float64]:
        """Return the gain with the probe in focus."""
        self.curvature = nearest_focus(self._told)
        return self._gain_with(replace(self._told, probe=defocused(self._told.probe, self.curvature)))

    def drift(self) -> NDArray[np.float64]:
        """Return the gain with positions that drift evenly, along one axis and then along the other."""
        for axis in np.eye(2):

            def misfit(steps: float, axis: NDArray[np.float64] = axis) -> float:
                return quick_misfit(self._moved(self.drift_px + DRIFT_STEP_PX * steps * axis))

            self.drift_px = self.drift_px + DRIFT_STEP_PX * nearest_valley(misfit, MOST_DRIFT_STEPS) * axis
        return self._gain_with(self._moved(self.drift_px))

    def fall(self) -> NDArray[np.float64]:
        """Return the gain with light that falls evenly; of all photons, since no object is freer with it."""
        begun = _begun(self.scan)

        def values(slope: float) -> NDArray[np.float64]:
            here = _fallen(self.scan, slope * self._time)
            return frame_values(here, _further(here, begun), BACKGROUND_PHOTONS)

        left, given, right = (values(slope) for slope in (-FALL, 0.0, FALL))
        steps = lowest_of(left.sum(), given.sum(), right.sum())
        self.slope = FALL * float(np.clip(steps, -MOST_FALL, MOST_FALL))
        return given - values(self.slope)

    def by_many(self, unknown: Unknown) -> NDArray[np.float64]:
        """Return the gain with all numbers of a part of the instrument free."""
        told = replace(self._told, unknown=unknown)
        if isinstance(unknown.modes, int):
            told = with_modes(told, min(max(unknown.modes, len(told.probe) + 2), MOST_MODES))
        return self._gain(*continued(told, self._begun, FREE_STAGE))

    def _gain_with(self, told: Scan) -> NDArray[np.float64]:
        return self._gain(told, _further(told, _begun(told)))

    def _gain(self, told: Scan, obj: Tensor) -> NDArray[np.float64]:
        """Return by how many nats each frame is explained better, as held-out photons tell."""
        return (self._given - held_out_values(self._held, told, obj, BACKGROUND_PHOTONS)) / HELD_OUT

    def _moved(self, drift_px: NDArray[np.float64]) -> Scan:
        positions = self._told.positions_px + np.outer(self._time, drift_px)
        return replace(self._told, positions_px=self._told.on_grid(positions))


def _fallen(scan: Scan, log_light: NDArray[np.float64]) -> Scan:
    light = np.exp(log_light)
    return replace(scan, flux=light if scan.flux is None else scan.flux * light)


def _begun(scan: Scan) -> Tensor:
    """Return the object after some iterations from an empty one."""
    solver = Graduated(weight_of(FIRST_WEIGHT, scan), ITERATIONS)
    return next(islice(solver(scan), ITERATIONS - 1, None)).clone()


def _further(scan: Scan, obj: Tensor) -> Tensor:
    """Return an object after as many more."""
    further = Posterior(weight_of(FIRST_WEIGHT, scan), obj)(scan)
    return next(islice(further, ITERATIONS - 1, None))


def dead_pixels(scan: Scan) -> NDArray[np.int64]:
    """Return pixels (pixel, 2) that count nothing in all frames where half of those around count some."""
    counted = np.zeros((scan.side, scan.side))
    for block in scan.blocks():
        counted += block.sum(axis=0, dtype=np.float64)
    lit = median_filter(counted, AROUND, mode="nearest") > DEAD_PHOTONS
    return np.argwhere((counted == 0) & lit & scan.always_counting)


def _named(gains: dict[str, NDArray[np.float64]]) -> str | None:
    """Return the fault that gains by frame tell of, or None if none is sure."""

    def sure(gain: NDArray[np.float64]) -> float:
        """Return what a gain of held-out photons exceeds in all likelihood."""
        return float(gain.sum() - SURE * gain.std(ddof=1) * len(gain) ** 0.5)

    lower = {name: sure(gain) for name, gain in gains.items()}
    if sure(gains["modes"] - gains["probe"]) <= 0:
        del lower["modes"]
    few = {name: float(gains[name].sum()) for name in ("focus", "drift") if lower[name] > 0}
    if (fall := float(gains["fall"].sum())) > LEAST_GAIN:
        few["fall"] = fall
    named = max(few, key=few.__getitem__, default=None)
    most = max(FREE.keys() & lower.keys(), key=lambda name: lower[name])
    return most if lower[most] > few.get(named or "", 0.0) else named
