"""The list of scores: names, units, places in metrics/evaluation.json, which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MISSING = "-"


@dataclass(frozen=True)
class Score:
    """A score of a method."""

    key: str
    """Its name in tables for machines, with the unit."""
    name: str
    unit: str
    """Empty for a pure number."""
    path: tuple[str, ...]
    """Keys that lead to it in the scores of a method."""
    style: str
    """Format of a value."""
    higher_is_better: bool
    limit: str = ""
    """Its key in the physical limit, if that has one."""
    delta_style: str = ""
    """Format of a difference, if that needs more digits; the sign is added."""

    @property
    def label(self) -> str:
        """Name with unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def direction(self) -> str:
        """Say which way is better."""
        return "higher is better" if self.higher_is_better else "lower is better"

    def of(self, scores: dict[str, Any]) -> float | None:
        """Return the value among the scores of a method, None where it has none."""
        value: Any = scores
        for key in self.path:
            value = value.get(key) if isinstance(value, dict) else None
        return None if value is None else float(value)

    def bound(self, bounds: dict[str, Any] | None) -> float | None:
        """Return the value among those of a physical limit, None where there is none."""
        value = bounds.get(self.limit) if bounds and self.limit else None
        return None if value is None else float(value)

    def write(self, value: float | None) -> str:
        """Return a value as text.

        Examples
        --------
        >>> PHASE_PSNR.write(24.0801), FRC50.write(1.0), FRC50.write(None)
        ('24.08', '≥ 1', '-')
        """
        if value is None:
            return MISSING
        if self.path[0] in ("frc", "halves") and self.unit != "nm" and value >= 1:
            return "≥ 1"
        return format(value, self.style)

    def write_delta(self, value: float | None) -> str:
        """Return a difference as text, its sign always printed.

        Examples
        --------
        >>> COMPLEX_NRMSE.write_delta(-0.005), PHASE_PSNR.write_delta(0.02)
        ('-0.0050', '+0.02')
        """
        return MISSING if value is None else format(value, f"+{self.delta_style or self.style}")

    def is_better(self, first: float, second: float) -> bool:
        """Whether the first value is better than the second."""
        return first > second if self.higher_is_better else first < second


def _frc(key: str, name: str) -> tuple[Score, Score]:
    """Return a cutoff of the Fourier ring correlation, as a fraction of Nyquist and as a half period."""
    return (
        Score(f"{key}_nyquist", name, "Nyquist", ("frc", key), ".3f", True),
        Score(f"{key}_nm", name, "nm", ("frc", f"{key}_nm"), ".1f", False),
    )


PHASE_PSNR = Score("phase_psnr_db", "phase PSNR", "dB", ("phase", "psnr_db"), ".2f", True, "phase_psnr_db")
AMPLITUDE_PSNR = Score(
    "amplitude_psnr_db", "amplitude PSNR", "dB", ("amplitude", "psnr_db"), ".2f", True, "amplitude_psnr_db"
)
PHASE_SSIM = Score("phase_ssim", "phase SSIM", "", ("phase", "ssim"), ".3f", True)
AMPLITUDE_SSIM = Score("amplitude_ssim", "amplitude SSIM", "", ("amplitude", "ssim"), ".3f", True)
PHASE_MS_SSIM = Score("phase_ms_ssim", "phase MS-SSIM", "", ("phase", "ms_ssim"), ".3f", True)
AMPLITUDE_MS_SSIM = Score("amplitude_ms_ssim", "amplitude MS-SSIM", "", ("amplitude", "ms_ssim"), ".3f", True)
COMPLEX_NRMSE = Score("complex_nrmse", "complex NRMSE", "", ("complex_nrmse",), ".4f", False, "nrmse")
PHASE_MAE = Score("phase_mae_rad", "phase MAE", "rad", ("phase", "mae"), ".4f", False, delta_style=".6f")
AMPLITUDE_MAE = Score(
    "amplitude_mae", "amplitude MAE", "", ("amplitude", "mae"), ".4f", False, delta_style=".6f"
)
FRC50, FRC50_NM = _frc("frc50", "FRC50")
FRC_HALF_BIT, FRC_HALF_BIT_NM = _frc("frc_half_bit", "FRC half-bit")
FRC_ONE_SEVENTH, FRC_ONE_SEVENTH_NM = _frc("frc_one_seventh", "FRC 1/7")
DOSE_EFFICIENCY = Score("dose_efficiency", "dose efficiency", "", ("dose_efficiency",), ".3g", True)
PHASE_PSNR_BEYOND = Score(
    "phase_psnr_beyond_noise_db",
    "phase PSNR beyond noise",
    "dB",
    ("beyond_noise", "phase_psnr_db"),
    ".2f",
    True,
)
COMPLEX_NRMSE_BEYOND = Score(
    "complex_nrmse_beyond_noise", "NRMSE beyond noise", "", ("beyond_noise", "complex_nrmse"), ".4f", False
)
R_OVER_FLOOR = Score("held_out_r_over_floor", "R over noise", "", ("fit", "r_over_floor"), ".3f", False)
CHI_SQUARE = Score("held_out_chi_square", "chi-square", "", ("fit", "chi_square"), ".3f", False)
DIVERGENCE = Score("held_out_divergence", "divergence", "nats", ("fit", "divergence"), ".2e", False)
HALVES_HALF_BIT = Score(
    "halves_frc_half_bit_nyquist", "halves, half-bit", "Nyquist", ("halves", "frc_half_bit"), ".3f", True
)
HALVES_ONE_SEVENTH = Score(
    "halves_frc_one_seventh_nyquist", "halves, 1/7", "Nyquist", ("halves", "frc_one_seventh"), ".3f", True
)
POSITIONS_OFF = Score(
    "position_rms_px", "positions moved", "px", ("instrument", "position_rms_px"), ".3f", False
)
FLUX_SPREAD = Score("flux_spread", "flux spread", "", ("instrument", "flux_spread"), ".4f", False)

SCORES = (
    PHASE_PSNR, AMPLITUDE_PSNR, PHASE_SSIM, AMPLITUDE_SSIM, PHASE_MS_SSIM, AMPLITUDE_MS_SSIM,
    COMPLEX_NRMSE, PHASE_MAE, AMPLITUDE_MAE,
    FRC50, FRC50_NM, FRC_HALF_BIT, FRC_HALF_BIT_NM, FRC_ONE_SEVENTH, FRC_ONE_SEVENTH_NM,
    DOSE_EFFICIENCY,
    PHASE_PSNR_BEYOND, COMPLEX_NRMSE_BEYOND, R_OVER_FLOOR, CHI_SQUARE, DIVERGENCE,
    HALVES_HALF_BIT, HALVES_ONE_SEVENTH, POSITIONS_OFF, FLUX_SPREAD,
)  # fmt: skip
"""Every score, in the order of tables: phase before amplitude."""

PRINTED = (
    PHASE_PSNR, AMPLITUDE_PSNR, PHASE_SSIM, AMPLITUDE_SSIM, PHASE_MS_SSIM, AMPLITUDE_MS_SSIM,
    FRC50, COMPLEX_NRMSE, DOSE_EFFICIENCY,
)  # fmt: skip
"""Those that fit on a terminal."""
PRINTED_OF_MEASURED = (
    PHASE_PSNR, AMPLITUDE_PSNR, PHASE_SSIM, FRC50, COMPLEX_NRMSE, PHASE_PSNR_BEYOND,
    R_OVER_FLOOR, CHI_SQUARE, DIVERGENCE,
)  # fmt: skip
"""The same where frames were measured: the last three are of photons that no method saw."""

SUMMARY = (PHASE_PSNR, AMPLITUDE_PSNR, COMPLEX_NRMSE, FRC50, DOSE_EFFICIENCY)
"""Those compared cell by cell."""
COMPARED = (PHASE_PSNR, PHASE_SSIM, PHASE_MS_SSIM, COMPLEX_NRMSE, PHASE_MAE)
"""Those of which differences between methods are listed."""


def printed(conventions: dict[str, Any]) -> tuple[Score, ...]:
    """Return the scores for a terminal, by how they were taken."""
    return PRINTED_OF_MEASURED if conventions.get("frames") == "measured" else PRINTED
