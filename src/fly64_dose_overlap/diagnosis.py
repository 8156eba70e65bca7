"""What is likely wrong with the instrument of a scan: each thing is let free alone, and gains tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.arguments import checked_call
from fly64_dose_overlap.arrays import Brief
from fly64_dose_overlap.config import Seed
from fly64_dose_overlap.methods.joint_posterior import Stage, continued, powered
from fly64_dose_overlap.methods.posterior import FIRST_WEIGHT, Graduated, Posterior, weight_of
from fly64_dose_overlap.methods.searches import focused, frame_values, with_modes
from fly64_dose_overlap.parallel import one_torch_thread
from fly64_dose_overlap.physics.likelihood import BACKGROUND_PHOTONS
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.scan import Scan, Unknown
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.study.soundness import require_sound

HELD_OUT = 0.1
"""Part of the photons that tells."""
ITERATIONS = 90
FURTHER = 40
"""With one thing free, on from an object that was found with none."""
SURE = 4.0
"""Standard errors above zero that a gain must have."""
DEAD_PHOTONS = 30
"""Expected of a pixel in all frames, of which none is counted."""
OWN_PART = 0.6
"""Of the gain of more modes, or of a free probe, that a part of it must explain to be named instead."""

FREE = {
    "probe": Unknown(probe=True),
    "modes": Unknown(probe=True, modes=3),
    "positions": Unknown(positions_px=1.0),
    "flux": Unknown(flux=0.1),
}
ADVICE = {
    "focus": "the probe is out of focus: refine.probe: true",
    "probe": "the probe is another one: refine.probe: true",
    "modes": "the probe lacks modes: refine.probe: true, refine.modes: auto",
    "positions": "positions are off: refine.positions: 1.0",
    "flux": "the light of frames varies: refine.flux: 0.1",
}


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Brief):
    """What is likely wrong.

    Attributes
    ----------
    fault : str or None
        ``dead pixels``, ``focus``, ``probe``, ``modes``, ``positions`` or ``flux``; None if nothing is sure.
    dead : (pixel, 2) int64
        Detector pixels (y, x) that count nothing where light is expected.
    gains : dict of str to float
        By how many nats per frame held-out photons are explained better with each thing free alone.
    errors : dict of str to float
        Standard errors of the gains.
    """

    fault: str | None
    dead: NDArray[np.int64]
    gains: dict[str, float]
    errors: dict[str, float]

    def __str__(self) -> str:
        """Return in one sentence what is likely wrong and what to do."""
        if self.fault is None:
            return "nothing is surely wrong with probe, positions, flux and pixels"
        if self.fault == "dead pixels":
            named = ", ".join(f"[{y}, {x}]" for y, x in self.dead[:12].tolist())
            return f"{len(self.dead)} detector pixels count nothing: base.mend.bad_pixels: [{named}]"
        gain = self.gains[self.fault]
        return f"{ADVICE[self.fault]}; that explains held-out photons by {gain:.3g} nats per frame better"


@checked_call
def diagnose(scan: Scan, *, seed: Seed = 42) -> Diagnosis:
    """Tell what is likely wrong with probe, positions, flux and pixels of a scan; no truth is needed.

    The object is found with all as it is given. From there each thing is let free alone, and the one with
    which photons that were held out are explained best is named: a probe rather than its focus or its modes
    only if these do not explain most of its gain. It takes about five times as long as `map`.

    Parameters
    ----------
    scan : Scan
    seed : int
        Of the photons that are held out.
    """
    scan = replace(require_sound(scan), unknown=Unknown()).cropped()[0]
    with one_torch_thread():
        dead = _dead(scan, _found(scan))
        if len(dead):
            alive = np.ones((scan.side, scan.side), bool)
            alive[tuple(dead.T)] = False
            scan = replace(scan, mask=alive if scan.mask is None else scan.mask[:] & alive)
        fit, held = scan.divide(1 - HELD_OUT, generator(seed, "diagnose", "held-out"))
        start = _found(fit)
        rest = Posterior(weight_of(FIRST_WEIGHT, fit), start)(fit)
        given = _values(fit, held, next(islice(rest, FURTHER - 1, None)).clone())
        gains, errors = dict[str, float](), dict[str, float]()
        for name, (told, obj) in _freed(fit, start):
            gain = given - _values(told, held, obj)
            gains[name], errors[name] = float(gain.mean()), float(gain.std(ddof=1) / len(gain) ** 0.5)
            say(f"diagnose: {name} free, {gains[name]:.4g} nats per frame better (+- {errors[name]:.2g})")
    return Diagnosis("dead pixels" if len(dead) else _named(gains, errors), dead, gains, errors)


def _freed(scan: Scan, start: Tensor) -> Iterator[tuple[str, tuple[Scan, Tensor]]]:
    """Yield what is found of a scan with one thing free, and the object with it."""
    in_focus = powered(focused(scan))
    yield "focus", (in_focus, _found(in_focus))
    for name, unknown in FREE.items():
        here = replace(scan, unknown=unknown)
        if isinstance(unknown.modes, int):
            here = with_modes(here, max(unknown.modes, len(scan.probe) + 2))
        yield name, continued(here, start, Stage(FURTHER, BACKGROUND_PHOTONS))


def _found(scan: Scan) -> Tensor:
    solver = Graduated(weight_of(FIRST_WEIGHT, scan), ITERATIONS)
    return next(islice(solver(scan), ITERATIONS - 1, None)).clone()


def _values(told: Scan, held: Scan, obj: Tensor) -> NDArray[np.float64]:
    """Return half the deviance of each frame of held-out photons, with what was found on the others."""
    probe = told.probe * np.float32((HELD_OUT / (1 - HELD_OUT)) ** 0.5)
    held = replace(held, probe=probe, positions_px=told.positions_px, flux=told.flux)
    return frame_values(held, obj, BACKGROUND_PHOTONS)


def _dead(scan: Scan, obj: Tensor) -> NDArray[np.int64]:
    """Return pixels (pixel, 2) that count nothing in all frames where an object lets expect some."""
    expected = sum(scan.model.expected(obj, frames).double().sum(dim=0) for frames in scan.model.batches())
    counted = sum(block.sum(axis=0, dtype=np.float64) for block in scan.blocks())
    dead = (torch.as_tensor(expected).numpy() > DEAD_PHOTONS) & (counted == 0) & scan.always_counting
    return np.argwhere(dead)


def _named(gains: dict[str, float], errors: dict[str, float]) -> str | None:
    """Return what is named by its gain, or None if none is sure."""
    sure = {name: gain for name, gain in gains.items() if gain > SURE * errors[name]}
    if not sure:
        return None
    best = max(sure, key=sure.__getitem__)
    # A free probe may be in focus, and three modes may be one.
    for part, whole in (("probe", "modes"), ("focus", "probe")):
        if best == whole and sure.get(part, 0) > OWN_PART * sure[whole]:
            best = part
    return best
