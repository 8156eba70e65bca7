"""How often faults of the instrument are named rightly: ``python -m benchmarks.diagnosis``.

Each run simulates a scan of its own seed, puts one fault in, and asks `diagnose`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from fly64_dose_overlap import diagnose, simulate
from fly64_dose_overlap.methods.searches import with_modes
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.study.calibration import propagate

DEFOCUS_UM, DEFOCUS_ERROR = 910.0, 0.3
"""Of the simulated probe, and the part by which the told one is off, to either side."""
SHARES = (0.75, 0.15, 0.1)
"""Power of three modes, of which methods are told the first."""
DRIFT_PX, FALL = 1.0, 0.1
"""From the first to the last frame."""
LIT_PHOTONS = 60
"""In all frames, of a pixel that dies."""

Truth = NDArray[np.complex64]
Fault = Callable[[Scan, Truth, np.random.Generator], Scan]


def nothing(scan: Scan, truth: Truth, rng: np.random.Generator) -> Scan:
    """Return the scan as it is."""
    return scan


def one_mode_told_of_three(scan: Scan, truth: Truth, rng: np.random.Generator) -> Scan:
    """Return a scan whose light has three modes."""
    probe = with_modes(scan, len(SHARES)).probe
    power = (np.abs(probe) ** 2).sum(axis=(1, 2))
    probe = probe * np.sqrt(np.array(SHARES) * power.sum() / power)[:, None, None].astype(np.float32)
    return replace(scan, counts=counts_of(replace(scan, probe=probe), truth, rng))


def drift(scan: Scan, truth: Truth, rng: np.random.Generator) -> Scan:
    """Return a scan whose positions drifted evenly, in a direction that is drawn."""
    angle, room = rng.uniform(0, 2 * math.pi), math.ceil(2 * DRIFT_PX)
    wide = np.pad(truth, room, mode="edge")
    moved = scan.positions_px + room + np.outer(time_of(scan), drift_of(angle))
    true = replace(scan, positions_px=moved, object_shape=wide.shape)
    return replace(scan, counts=counts_of(true, wide, rng))


def drift_of(angle: float) -> NDArray[np.float64]:
    """Return the drift (y, x) in a direction, object pixels."""
    return DRIFT_PX * np.array([math.sin(angle), math.cos(angle)])


def defocus(scan: Scan, truth: Truth, rng: np.random.Generator) -> Scan:
    """Return a scan of which a probe out of focus is told, to the side that is drawn."""
    if (optics := scan.optics) is None:
        raise ValueError("a simulated scan has its optics")
    further = DEFOCUS_ERROR * DEFOCUS_UM * 1e-6 * rng.choice((-1, 1))
    probe = propagate(scan.probe.astype(np.complex128), further, optics.wavelength_m, optics.object_pixel_m)
    return replace(scan, probe=probe.astype(np.complex64))


def dead_pixel(scan: Scan, truth: Truth, rng: np.random.Generator) -> Scan:
    """Return a scan of which one lit pixel counts nothing."""
    counts = scan.counts[:].copy()
    lit = np.argwhere(counts.sum(axis=0) > LIT_PHOTONS)
    y, x = lit[rng.integers(len(lit))]
    counts[:, y, x] = 0
    return replace(scan, counts=counts)


def falling_light(scan: Scan, truth: Truth, rng: np.random.Generator) -> Scan:
    """Return a scan whose light fell evenly."""
    flux = 1 - FALL * (time_of(scan) + 0.5)
    return replace(scan, counts=counts_of(replace(scan, flux=flux), truth, rng))


FAULTS: dict[str | None, Fault] = {
    "modes": one_mode_told_of_three,
    "drift": drift,
    "focus": defocus,
    "dead pixels": dead_pixel,
    "fall": falling_light,
    None: nothing,
}
"""By the name that `diagnose` is to give."""


def time_of(scan: Scan) -> NDArray[np.float64]:
    """Return where each frame lies between the first and the last, from -1/2 to 1/2."""
    return np.linspace(-0.5, 0.5, len(scan))


def counts_of(true: Scan, truth: Truth, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return counts (frame, y, x) of a scan as it really is."""
    model, obj = true.model, torch.from_numpy(truth)
    expected = (model.expected(obj, frames).double().numpy() for frames in model.batches())
    return np.concatenate([rng.poisson(each) for each in expected]).astype(np.float32)


def faulty(name: str | None, seed: int, photons: float, object_kind: str = "star") -> Scan:
    """Return a scan of some seed with a fault."""
    scan, truth = simulate(photons, seed=seed, object_kind=object_kind, defocus_um=DEFOCUS_UM)
    return FAULTS[name](scan, truth, np.random.default_rng([seed, 7]))


def main(
    runs: Annotated[int, typer.Option(min=1, help="scans of each fault")] = 20,
    photons: Annotated[float, typer.Option(help="per frame")] = 1e4,
    object_kind: Annotated[str, typer.Option("--object", help="star or texture")] = "star",
) -> None:
    """Print for each fault what was named in how many runs; some 25 s a run on two cores."""
    for name in FAULTS:
        found = Counter[str | None]()
        for seed in range(1, runs + 1):
            diagnosis = diagnose(faulty(name, seed, photons, object_kind))
            found[diagnosis.fault] += 1
            say(f"{name}, seed {seed}: {diagnosis}")
        others = ", ".join(f"{other} {count}" for other, count in found.items() if other != name)
        print(
            f"{name or 'nothing wrong'}: named in {found[name]} of {runs}"
            + (f" ({others})" if others else "")
        )


if __name__ == "__main__":
    typer.run(main)
