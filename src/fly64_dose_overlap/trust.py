"""How far a reconstruction of measured frames, whose object nobody knows, can be trusted."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from fly64_dose_overlap.arguments import checked_call
from fly64_dose_overlap.arrays import Brief
from fly64_dose_overlap.config import Seed
from fly64_dose_overlap.diagnosis import Diagnosis, diagnosed
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.front import reconstructed
from fly64_dose_overlap.outcome import Result
from fly64_dose_overlap.physics.fit import Fit
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.scores.align import align_to
from fly64_dose_overlap.scores.fit import fit_of_others
from fly64_dose_overlap.scores.frc import FrcCurve, ThresholdName, cutoff, fourier_ring_correlation
from fly64_dose_overlap.scores.region import EVALUATION, scan_region
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.study.measured import halves
from fly64_dose_overlap.study.soundness import require_sound

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THRESHOLDS: tuple[ThresholdName, ...] = ("half-bit", "one-seventh")
"""Of the Fourier ring correlation of two noisy halves."""
LARGE_DEVIANCE = 2.0
"""Per detector pixel, that noise alone never leaves."""
LEAST_SIDE_PX = 4
"""Of the region in which halves are compared."""
SAME_PROBE = 1e-3
"""Relative difference of probes that are the same but for their power."""
DARK = 0.01
"""Part of the largest illumination below which an object is not known."""
SHARED_FRC = 0.25
"""By how much, averaged over the rings, that of thinned halves may exceed that of halves of the frames."""


@dataclass(frozen=True, eq=False, repr=False)
class Agreement(Brief):
    """A reconstruction of measured frames, which have no ground truth, and what speaks for it.

    Attributes
    ----------
    result : Result
        From all frames.
    fit : Fit
        How well it explains all frames, beside what noise alone leaves.
    r_empty : float
        R-factor of an empty object.
    frc : dict of str to FrcCurve
        Fourier ring correlation between the reconstructions of two halves of the data:
        halves of the ``frames``, which have half the overlap too, and ``thinned``, two halves of the
        photons of every frame, which have all of it.
    pixel_nm : float or None
        Side of an object pixel, where it is known.
    unseen : Fit or None
        How well the object of the first half of the frames explains the second, which it was not made
        of; None where frames cannot be divided. Unlike the correlation it pays for what halves share.
    halves : dict of str to (Result, Result)
        Those reconstructions, by the names in ``frc``.
    others : dict of str to Agreement
        The same of what else the method gave, such as the result of another stop, by name.
    """

    result: Result
    fit: Fit
    r_empty: float
    frc: dict[str, FrcCurve]
    pixel_nm: float | None
    unseen: Fit | None
    halves: dict[str, tuple[Result, Result]]
    others: dict[str, Agreement]

    @property
    def cutoffs_nyquist(self) -> dict[str, dict[ThresholdName, float]]:
        """Of each curve where it falls below each threshold, as a fraction of Nyquist; 1 means at least 1."""
        return {pair: {name: cutoff(curve, name) for name in THRESHOLDS} for pair, curve in self.frc.items()}

    @property
    def cutoffs_nm(self) -> dict[str, dict[ThresholdName, float | None]]:
        """The same as half periods in nanometres; None without a pixel size, or if no ring agrees."""
        pixel = self.pixel_nm
        return {
            pair: {name: pixel / value if pixel and value > 0 else None for name, value in found.items()}
            for pair, found in self.cutoffs_nyquist.items()
        }

    @property
    def is_fit(self) -> bool:
        """Whether the frames are explained better than by an empty object, or as well as noise allows.

        Halves that share what nothing explains, such as a hot pixel, agree to any detail.
        """
        return self.fit.r_factor <= self.r_empty or self.fit.deviance <= LARGE_DEVIANCE

    @property
    def doubt(self) -> str:
        """Say so where frames are not fitted, or halves of them do not bear out halves of the photons; or "".

        The latter share the frames, and the pattern that these leave in an object which does not yet, or
        with such a probe cannot, explain them.
        """
        if not self.is_fit:
            return (
                f"the frames are not fitted: R-factor {self.fit.r_factor:.4g} for {self.r_empty:.4g} of an "
                "empty object; look for bad pixels, and at the orientation of frames, positions and probe"
            )
        frames, photons = self.frc.get("frames"), self.frc["thinned"]
        if frames is None or (photons.frc - frames.frc).mean() <= SHARED_FRC:
            return ""
        reached = {name: found["half-bit"] for name, found in self.cutoffs_nyquist.items()}
        return (
            f"halves of the photons agree to {reached['thinned']:.2f} of Nyquist, halves of the frames only "
            f"to {reached['frames']:.2f}: the former may agree in what all frames share and not in the "
            "object; take more epochs, check the probe, or go by the halves of the frames"
        )

    def __str__(self) -> str:
        """Return the R-factor, that of noise, and the cutoffs, if these mean anything, in one line."""
        if not self.is_fit:
            return f"{self.result.label}: no resolution, since {self.doubt}"
        parts = [f"{self.result.label}: R-factor {self.fit.r_factor:.4f} (noise {self.fit.r_floor:.4f})"]
        if self.unseen is not None:
            noise = f"noise {self.unseen.deviance_floor:.4f}"
            parts.append(f"deviance of unseen frames {self.unseen.deviance:.4f} ({noise})")
        for pair, found in self.cutoffs_nyquist.items():
            for name, value in found.items():
                nanometres = self.cutoffs_nm[pair][name]
                unit = "" if nanometres is None else f" ({nanometres:.3g} nm)"
                least = "at least " if value == 1 else ""
                parts.append(f"{pair} {name} at {least}{value:.2f}{unit}")
        return f"{', '.join(parts)} of Nyquist"

    def plot(self) -> Figure:
        """Draw the curves and the thresholds; returns the matplotlib figure."""
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
        for pair, curve in self.frc.items():
            axes.plot(curve.nyquist_fraction, curve.frc, label=pair)
        curve = next(iter(self.frc.values()))
        for name, style in zip(THRESHOLDS, ("-.", ":"), strict=True):
            axes.plot(curve.nyquist_fraction, curve.threshold(name), style, color="grey", label=name)
        title = f"{self.result.label}: agreement of halves of the data"
        axes.set(xlabel="spatial frequency / Nyquist", ylabel="FRC", title=title)
        axes.legend()
        return figure


@checked_call
def diagnose(scan: Scan) -> Diagnosis:
    """Tell what is likely wrong with probe, positions, light and pixels of a scan; no truth is needed.

    Each fault is mended alone, and the one is named by which the frames are explained best: `diagnosed`.

    Parameters
    ----------
    scan : Scan
        Of more than 625 frames those about the middle are looked at.

    Raises
    ------
    StudyError
        If a method would refuse the scan.

    Examples
    --------
    >>> from fly64_dose_overlap import simulate
    >>> scan, _ = simulate(1e4, field_px=30, frame_side_px=32, defocus_um=200)
    >>> print(diagnose(scan))
    nothing is surely wrong with probe, positions, light and pixels
    """
    return diagnosed(require_sound(scan))


@checked_call
def misfit(result: Result, scan: Scan | None = None, *, seed: Seed = 42) -> Fit:
    """Tell how well a reconstruction explains counted photons, beside what noise alone leaves.

    Parameters
    ----------
    result : Result
    scan : Scan, optional
        Other frames of the same object, on the same grid, with the same probe and at any dose, such as
        some that ``result`` was not made of; by default those that it was made of. Frames that it was
        made of, by number and position, are taken where ``result`` has found them to be.
    seed : int
        Of the noise that the floors are those of.

    Raises
    ------
    StudyError
        If the scan has another grid or another probe.

    Examples
    --------
    >>> from fly64_dose_overlap import reconstruct, simulate
    >>> scan, _ = simulate(1e4, field_px=30, step_px=3, frame_side_px=32, defocus_um=200)
    >>> even, odd = (scan.frames(np.arange(first, len(scan), 2)) for first in (0, 1))
    >>> result = reconstruct(even, "ml", epochs=30)
    >>> own, others = misfit(result), misfit(result, odd)
    >>> own.deviance < own.deviance_floor < others.deviance
    True
    """
    if scan is None:
        return _misfit(result, result.scan, seed)
    hint = "give frames of the same scan, read in the same way: scan.frames(...)"
    shapes = [(each.object_shape, each.probe.shape) for each in (scan, result.scan)]
    if shapes[0] != shapes[1]:
        raise StudyError("misfit", f"grid and probe are {shapes[0]}, those of the result {shapes[1]}", hint)
    given, own = (each.probe.astype(np.complex128) for each in (scan, result.scan))
    apart = np.linalg.norm(given / np.linalg.norm(given) - own / np.linalg.norm(own))
    if apart > SAME_PROBE:
        raise StudyError("misfit", f"the probe is another than that of the result ({apart:.2g} apart)", hint)
    dark = int((_lit_parts(scan, result.scan.illumination()) < 0.5).sum())
    if dark:
        told = f"{dark} of {len(scan)} frames look mostly where the result had no light, and its object is 1"
        warnings.warn(f"misfit: {told}", stacklevel=3)
    return _misfit(result, require_sound(scan), seed)


@checked_call
def agreement(
    scan: Scan,
    method: str = "ml",
    *,
    seed: Seed = 42,
    pixel_nm: Annotated[float, Field(gt=0)] | None = None,
    **settings: Any,
) -> Agreement:
    """Reconstruct measured frames, all and halves of them, and tell how far that can be trusted.

    There is no ground truth: the R-factor tells how well the frames are fitted, and the Fourier
    ring correlation how far two halves of the data agree. What both share raises it: errors of the
    probe and of the positions, a prior, and, of halves of the photons, the pattern of the frames that
    an unfinished iteration leaves; a warning says where halves of the frames do not bear them out. A
    learned method is trained, a prior weighed and a stop chosen on each half anew. A scan in groups of
    four is thinned only.

    Parameters
    ----------
    scan : Scan
    method : str
    seed : int
    pixel_nm : float, optional
        Side of an object pixel, for resolutions in nanometres; by default that of ``scan.optics``.
    **settings
        That differ from the method's own.

    Returns
    -------
    Agreement
        As `reconstruct`, of an iteration after all its epochs; that of the epoch which held-out
        photons choose is among its ``others``.

    Raises
    ------
    StudyError
        As `reconstruct`, or if a model is given, which halves would share, or there is a single frame.

    Examples
    --------
    >>> from fly64_dose_overlap import simulate
    >>> scan, _ = simulate(1e4, field_px=30, frame_side_px=32, defocus_um=200)
    >>> list(agreement(scan, epochs=20).frc)
    ['frames', 'thinned']
    """
    if len(scan) < 2:
        raise StudyError("agreement", f"a scan of {len(scan)} frames has no halves")
    if "model" in settings:
        hint = "leave model out: it is trained on each half"
        raise StudyError("agreement", "halves that share a network agree in what it invents", hint)

    def found(part: Scan) -> Result:
        return reconstructed(part, method, None, seed, settings)

    scan = require_sound(scan)
    height, width = scan_region(scan.illumination(), scan.positions_px, EVALUATION.region_threshold).shape
    if min(height, width) < LEAST_SIDE_PX:
        problem = f"{len(scan)} frames light {height} x {width} object pixels between their positions"
        raise StudyError("agreement", problem, f"halves are compared on {LEAST_SIDE_PX} x {LEAST_SIDE_PX}")
    whole = found(scan)
    pixel_nm = pixel_nm or (None if scan.optics is None else scan.optics.object_pixel_m * 1e9)
    pairs = {name: (found(a), found(b)) for name, (a, b) in halves(scan, seed)}
    agreed, others = _agreed(whole, pairs, pixel_nm, seed), dict[str, Agreement]()
    if agreed.doubt:
        warnings.warn(agreed.doubt, stacklevel=3)
    for name, other in whole.others.items():
        same = {key: (first.others[name], second.others[name]) for key, (first, second) in pairs.items()}
        others[name] = _agreed(other, same, pixel_nm, seed)
    return replace(agreed, others=others)


def _agreed(
    whole: Result, pairs: dict[str, tuple[Result, Result]], pixel_nm: float | None, seed: int
) -> Agreement:
    """Compare one result of a method, of all frames and of halves of the data."""
    scan = whole.scan
    empty = _misfit(replace(whole, obj=np.ones_like(whole.obj)), scan, seed)
    region = scan_region(scan.illumination(), scan.positions_px, EVALUATION.region_threshold)
    inside = region.rectangle
    curves, unseen = dict[str, FrcCurve](), None
    for name, (first, second) in pairs.items():
        if name == "frames":
            unseen = _misfit(first, second.scan, seed)
        aligned = align_to(first.obj, second.obj, region, upsampling=EVALUATION.registration_upsampling)
        curves[name] = fourier_ring_correlation(first.obj[inside], aligned.field[inside])
    own = _misfit(whole, scan, seed)
    return Agreement(whole, own, empty.r_factor, curves, pixel_nm, unseen, pairs, {})


def _misfit(result: Result, scan: Scan, seed: int) -> Fit:
    """Do what `misfit` does with a scan that is known to be sound and to fit."""
    positions, own = scan.positions_px.copy(), result.scan
    _, here, there = np.intersect1d(scan.scan_index, own.scan_index, return_indices=True)
    same = (scan.positions_px[here] == own.positions_px[there]).all(axis=1)
    positions[here[same]] = result.positions_px[there[same]]
    flux = None
    if result.flux is not None:
        flux = np.ones(len(scan))
        flux[here[same]] = result.flux[there[same]]
    moved = replace(scan, positions_px=positions, flux=flux)
    return fit_of_others(moved, result.obj, result.probe, result.scan, generator(seed, "fit"))


def _lit_parts(scan: Scan, light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the part of each frame's probe (frame,) that falls where an illumination (y, x) is not dark."""
    lit = torch.from_numpy((light > DARK * light.max()).astype(np.complex64))
    power = torch.from_numpy((np.abs(scan.probe) ** 2).sum(axis=0))
    seen = [(scan.model.patches(lit, frames).real * power).sum(dim=(1, 2)) for frames in scan.model.batches()]
    return (torch.cat(seen) / power.sum()).numpy()
