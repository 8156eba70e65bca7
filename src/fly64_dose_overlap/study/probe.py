"""The illumination: a defocused Fresnel zone plate with a central stop."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex
from numpy.typing import NDArray

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.scan import HC_EV_M, Scan

PADDING = 4
"""The field is computed on a grid this many frames wide, then cropped to one frame."""

RIGHT_ANGLE_MRAD = 500 * math.pi
"""Half-angles of a lens are below it."""
LEAST_RIM = 2.0
"""Of a lens that is told, in detector pixels."""


@dataclass(frozen=True)
class ZonePlate:
    """Zone plate and detector; the defaults are those of the APS Velociprobe.

    Uniform zones would put too much power outside: diffraction efficiency falls
    towards the finest zones. The pupil amplitude therefore carries the factor
    ``exp(-(rho / apodisation)**2)``, ``rho`` being the radius as a fraction of the
    aperture's. With 0.8 the normalised overlap with the measured main mode, over
    shift, tilt and defocus, rises from 0.79 (uniform) to 0.90; no radially
    symmetric pupil exceeds 0.93. The radii that hold 50, 80, 90 and 95 % of the
    power at 850 um are within 3 % of that mode's, and below those of the three
    modes together by 4 to 12 %.

    Raises
    ------
    StudyError
        If a length is not positive or the stop covers the aperture.
    """

    diameter_m: float = 180e-6
    outermost_zone_m: float = 50e-9
    central_stop_m: float = 60e-6
    energy_ev: float = 8800.0
    detector_pixel_m: float = 75e-6
    detector_distance_m: float = 1.95
    apodisation: float = 0.8
    """Radius where the amplitude is 1/e, fraction of the aperture radius; ``inf`` for a uniform pupil."""
    rim_width: float = 0.0
    """Width over which aperture and stop fade, fraction of the aperture radius; at least one sample."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (value > 0 or (value == 0 and name in ("central_stop_m", "rim_width"))):
                raise StudyError(f"ZonePlate.{name}", f"must be positive, got {value}")
        if self.central_stop_m >= self.diameter_m:
            problem = f"must be below the diameter {self.diameter_m} m, got {self.central_stop_m}"
            raise StudyError("ZonePlate.central_stop_m", problem)

    @property
    def wavelength_m(self) -> float:
        """Return the wavelength in vacuum."""
        return HC_EV_M / self.energy_ev

    @property
    def cutoff_per_m(self) -> float:
        """Return the spatial frequency of the aperture's rim, 1 / (2 * outermost zone)."""
        return 0.5 / self.outermost_zone_m

    def object_pixel_m(self, frame_side_px: int) -> float:
        """Return the object pixel of the central ``frame_side_px`` square of the detector.

        A wider square sees higher angles, so the pixel shrinks and the field of view
        ``frame_side_px * pixel`` stays: 57.2 nm at 64, 28.6 nm at 128.
        """
        return self.wavelength_m * self.detector_distance_m / (frame_side_px * self.detector_pixel_m)

    def described(self, frame_side_px: int, **more: float) -> dict[str, float]:
        """Return the physical parameters of a record, for frames of a side, and some more."""
        return {
            "frame_side_px": frame_side_px,
            "object_pixel_m": self.object_pixel_m(frame_side_px),
            "energy_ev": self.energy_ev,
            "detector_pixel_m": self.detector_pixel_m,
            "detector_distance_m": self.detector_distance_m,
            "zone_plate_diameter_m": self.diameter_m,
            "outermost_zone_m": self.outermost_zone_m,
            "central_stop_m": self.central_stop_m,
            **more,
        }


def zone_plate_probe(
    frame_side_px: int, defocus_m: float, optics: ZonePlate | None = None
) -> NDArray[np.complex64]:
    """Compute the probe at a distance behind the focus.

    The pupil is a function of spatial frequency, propagated by the Fresnel transfer
    function ``exp(-i pi wavelength z u^2)``. The frame is one crop of a wider grid,
    so that the beam's tails do not wrap around into it.

    The band is that of the frame. At N = 64 its Nyquist frequency, 8.7 / um, lies
    inside the pupil's rim at 10 / um: light that the central 64 x 64 detector pixels
    would not see is absent from the probe, rather than aliased into it. From N = 74
    on the pupil is complete.

    Parameters
    ----------
    frame_side_px : int, even, >= 8
    defocus_m : float, m
        Distance of the sample behind the focus; negative means before it.

    Returns
    -------
    probe : (y, x) complex64
        Centred on pixel [N/2, N/2]; the sum of its squared modulus is 1.

    Raises
    ------
    StudyError
        If N is odd or too small, or the cone of light is wider than the frame, or the
        central stop shades all of it.

    References
    ----------
    D. Attwood, Soft X-rays and Extreme Ultraviolet Radiation, section 9.3 (zone plate);
    J. W. Goodman, Introduction to Fourier Optics, section 4.2 (Fresnel transfer function).
    """
    optics = optics or ZonePlate()
    if frame_side_px < 8 or frame_side_px % 2:
        raise StudyError("frame_side_px", f"must be even and at least 8, got {frame_side_px}")
    pixel_m = optics.object_pixel_m(frame_side_px)
    highest = min(optics.cutoff_per_m, math.sqrt(0.5) / pixel_m)
    if highest <= optics.cutoff_per_m * optics.central_stop_m / optics.diameter_m:
        problem = f"{frame_side_px} detector pixels lie in the shadow of the central stop"
        raise StudyError("frame_side_px", problem, "use a larger frame, such as 64")
    cone_px = 2 * optics.wavelength_m * abs(defocus_m) * highest / pixel_m
    if not cone_px < frame_side_px:
        raise StudyError(
            "defocus_um",
            f"{defocus_m * 1e6:.0f} um spreads the beam over {cone_px:.0f} px of a {frame_side_px} px frame",
            f"stay below {1e6 * abs(defocus_m) * frame_side_px / cone_px:.0f} um",
        )
    grid_side_px = PADDING * frame_side_px
    frequency = np.fft.fftfreq(grid_side_px, pixel_m)
    radial_frequency = np.hypot(frequency[:, None], frequency[None, :])
    phase = -math.pi * optics.wavelength_m * defocus_m * radial_frequency**2
    field = np.fft.fftshift(np.fft.ifft2(_pupil(radial_frequency, frequency[1], optics) * np.exp(1j * phase)))
    start = (grid_side_px - frame_side_px) // 2
    probe = field[start : start + frame_side_px, start : start + frame_side_px]
    return (probe / np.linalg.norm(probe)).astype(np.complex64)


def lens_probe(
    scan: Scan, *, rim_mrad: float, defocus_um: float, stop_mrad: float = 0.0
) -> Complex[NDArray[np.complex64], "1 y x"]:
    """Compute the probe of an aperture or a zone plate, for methods to begin with: docs/unknown.md.

    Parameters
    ----------
    scan : Scan
        With optics; the probe has the power of its own.
    rim_mrad : float, mrad
        Half-angle of the cone of light: of a zone plate wavelength / (2 * outermost zone width).
    defocus_um : float, um
        Distance of the sample behind the focus; negative: before it.
    stop_mrad : float, mrad
        Half-angle of a central stop's shadow; 0: there is none.

    Raises
    ------
    StudyError
        If the scan has no optics, or the lens lights too few detector pixels or a probe wider than a frame.

    Examples
    --------
    >>> import fly64_dose_overlap as fdo
    >>> scan, _ = fdo.simulate(1e4, field_px=30, frame_side_px=32, defocus_um=200)
    >>> fdo.lens_probe(scan, rim_mrad=1.41, stop_mrad=0.47, defocus_um=200).shape
    (1, 32, 32)
    """
    if scan.optics is None:
        problem = "the scan has no wavelength and object pixel"
        raise StudyError("lens", problem, "give it optics: replace(scan, optics=Optics(...))")
    if not 0 <= stop_mrad < rim_mrad < RIGHT_ANGLE_MRAD:
        problem = f"half-angles must be 0 <= stop_mrad < rim_mrad < 1571, got {stop_mrad:g} and {rim_mrad:g}"
        raise StudyError("lens", problem)
    if not math.isfinite(defocus_um):
        raise StudyError("lens", f"defocus_um must be finite, got {defocus_um}")
    wavelength_m, pixel_m = scan.optics.wavelength_m, scan.optics.object_pixel_m
    pixel_mrad = 1e3 * wavelength_m / (scan.side * pixel_m)
    if rim_mrad < LEAST_RIM * pixel_mrad:
        problem = f"a rim of {rim_mrad:g} mrad is {rim_mrad / pixel_mrad:.2g} detector pixels from the middle"
        raise StudyError("lens", problem, f"give half-angles in mrad; a detector pixel is {pixel_mrad:.3g}")
    lens = ZonePlate(
        diameter_m=1.0,
        outermost_zone_m=0.5e3 * wavelength_m / rim_mrad,
        central_stop_m=stop_mrad / rim_mrad,
        energy_ev=HC_EV_M / wavelength_m,
        detector_pixel_m=1.0,
        detector_distance_m=pixel_m * scan.side / wavelength_m,
        apodisation=math.inf,
    )
    probe = zone_plate_probe(scan.side, defocus_um * 1e-6, lens)[None]
    return probe * np.float32(np.linalg.norm(scan.probe))


def _pupil(radial_frequency: NDArray[np.float64], step: float, optics: ZonePlate) -> NDArray[np.float64]:
    """Return the pupil's amplitude with rims one sample wide or more, which keeps them round."""
    rim = optics.cutoff_per_m
    width = max(step, optics.rim_width * rim)
    amplitude = np.exp(-((radial_frequency / (rim * optics.apodisation)) ** 2))
    amplitude *= np.clip(0.5 + (rim - radial_frequency) / width, 0.0, 1.0)
    if optics.central_stop_m > 0:
        stop = rim * optics.central_stop_m / optics.diameter_m
        amplitude *= np.clip(0.5 + (radial_frequency - stop) / width, 0.0, 1.0)
    return amplitude
