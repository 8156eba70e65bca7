"""Measured frames, which have no ground truth: how well they are fitted, and how well they agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files import rules
from fly64_dose_overlap.files.npz import NpzReader
from fly64_dose_overlap.files.own_npz import read_user_base
from fly64_dose_overlap.methods.problem import Problem, Solver
from fly64_dose_overlap.physics.counts import FrameCounts
from fly64_dose_overlap.physics.likelihood import r_factor
from fly64_dose_overlap.progress import track
from fly64_dose_overlap.provenance import Record
from fly64_dose_overlap.scores.align import align_to
from fly64_dose_overlap.scores.frc import FrcCurve, cutoff, fourier_ring_correlation
from fly64_dose_overlap.scores.region import Region, scan_region
from fly64_dose_overlap.seeding import generator


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was measured, ready for reconstruction.

    Attributes
    ----------
    problem : Problem
        With all probe modes of the file.
    region : Region
        Pixels inside the scan that are illuminated.
    record : dict
        Provenance.
    """

    problem: Problem
    region: Region
    record: Record


@dataclass(frozen=True, eq=False)
class Agreement:
    """A reconstruction of measured frames and what speaks for it.

    Attributes
    ----------
    obj : (y, x) complex64
        From all frames.
    r_factor : float
        Fourier R-factor of all frames.
    frc : dict of FrcCurve
        Between the reconstructions of two halves of the data: ``even/odd`` frames, and
        ``thinned``, two halves of the photons of every frame. The first halves the overlap
        too, the second does not.
    """

    obj: Tensor
    r_factor: float
    frc: Mapping[str, FrcCurve]


def read_measurement(path: Path, region_threshold: float) -> Measurement:
    """Read measured frames with positions and all modes of the probe.

    Everything that a base set of one's own may be is understood, and all probe modes are
    kept. The object in the file gives the size of the grid and nothing else.

    Raises
    ------
    MissingFileError
        If there is no such file.
    StudyError
        If the file cannot be a base set, or has no frames.
    """
    base = read_user_base(path)
    if base.amplitude is None:
        raise StudyError(str(path), "has no frames", "add them as counts or diffraction")
    with NpzReader(path) as reader:
        modes = reader.load(rules.PROBE).astype(np.complex64)
    side = base.probe.shape[0]
    rows, columns = base.obj.shape
    problem = Problem(
        counts=FrameCounts(base.amplitude)[:],
        probe=torch.from_numpy(modes.reshape(-1, side, side)),
        positions_px=base.positions_px,
        object_shape=(rows, columns),
    )
    lit = problem.model().illumination().double().numpy()
    return Measurement(problem, scan_region(lit, base.positions_px, region_threshold), base.record)


def agreement(measurement: Measurement, solver: Solver, *, epochs: int, seed: int, label: str) -> Agreement:
    """Reconstruct all frames and two pairs of halves of the data, and compare.

    Parameters
    ----------
    measurement : Measurement
    solver : Solver
    epochs, seed : int
    label : str
        Names the work in the progress lines.
    """
    problem, region = measurement.problem, measurement.region
    whole = _after(solver, problem, epochs, seed, label)
    curves: dict[str, FrcCurve] = {}
    for name, pair in _halves(problem, seed):
        first, second = (
            _after(solver, half, epochs, seed, f"{label}, {name} {number}/2").numpy()
            for number, half in enumerate(pair, start=1)
        )
        aligned = align_to(first, second, region, upsampling=20)
        curves[name] = fourier_ring_correlation(
            first[region.rectangle], aligned.field[region.rectangle], window="hann"
        )
    return Agreement(whole, r_factor(problem.model(), problem.counts, whole), curves)


def _halves(problem: Problem, seed: int) -> Iterator[tuple[str, tuple[Problem, Problem]]]:
    even, odd = (_frames(problem, slice(first, None, 2)) for first in (0, 1))
    yield "even/odd", (even, odd)
    yield "thinned", problem.split_photons(0.5, generator(seed, "measured", "halves"))


def _frames(problem: Problem, chosen: slice) -> Problem:
    return replace(problem, counts=problem.counts[chosen], positions_px=problem.positions_px[chosen])


def _after(solver: Solver, problem: Problem, epochs: int, seed: int, label: str) -> Tensor:
    objects = islice(solver(problem, seed), epochs)
    obj = problem.flat_object()
    for found in track(objects, total=epochs, label=label, unit="epoch"):
        obj = found
    return obj.clone()


def photons_per_frame(problem: Problem) -> dict[str, float]:
    """Return mean, minimum and maximum of the photons in a frame."""
    totals: NDArray[np.float64] = problem.counts[:].sum(dim=(1, 2), dtype=torch.float64).numpy()
    return {"mean": float(totals.mean()), "min": float(totals.min()), "max": float(totals.max())}


def describe(found: Agreement, pixel_nm: float | None) -> dict[str, Any]:
    """Return R-factor and cutoffs as JSON-able values."""
    result: dict[str, Any] = {"r_factor": found.r_factor}
    for name, curve in found.frc.items():
        for threshold in ("half-bit", "one-seventh"):
            fraction = cutoff(curve, threshold)
            key = f"frc_{name.replace('/', '_')}_{threshold.replace('-', '_')}"
            result[key] = fraction
            result[f"{key}_nm"] = pixel_nm / fraction if pixel_nm and fraction > 0 else None
    return result
