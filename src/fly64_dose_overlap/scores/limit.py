"""The physical limit of a scan, at any dose, for comparison with what a method reached.

The limit is the Cramer-Rao bound: the least error of an unbiased estimator that knows the
probe. A method with a prior, or with a bias, may do better where photons are few; the
Bayesian (van Trees) bound with the stated prior is the one to look at there.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fly64_dose_overlap.arrays import Brief
from fly64_dose_overlap.config import first_problem
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import read_json, write_json_atomic
from fly64_dose_overlap.scores.scores import PSNR_CEILING_DB
from fly64_dose_overlap.yaml_text import shown

FORMAT_VERSION = 1
LEAST_PEAK = 1e-6
"""A truth with a smaller range (rad, or transmission) is flat, as in `score`."""

REMAKE = "remake it with: dvc repro limit"

Part = Literal["phase", "amplitude", "complex"]
PARTS: tuple[Part, ...] = get_args(Part)
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class _Region(BaseModel, strict=True):
    """What `Limit.region` must hold at least."""

    pixels: Annotated[int, Field(ge=1)]
    rows: Annotated[list[int], Field(min_length=2, max_length=2)]
    columns: Annotated[list[int], Field(min_length=2, max_length=2)]


class _Solved(BaseModel, strict=True):
    converged: Annotated[list[bool], Field(min_length=1)]


class _Solver(BaseModel, strict=True):
    """What `Limit.solver` must hold at least."""

    unbiased: _Solved


@dataclass(frozen=True, repr=False)
class Limit(Brief):
    """Error bounds of one scan geometry and object, over the scored region, after alignment.

    The mean squared errors are in rad^2 for ``phase``, in transmission^2 for ``amplitude``,
    and relative to the truth's power for ``complex``, the square of the complex NRMSE.

    Attributes
    ----------
    unbiased : dict of str to float
        Cramer-Rao bound by part at one photon per frame; it falls as 1 / dose.
    doses : list of float, photons per frame
        Grid of the Bayesian bound, increasing.
    bayesian : dict of str to list of float
        Van Trees bound by part at each of ``doses``.
    prior : dict of str to float
        ``std_real`` and ``std_imaginary`` of the Gaussian prior of every object pixel,
        the truth's own over the region.
    peak : dict of str to float
        Range of the truth's ``phase`` (rad) and ``amplitude`` over the region, the peaks of PSNR.
    photons_per_pixel : float
        Mean fluence over the region at one photon per frame.
    frequency : list of float, cycles per pixel
        Rings of the region's rectangle, those of `fourier_ring_correlation`.
    signal, noise : list of float
        Power of the truth about its mean, and of the unbiased error at one photon per
        frame, per pixel in each ring, both under ``window``. Pixels of the rectangle that
        are not scored count as free of error.
    window : str
        Apodisation of both.
    region : dict
        ``pixels``, ``rows`` and ``columns``, to tell the scored region by.
    solver : dict
        How the bounds were computed: seed, vectors, iterations, residuals, spread.
    price : dict of str to float, optional
        By what factor photons must be more, by part, where some of the instrument must be found besides.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    unbiased: Annotated[dict[Part, Positive], Field(min_length=len(PARTS))]
    doses: Annotated[list[Positive], Field(min_length=1)]
    bayesian: Annotated[dict[Part, list[Positive]], Field(min_length=len(PARTS))]
    prior: Annotated[dict[Literal["std_real", "std_imaginary"], NotNegative], Field(min_length=2)]
    peak: Annotated[dict[Literal["phase", "amplitude"], NotNegative], Field(min_length=2)]
    photons_per_pixel: Positive
    frequency: Annotated[list[NotNegative], Field(min_length=1)]
    signal: list[NotNegative]
    noise: list[NotNegative]
    window: str
    region: dict[str, Any]
    solver: dict[str, Any]
    price: dict[Part, Positive] | None = None

    @property
    def kappa(self) -> float:
        """Phase variance over 1 / (2 n) at the region's mean fluence n; 1 is shot noise alone."""
        return 2 * self.photons_per_pixel * self.unbiased["phase"]

    @property
    def converged(self) -> bool:
        """Whether the unbiased bound is the tightest; if not, it is a bound, but too low."""
        return all(self.solver["unbiased"]["converged"])

    def mean_squared_error(self, part: Part, dose: float, *, prior: bool = False) -> float:
        """Return the least mean squared error of a part at a dose.

        Parameters
        ----------
        part : {"phase", "amplitude", "complex"}
        dose : float, photons per frame
        prior : bool
            The Bayesian bound, interpolated between its doses in logarithms, instead of
            the unbiased one.

        Raises
        ------
        StudyError
            If the dose is not positive or, for the Bayesian bound, off its grid.
        """
        _require_positive(dose)
        if not prior:
            return self.unbiased[part] / dose
        if not self.doses[0] <= dose <= self.doses[-1]:
            span = f"{self.doses[0]:g} to {self.doses[-1]:g}"
            raise StudyError("Bayesian bound", f"is tabulated from {span} photons per frame, got {dose:g}")
        return float(np.exp(np.interp(np.log(dose), np.log(self.doses), np.log(self.bayesian[part]))))

    def psnr_db(
        self, part: Literal["phase", "amplitude"], dose: float, *, prior: bool = False
    ) -> float | None:
        """Return the PSNR ceiling at a dose, peak and conventions as in `score`.

        None where the truth is flat in that part and PSNR has no peak.
        """
        if part not in self.peak:
            raise StudyError(
                "limit", f"there is no PSNR of {part!r}", f"there is that of {', '.join(self.peak)}"
            )
        if self.peak[part] <= LEAST_PEAK:
            return None
        error = self.mean_squared_error(part, dose, prior=prior)
        return min(10 * float(np.log10(self.peak[part] ** 2 / error)), PSNR_CEILING_DB)

    def nrmse(self, dose: float, *, prior: bool = False) -> float:
        """Return the least complex NRMSE at a dose."""
        return self.mean_squared_error("complex", dose, prior=prior) ** 0.5

    def photons_per_pixel_at(self, dose: float) -> float:
        """Return the region's mean fluence at a dose, photons."""
        return self.photons_per_pixel * dose

    def frc(self, dose: float) -> NDArray[np.float64]:
        """Return the expected FRC against the truth of an estimate at the limit.

        S / sqrt(S (S + N / dose)) in each ring. A filter that weighs whole rings, such as
        Wiener's, changes no FRC, so that this is also what the best linear denoising of
        an unbiased estimate reaches.

        Returns
        -------
        (ring,) float64, 0..1
            At `frequency`.
        """
        _require_positive(dose)
        signal = np.asarray(self.signal)
        total = signal + np.asarray(self.noise) / dose
        return np.sqrt(np.divide(signal, total, out=np.zeros_like(signal), where=total > 0))

    def dose_efficiency(self, part: Part, mean_squared_error: float, dose: float) -> float:
        """Return the dose at which the bound equals an error, over the dose spent on it.

        It may exceed 1: a prior or a bias can beat the bound, which holds for unbiased
        estimators only.

        The error was reached over the region; for ``complex`` it is the squared NRMSE.
        """
        if not mean_squared_error > 0:
            raise StudyError("mean squared error", f"must be > 0, got {mean_squared_error}")
        return self.mean_squared_error(part, dose) / mean_squared_error


def write_limit(path: Path | str, limit: Limit) -> None:
    """Write a limit as JSON: the same limit gives the same bytes."""
    entries = {key: value for key, value in asdict(limit).items() if value is not None}
    write_json_atomic(path, {"format_version": FORMAT_VERSION, "kappa": limit.kappa, **entries})


def read_limit(path: Path | str) -> Limit:
    """Read a limit.

    Raises
    ------
    MissingFileError
        If there is no such file.
    StudyError
        If it is no limit, one of another version, or does not agree with itself.
    """
    where = str(path)
    content: Any = read_json(path, missing="make it with: dvc repro limit", damaged=REMAKE)
    if not isinstance(content, dict) or "format_version" not in content:
        raise StudyError(where, "is no limit", REMAKE)
    version = content.pop("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        problem = f"has format version {shown(version)}, expected {FORMAT_VERSION}"
        raise StudyError(where, problem, REMAKE)
    kappa = content.pop("kappa", None)
    try:
        limit = TypeAdapter(Limit).validate_python(content)
        _Region.model_validate(limit.region)
        _Solver.model_validate(limit.solver)
    except ValidationError as error:
        raise StudyError(where, f"is no limit ({first_problem(error)})", REMAKE) from None
    if problem := _contradiction(limit, kappa):
        raise StudyError(where, f"is no limit ({problem})", REMAKE)
    return limit


def _contradiction(limit: Limit, kappa: Any) -> str:
    """Return in what entries of a limit do not fit each other, or an empty string."""
    if any(second <= first for first, second in pairwise(limit.doses)):
        return "doses do not rise"
    for part, bounds in limit.bayesian.items():
        if len(bounds) != len(limit.doses):
            return f"bayesian.{part} has {len(bounds)} entries for {len(limit.doses)} doses"
    for name, values in (("signal", limit.signal), ("noise", limit.noise)):
        if len(values) != len(limit.frequency):
            return f"{name} has {len(values)} entries for {len(limit.frequency)} frequencies"
    if not isinstance(kappa, float) or not math.isclose(kappa, limit.kappa, rel_tol=1e-9):
        return f"kappa is {shown(kappa)}, but its entries give {limit.kappa:g}"
    return ""


def _require_positive(dose: float) -> None:
    if not dose > 0:
        raise StudyError("dose", f"must be > 0 photons per frame, got {dose}")
