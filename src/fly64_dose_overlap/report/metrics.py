"""The scores that the report shows: where they stand, how they are written, which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MISSING = "-"


@dataclass(frozen=True)
class Metric:
    """A score of a method.

    Attributes
    ----------
    key : str
        Its name in tables for machines, with the unit.
    title : str
        Its name for readers, with the unit.
    path : tuple of str
        Keys that lead to it in the scores of a method.
    style : str
        Format of a value.
    higher_is_better : bool
    limit : str
        Its key in the physical limit, if that has one.
    delta_style : str
        Format of a difference; the sign is added.
    """

    key: str
    title: str
    path: tuple[str, ...]
    style: str
    higher_is_better: bool
    limit: str = ""
    delta_style: str = ""

    def of(self, scores: dict[str, Any]) -> float | None:
        """Return the value among the scores of a method, None where it has none."""
        value: Any = scores
        for key in self.path:
            value = value.get(key) if isinstance(value, dict) else None
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
        if self.path[0] == "frc" and not self.key.endswith("_nm") and value >= 1:
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

    @property
    def direction(self) -> str:
        """Say which sign of a difference is better."""
        return "positive is better" if self.higher_is_better else "negative is better"


PHASE_PSNR = Metric("phase_psnr_db", "phase PSNR (dB)", ("phase", "psnr_db"), ".2f", True, "phase_psnr_db")
AMPLITUDE_PSNR = Metric(
    "amplitude_psnr_db", "amplitude PSNR (dB)", ("amplitude", "psnr_db"), ".2f", True, "amplitude_psnr_db"
)
PHASE_SSIM = Metric("phase_ssim", "phase SSIM", ("phase", "ssim"), ".3f", True)
AMPLITUDE_SSIM = Metric("amplitude_ssim", "amplitude SSIM", ("amplitude", "ssim"), ".3f", True)
PHASE_MS_SSIM = Metric("phase_ms_ssim", "phase MS-SSIM", ("phase", "ms_ssim"), ".3f", True)
AMPLITUDE_MS_SSIM = Metric("amplitude_ms_ssim", "amplitude MS-SSIM", ("amplitude", "ms_ssim"), ".3f", True)
COMPLEX_NRMSE = Metric("complex_nrmse", "complex NRMSE", ("complex_nrmse",), ".4f", False, "nrmse")
PHASE_MAE = Metric("phase_mae_rad", "phase MAE (rad)", ("phase", "mae"), ".4f", False, delta_style=".6f")
AMPLITUDE_MAE = Metric(
    "amplitude_mae", "amplitude MAE", ("amplitude", "mae"), ".4f", False, delta_style=".6f"
)
FRC50 = Metric("frc50_nyquist", "FRC50 (Nyquist)", ("frc", "frc50"), ".3f", True)
FRC50_NM = Metric("frc50_nm", "FRC50 (nm)", ("frc", "frc50_nm"), ".1f", False)
FRC_HALF_BIT = Metric("frc_half_bit_nyquist", "FRC half-bit (Nyquist)", ("frc", "frc_half_bit"), ".3f", True)
FRC_HALF_BIT_NM = Metric("frc_half_bit_nm", "FRC half-bit (nm)", ("frc", "frc_half_bit_nm"), ".1f", False)
FRC_ONE_SEVENTH = Metric(
    "frc_one_seventh_nyquist", "FRC 1/7 (Nyquist)", ("frc", "frc_one_seventh"), ".3f", True
)
FRC_ONE_SEVENTH_NM = Metric("frc_one_seventh_nm", "FRC 1/7 (nm)", ("frc", "frc_one_seventh_nm"), ".1f", False)
DOSE_EFFICIENCY = Metric("dose_efficiency", "dose efficiency", ("dose_efficiency",), ".3g", True)

DELTAS = (
    PHASE_PSNR,
    AMPLITUDE_PSNR,
    PHASE_SSIM,
    AMPLITUDE_SSIM,
    PHASE_MS_SSIM,
    AMPLITUDE_MS_SSIM,
    COMPLEX_NRMSE,
    PHASE_MAE,
    AMPLITUDE_MAE,
)
"""Scores whose differences are reported; phase before amplitude."""

ALL = (
    *DELTAS,
    FRC50,
    FRC50_NM,
    FRC_HALF_BIT,
    FRC_HALF_BIT_NM,
    FRC_ONE_SEVENTH,
    FRC_ONE_SEVENTH_NM,
    DOSE_EFFICIENCY,
)
