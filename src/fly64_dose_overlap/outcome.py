"""What the front door returns: a reconstruction, and how far it is from the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import Brief
from fly64_dose_overlap.files.reconstruction import Reconstruction
from fly64_dose_overlap.report.remains import INSTRUMENT_IN, draw_instrument
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.scores.found import FoundInstrument
from fly64_dose_overlap.scores.region import EVALUATION, scan_region

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    flux : (frame,) float64 or None
        Light of each frame in that of the probe, where it was found.
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
    flux: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, found: Reconstruction, scan: Scan, seconds: float) -> Result:
        """Return what a method has found of a scan."""
        named = {
            name: getattr(found, name) for name in ("label", "obj", "probe", "positions_px", "loss", "flux")
        }
        return cls(name=found.method, seconds=seconds, settings=found.settings, scan=scan, others={}, **named)

    def plot_instrument(self) -> Figure:
        """Draw what was found of the instrument; returns the matplotlib figure.

        Modes of the probe with their part of its power, how far positions have moved (arrows ten times as
        long), and the light of each frame.
        """
        import matplotlib.pyplot as plt

        figure = plt.figure(figsize=INSTRUMENT_IN, layout="constrained")
        draw_instrument(figure, self.label, FoundInstrument.of(self, self.scan))
        return figure

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
