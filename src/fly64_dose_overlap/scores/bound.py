"""Cramer-Rao and van Trees bounds of a scan, every dose from the same Krylov spaces.

Errors are what alignment leaves, to first order. Traces of the inverse information J^-1
come from random vectors, each solved in two Krylov spaces. The first is preconditioned by
the fluence and gives the Cramer-Rao bound. The second is scaled by the prior's standard
deviations, K = D J D, and gives the van Trees bound (dose J + D^-2)^-1 =
D (dose K + 1)^-1 D at every dose, with J at the truth for its mean over the prior. The
prior is Gaussian and independent in every pixel, with the variances of the truth's real
and imaginary part over the region.

What is `Unknown` of the instrument is found with the object, and counts as such: its part of J is inverted
with the object's. In the second space it has the prior that joint MAP has, in the first it has none.

The bounds grow with the Krylov space: one that ran out of iterations still holds, but is
not the tightest, and the record says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.config import LimitParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.progress import track
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.scores.frc import WINDOW
from fly64_dose_overlap.scores.instrument import KnownInstrument, UnknownInstrument
from fly64_dose_overlap.scores.lanczos import Field, Krylov, lanczos
from fly64_dose_overlap.scores.limit import PARTS, Limit
from fly64_dose_overlap.scores.region import Region, scan_region, with_phase
from fly64_dose_overlap.scores.scores import phase_and_error
from fly64_dose_overlap.scores.traces import AlignedError, Traces
from fly64_dose_overlap.seeding import generator

Complex64 = NDArray[np.complex64]

DOSES = tuple(float(f"{10 ** (half / 2):.6g}") for half in range(2, 15))
"""Grid of the Bayesian bound, photons per frame: 1e1 to 1e7 in half decades."""

LEAST_PRIOR_SHARE = 0.01
"""Least share of either part in the prior variance: an object that is flat in its real or
imaginary part does not count as known there."""

UNLIT = 1e-6
"""Part of the largest fluence below which a pixel counts as not illuminated, and as known."""


@dataclass(frozen=True, eq=False)
class _Scaling:
    """Factors, >= 0, of the real and the imaginary part of every component of a vector."""

    real: NDArray[np.float64]
    imaginary: NDArray[np.float64]

    def __call__(self, field: Field) -> Field:
        return field.real * self.real + 1j * (field.imag * self.imaginary)

    def inverse(self, field: Field) -> Field:
        """Divide by the factors; zero where they are."""
        real, imaginary = (np.where(f > 0, 1 / np.where(f > 0, f, 1), 0) for f in (self.real, self.imaginary))
        return _Scaling(real, imaginary)(field)


def find_limit(
    scan: Scan, truth: Complex64, region_threshold: float, settings: LimitParams, *, dose: float | None = None
) -> Limit:
    """Return the error bounds of a scan over the region in which methods are scored.

    Parameters
    ----------
    scan : Scan
        With what is unknown of it; by default it is known exactly.
    truth : (y, x) complex64
        The true object: a bound is taken there by definition.
    region_threshold : float
        See `scan_region`.
    dose : float, photons per frame, optional
        Expected photons of the scan, its background's included; by default what was counted.

    Raises
    ------
    StudyError
        If the truth is constant over the region.
    """
    photons = np.float32(dose or scan.photons_per_frame)
    # At one photon per frame: a background grows with the exposure, as the light does.
    dark = None if scan.background is None else scan.background / photons
    reached, window = replace(scan, probe=scan.probe / photons**0.5, background=dark).cropped()
    fluence, truth = reached.illumination(), truth[window]
    region = scan_region(fluence, reached.positions_px, region_threshold)
    inside = truth[region.mask]
    variances = np.array([np.var(part, dtype=np.float64) for part in (inside.real, inside.imag)])
    if not variances.any():
        problem = "is constant over the scored region, so that no prior can be taken from it"
        raise StudyError("object", problem)
    prior = np.sqrt(np.maximum(variances, LEAST_PRIOR_SHARE * variances.sum())).tolist()
    instrument = UnknownInstrument(reached, truth) if scan.unknown else KnownInstrument(reached, truth)
    solver = _Solver(instrument, truth, region)
    lit = fluence > UNLIT * fluence.max()
    # The information's diagonal is about twice the fluence.
    factor = np.where(lit, 1 / np.sqrt(2 * np.where(lit, fluence, 1)), 0)
    spread = [np.full(truth.size, deviation) for deviation in prior]
    whitening = _Scaling(*map(np.append, (factor, factor), instrument.whitening()))
    scaling = _Scaling(*map(np.append, spread, instrument.spread()))
    unbiased: list[Krylov] = []
    bayesian: list[Krylov] = []
    for index in range(settings.vectors):
        vector = solver.traces.draw(generator(settings.seed, "limit", index))
        label = f"limit, vector {index + 1} of {settings.vectors}"
        unbiased.append(solver.run(vector, whitening, np.inf, settings, f"{label}, unbiased"))
        bayesian.append(solver.run(vector, scaling, DOSES[-1], settings, f"{label}, Bayesian"))
    least = np.mean([run.functionals(np.inf) for run in unbiased], axis=0)
    by_dose = np.array([np.mean([run.functionals(dose) for run in bayesian], axis=0) for dose in DOSES])
    scored = with_phase(truth, region.mask)
    phase = phase_and_error(truth, truth, scored)[0][scored]
    rings = solver.traces.rings
    spectrum = rings.spectrum(solver.truth)
    return Limit(
        unbiased=dict(zip(PARTS, least[: len(PARTS)].tolist(), strict=True)),
        doses=list(DOSES),
        bayesian={part: by_dose[:, index].tolist() for index, part in enumerate(PARTS)},
        prior={"std_real": prior[0], "std_imaginary": prior[1]},
        peak={"phase": float(np.ptp(phase)), "amplitude": float(np.ptp(np.abs(truth)[region.mask]))},
        photons_per_pixel=float(fluence[region.mask].mean()),
        frequency=rings.frequency.tolist(),
        signal=rings.cross_power(spectrum, spectrum).tolist(),
        noise=np.maximum(least[len(PARTS) :], 0).tolist(),
        window=WINDOW,
        region=region.described(window[0].start, window[1].start),
        solver=_record(settings, unbiased, bayesian),
    )


class _Solver:
    """Krylov spaces of one scan."""

    def __init__(
        self, instrument: KnownInstrument | UnknownInstrument, truth: Complex64, region: Region
    ) -> None:
        self._instrument, self._obj = instrument, truth
        self._box = region.rectangle
        self.truth = truth[region.rectangle].astype(np.complex128)
        self._aligned = AlignedError(self.truth, region.mask[region.rectangle])
        self.traces = Traces(self.truth, region)

    def run(self, vector: Field, scaling: _Scaling, dose: float, settings: LimitParams, label: str) -> Krylov:
        """Return the Krylov space of a random vector, large enough for a dose."""

        def product(field: Field) -> Field:
            return scaling(self._instrument.product(scaling(field)))

        functionals = self.traces.seen_by(vector)

        def see(field: Field) -> NDArray[np.float64]:
            return functionals(self._aligned(self._image(scaling(field))[self._box]))

        start, null = (np.zeros(self._obj.size + self._instrument.size, np.complex128) for _ in range(2))
        self._image(start)[self._box] = self._aligned(vector)
        self._image(null)[:] = 1j * self._obj
        null = scaling.inverse(null)
        steps = track(range(settings.iterations), total=settings.iterations, label=label, unit="product")
        tolerance = settings.tolerance
        return lanczos(product, scaling(start), see, null=null, dose=dose, tolerance=tolerance, steps=steps)

    def _image(self, field: Field) -> Field:
        """Return the object's part (y, x) of a vector, which also holds what is unknown of the instrument."""
        return field[: self._obj.size].reshape(self._obj.shape)


def _record(settings: LimitParams, unbiased: list[Krylov], bayesian: list[Krylov]) -> dict[str, Any]:
    values = np.array([run.functionals(np.inf)[: len(PARTS)] for run in unbiased])
    errors = [None] * len(PARTS)
    if len(values) > 1:
        errors = (values.std(axis=0, ddof=1) / len(values) ** 0.5 / values.mean(axis=0)).tolist()
    figures = ("iterations", "converged", "residual")
    return {
        **settings.model_dump(),
        "relative_standard_error": dict(zip(PARTS, errors, strict=True)),
        "unbiased": {name: [getattr(run, name) for run in unbiased] for name in figures},
        "bayesian": {name: [getattr(run, name) for run in bayesian] for name in figures},
    }
