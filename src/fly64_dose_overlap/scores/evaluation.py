"""One alignment, one region and one set of scores for every method."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import DiskArray, spool
from fly64_dose_overlap.config import EvaluateParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.reconstruction import Reconstruction
from fly64_dose_overlap.physics.fit import Fit
from fly64_dose_overlap.progress import track
from fly64_dose_overlap.provenance import steps
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.scores.against import Against, beyond_noise
from fly64_dose_overlap.scores.align import MAX_SHIFT_PX, Aligned, align_to
from fly64_dose_overlap.scores.fit import exposed_again, fit_figures, fit_of_others
from fly64_dose_overlap.scores.found import FoundInstrument
from fly64_dose_overlap.scores.frc import FrcCurve, cutoffs, fourier_ring_correlation
from fly64_dose_overlap.scores.limit import Limit
from fly64_dose_overlap.scores.region import Region, scan_region
from fly64_dose_overlap.scores.scores import score
from fly64_dose_overlap.seeding import generator

FLAT_OBJECT, FLAT_OBJECT_LABEL = "flat_object", "flat object"
"""Of the result that any method must beat."""
HEADLINES = ("refined", "network")
"""Methods of which the first one present has its scores at the top, where `dvc exp show` finds them."""
WELL_FITTED = 0.1
"""Complex NRMSE below which nobody turned the truth."""
TURNED = 0.7
"""Part of its misfit that one to a turned truth is less than, where the truth was turned."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of all methods on one scan."""

    scan: Scan
    """As it was, without errors of the calibration."""
    metrics: dict[str, Any]
    """JSON-able; see `evaluate`."""
    aligned: dict[str, DiskArray]
    """Every method by its short name after alignment, (y, x) complex128, zero outside the rectangle."""
    curves: dict[str, FrcCurve]
    """By short name."""
    region: Region
    fits: dict[str, Fit]
    """By short name, of photons that no method saw."""
    instruments: dict[str, FoundInstrument]
    """By short name, of methods that found another than the scan says."""


def evaluate(
    scan: Scan,
    truth: NDArray[np.complex64],
    reconstructions: Sequence[Reconstruction],
    params: EvaluateParams,
    *,
    limit: Limit,
    dose: int,
    digests: Mapping[str, str] | None = None,
    against: Against | None = None,
) -> Evaluation:
    """Align and score every reconstruction against the truth of the scan, or a reference.

    Parameters
    ----------
    scan : Scan
        As it was, without errors of the calibration.
    truth : (y, x) complex64
    reconstructions : sequence of Reconstruction
        The empty object, which any method must beat, is added to them.
    limit : Limit
        Of the same scan.
    dose : int, photons per frame
    digests : mapping of str to str, optional
        SHA-256 of each reconstruction's file by short name, for the record.
    against : Against, optional
        The reference, if ``truth`` is one.

    Returns
    -------
    Evaluation
        ``metrics`` holds the scores by method, the limit at the dose, the conventions that
        all share, and on top a headline: phase PSNR and SSIM and complex NRMSE of the first
        method, see `HEADLINES`, and every other method's phase PSNR.

    Raises
    ------
    StudyError
        If a reconstruction lies on another grid, or the limit is that of another region.
    """
    region = scan_region(scan.illumination(), scan.positions_px, params.region_threshold)
    keys = ("pixels", "rows", "columns")
    known, scored = (tuple(each[key] for key in keys) for each in (limit.region, region.described()))
    if known != scored:
        problem = f"was computed for the region {known}, scored is {scored}"
        raise StudyError("limit", problem, "dvc repro limit")
    inside = truth[region.rectangle]
    noise = None if against is None else against.noise(truth, region)
    nanometres = None if scan.optics is None else scan.optics.object_pixel_m * 1e9
    empty = Reconstruction(
        method=FLAT_OBJECT,
        label=FLAT_OBJECT_LABEL,
        kind="reference",
        obj=np.ones(scan.object_shape, np.complex64),
        probe=scan.probe,
        positions_px=scan.positions_px,
        loss=np.zeros(0),
        settings={},
        record=scan.record,
    )
    everything = chain(reconstructions, [empty])
    methods: dict[str, Any] = {}
    aligned: dict[str, DiskArray] = {}
    curves: dict[str, FrcCurve] = {}
    fits: dict[str, Fit] = {}
    instruments: dict[str, FoundInstrument] = {}
    conventions: dict[str, Any] = {}
    unseen = exposed_again(scan, truth) if against is None else against.held
    for result in track(everything, total=len(reconstructions) + 1, label="score", unit="method"):
        region.require_shape(result.label, result.obj)
        if result.method in aligned or result.label in methods:
            problem = f"there are two results with the name {result.method} or the label {result.label!r}"
            raise StudyError("reconstructions", problem, "give each method results of other names and labels")
        found = align_to(truth, result.obj, region, upsampling=params.registration_upsampling)
        warn_of_limit(result.label, found)
        aligned[result.method] = spool(found.field.shape, found.field.dtype, [found.field])
        curves[result.method] = fourier_ring_correlation(inside, found.field[region.rectangle])
        scores = score(truth, found.field, region)
        conventions = scores.pop("conventions")
        error = max(scores["complex_nrmse"] ** 2, np.finfo(float).tiny)
        methods[result.label] = {
            **scores,
            "key": result.method,
            "kind": result.kind,
            "frc": cutoffs(curves[result.method], nanometres),
            "alignment": found.parameters(),
            "dose_efficiency": limit.dose_efficiency("complex", error, dose),
            "settings": result.settings,
            "sha256": (digests or {}).get(result.method),
        }
        moved = replace(unseen, positions_px=result.positions_px, flux=result.flux)
        fits[result.method] = fit_of_others(moved, result.obj, result.probe, scan, generator(0, "fit"))
        methods[result.label]["fit"] = fit_figures(fits[result.method])
        instrument = FoundInstrument.of(result, scan)
        if not instrument.is_of(scan):
            instruments[result.method] = instrument
            methods[result.label]["instrument"] = instrument.described()
        if noise is not None:
            methods[result.label]["beyond_noise"] = beyond_noise(scores, noise)
    metrics = {
        **_headline(methods),
        "methods": methods,
        "limit": limit_at(limit, dose),
        "conventions": {
            **conventions,
            "fit": "photons that no method saw",
            "split": "test" if "split_dataset" in steps(scan.record) else "all",
            "frames": "simulated" if against is None else "measured",
            "against": "the truth" if against is None else against.name,
            "alignment": "sub-pixel shift, complex factor, linear phase ramp",
            "region": region.described(),
        },
    }
    if against is not None:
        metrics["reference"] = {**against.figures, "noise": noise}
    return Evaluation(scan, metrics, aligned, curves, region, fits, instruments)


def _headline(methods: dict[str, Any]) -> dict[str, Any]:
    by_key = {scores["key"]: scores for scores in methods.values()}
    first = next((key for key in HEADLINES if key in by_key), next(iter(by_key)))
    scores = by_key[first]
    return {
        "psnr": scores["phase"]["psnr_db"],
        "ssim": scores["phase"]["ssim"],
        "nrmse": scores["complex_nrmse"],
        **{f"psnr_{key}": each["phase"]["psnr_db"] for key, each in by_key.items() if key != first},
    }


def warn_of_limit(label: str, aligned: Aligned, stacklevel: int = 2) -> None:
    """Warn of a translation that ends where its search does."""
    if aligned.at_limit:
        dy, dx = aligned.beyond_px or aligned.shift_px
        warnings.warn(
            f"{label} would have to be moved by ({dy:g}, {dx:g}) px (y, x) to fit the truth, and the search "
            f"ends at {MAX_SHIFT_PX}: are reconstruction and truth on the same grid?",
            stacklevel=stacklevel + 1,
        )


def warn_of_turns(
    label: str, truth: NDArray[Any], obj: NDArray[Any], aligned: Aligned, region: Region, stacklevel: int = 2
) -> None:
    """Warn of a reconstruction that fits the truth far better once that is turned or conjugated.

    Frames tell of a truth that is mirrored about the middle pixel of a window, and of no other.

    Parameters
    ----------
    truth, obj : (y, x) complex
        The true transmission, and the reconstructed one as it came.
    aligned : Aligned
        What `align_to` made of both.
    """

    def misfit(reference: NDArray[Any], field: NDArray[np.complex128]) -> float:
        wanted = reference[region.mask]
        return float(np.linalg.norm(field[region.mask] - wanted) / np.linalg.norm(wanted))

    given = misfit(truth, aligned.field)
    if given < WELL_FITTED:
        return
    flips = {"y reversed": np.s_[::-1], "x reversed": np.s_[:, ::-1], "both axes reversed": np.s_[::-1, ::-1]}
    turned = {name: truth[flip] for name, flip in flips.items()} | {"the conjugate": truth.conj()}
    if truth.shape[0] == truth.shape[1]:
        turned |= {"y and x exchanged": truth.T, "y and x exchanged and reversed": truth.T[::-1, ::-1]}
    for name, other in turned.items():
        found = misfit(other, align_to(other, obj, region, upsampling=1).field)
        if found < TURNED * given:
            warnings.warn(
                f"{label} fits the truth far better with {name}: a misfit of {found:.3g} for {given:.3g}; "
                "is the truth turned against the scan?",
                stacklevel=stacklevel + 1,
            )
            return


def limit_at(limit: Limit, dose: int) -> dict[str, Any]:
    """Return the bounds at a dose, without and with a prior."""

    def bounds(prior: bool) -> dict[str, Any]:
        return {
            "phase_psnr_db": limit.psnr_db("phase", dose, prior=prior),
            "amplitude_psnr_db": limit.psnr_db("amplitude", dose, prior=prior),
            "nrmse": limit.nrmse(dose, prior=prior),
        }

    return {
        **bounds(prior=False),
        "bayesian": bounds(prior=True),
        "prior": limit.prior,
        "kappa": limit.kappa,
        "photons_per_pixel": limit.photons_per_pixel_at(dose),
        **({} if limit.price is None else {"price_of_the_unknown": limit.price}),
    }


def pixel_nm(record: dict[str, Any]) -> float | None:
    """Return the side of an object pixel from the record of a dataset, None where it is not known."""
    pixel_m = record.get("physics_parameters", {}).get("object_pixel_m")
    return None if pixel_m is None else float(pixel_m) * 1e9
