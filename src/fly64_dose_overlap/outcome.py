"""What the front door returns: a reconstruction, how far it is from the truth, or how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import Brief
from fly64_dose_overlap.config import EvaluateParams
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.scores.fit import Fit
from fly64_dose_overlap.scores.frc import FrcCurve, ThresholdName, cutoff
from fly64_dose_overlap.scores.region import scan_region

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVALUATION = EvaluateParams(region_threshold=0.1, registration_upsampling=50)
"""The study's own, so that a notebook's scores are those of the study."""
THRESHOLDS: tuple[ThresholdName, ...] = ("half-bit", "one-seventh")
"""Of the Fourier ring correlation of two noisy halves."""
LARGE_DEVIANCE = 2.0
"""Per detector pixel, that noise alone never leaves."""
SHARED_FRC = 0.25
"""By how much, averaged over the rings, that of thinned halves may exceed that of even and odd frames."""


@dataclass(frozen=True, eq=False, repr=False)
class Result(Brief):
    """A reconstruction of a scan.

    Attributes
    ----------
    name, label : str
        Of the method.
    obj : (y, x) complex64
        Transmission of the object, one where no light falls.
    probe : (mode, y, x) complex64, sqrt(photons)
    positions_px : (frame, 2) float64, object pixels
    loss : (epoch,) float64
        Deviance of held-out photons, where the method followed it.
    seconds : float
        On the clock.
    settings : dict
        What the method was run with.
    scan : Scan
        What was reconstructed.
    others : dict of str to Result
        What else the method gave, such as the result of another stop, by name.
    """

    name: str
    label: str
    obj: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]
    loss: NDArray[np.float64]
    seconds: float
    settings: dict[str, Any]
    scan: Scan
    others: dict[str, Result]

    def plot(self) -> Figure:
        """Draw amplitude and phase where light falls; returns the matplotlib figure."""
        import matplotlib.pyplot as plt

        light = self.scan.illumination()
        region = scan_region(light, self.scan.positions_px, EVALUATION.region_threshold)
        inside = self.obj[region.rectangle]
        inside = inside * np.exp(-1j * np.angle(inside[region.mask[region.rectangle]].sum()))
        rows, columns = region.rectangle
        extent = (columns.start, columns.stop, rows.stop, rows.start)
        figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
        images = (("amplitude", np.abs(inside), "gray"), ("phase (rad)", np.angle(inside), "viridis"))
        for panel, (title, image, colours) in zip(axes, images, strict=True):
            drawn = panel.imshow(image, cmap=colours, extent=extent, origin="upper")
            panel.set(title=title, xlabel="x (object pixels)", ylabel="y (object pixels)")
            figure.colorbar(drawn, ax=panel, shrink=0.8)
        figure.suptitle(self.label)
        return figure


@dataclass(frozen=True, repr=False)
class Scores(Brief):
    """How far a reconstruction is from the truth, after alignment, over the illuminated region.

    Attributes
    ----------
    label : str
        Of the method.
    phase_psnr_db, amplitude_psnr_db : float or None
        Peak signal-to-noise ratio; the peak is the truth's own range.
    phase_ssim : float or None
        Structural similarity.
    complex_nrmse : float
        Root of the mean squared error of the complex object over that of the truth.
    frc50_nyquist : float
        Where the Fourier ring correlation with the truth falls below 1/2, as a fraction of Nyquist.
    region_pixels : int
    details : dict
        Everything that `dose-overlap` reports of a method.
    """

    label: str
    phase_psnr_db: float | None
    amplitude_psnr_db: float | None
    phase_ssim: float | None
    complex_nrmse: float
    frc50_nyquist: float
    region_pixels: int
    details: dict[str, Any]

    def __str__(self) -> str:
        """Return the scores in one line."""

        def shown(value: float | None, style: str) -> str:
            return "-" if value is None else format(value, style)

        return (
            f"{self.label}: phase PSNR {shown(self.phase_psnr_db, '.2f')} dB, "
            f"amplitude PSNR {shown(self.amplitude_psnr_db, '.2f')} dB, "
            f"phase SSIM {shown(self.phase_ssim, '.3f')}, complex NRMSE {self.complex_nrmse:.4f}, "
            f"FRC50 at {self.frc50_nyquist:.2f} of Nyquist, over {self.region_pixels:,} pixels"
        )


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
        ``even/odd`` frames, which have half the overlap too, and ``thinned``, two halves of the
        photons of every frame, which have all of it.
    pixel_nm : float or None
        Side of an object pixel, where it is known.
    unseen : Fit or None
        How well the object of the even frames explains the odd ones, which it was not made of; None
        where frames cannot be divided. Unlike the correlation it pays for what halves share.
    """

    result: Result
    fit: Fit
    r_empty: float
    frc: dict[str, FrcCurve]
    pixel_nm: float | None
    unseen: Fit | None

    @property
    def cutoffs_nyquist(self) -> dict[str, dict[ThresholdName, float]]:
        """Of each curve where it falls below each threshold, as a fraction of Nyquist; 1 means at least 1."""
        return {
            halves: {name: cutoff(curve, name) for name in THRESHOLDS} for halves, curve in self.frc.items()
        }

    @property
    def cutoffs_nm(self) -> dict[str, dict[ThresholdName, float | None]]:
        """The same as half periods in nanometres; None without a pixel size, or if no ring agrees."""
        pixel = self.pixel_nm
        return {
            halves: {name: pixel / value if pixel and value > 0 else None for name, value in found.items()}
            for halves, found in self.cutoffs_nyquist.items()
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
        frames, photons = self.frc.get("even/odd"), self.frc["thinned"]
        if frames is None or (photons.frc - frames.frc).mean() <= SHARED_FRC:
            return ""
        reached = {name: found["half-bit"] for name, found in self.cutoffs_nyquist.items()}
        return (
            f"halves of the photons agree to {reached['thinned']:.2f} of Nyquist, halves of the frames only "
            f"to {reached['even/odd']:.2f}: the former may agree in what all frames share and not in the "
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
        for halves, found in self.cutoffs_nyquist.items():
            for name, value in found.items():
                nanometres = self.cutoffs_nm[halves][name]
                unit = "" if nanometres is None else f" ({nanometres:.3g} nm)"
                least = "at least " if value == 1 else ""
                parts.append(f"{halves} {name} at {least}{value:.2f}{unit}")
        return f"{', '.join(parts)} of Nyquist"

    def plot(self) -> Figure:
        """Draw the curves and the thresholds; returns the matplotlib figure."""
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
        for halves, curve in self.frc.items():
            axes.plot(curve.nyquist_fraction, curve.frc, label=halves)
        curve = next(iter(self.frc.values()))
        for name, style in zip(THRESHOLDS, ("-.", ":"), strict=True):
            axes.plot(curve.nyquist_fraction, curve.threshold(name), style, color="grey", label=name)
        title = f"{self.result.label}: agreement of halves of the data"
        axes.set(xlabel="spatial frequency / Nyquist", ylabel="FRC", title=title)
        axes.legend()
        return figure
