"""One alignment, one region and one set of scores for every method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.config import EvaluateParams
from fly64_dose_overlap.data.contract import Dataset
from fly64_dose_overlap.evaluation.reconstruct import NETWORK, Reconstructions
from fly64_dose_overlap.physics.fluence import fluence_map
from fly64_dose_overlap.progress import track
from fly64_dose_overlap.scoring.align import align_to
from fly64_dose_overlap.scoring.frc import FrcCurve, ThresholdName, cutoff, fourier_ring_correlation
from fly64_dose_overlap.scoring.region import Region, scan_region
from fly64_dose_overlap.scoring.scores import score

FRC_THRESHOLDS: dict[ThresholdName, str] = {
    "half": "frc50",
    "half-bit": "frc_half_bit",
    "one-seventh": "frc_one_seventh",
}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of all methods on one test half.

    Attributes
    ----------
    metrics : dict
        JSON-able; see `evaluate`.
    aligned : dict of (y, x) complex128
        Every method after alignment, zero outside the region's rectangle.
    curves : dict of FrcCurve
    region : Region
    """

    metrics: dict[str, Any]
    aligned: dict[str, NDArray[np.complex128]]
    curves: dict[str, FrcCurve]
    region: Region


def evaluate(dataset: Dataset, reconstructions: Reconstructions, params: EvaluateParams) -> Evaluation:
    """Align and score every reconstruction against the truth of the test half.

    Returns
    -------
    Evaluation
        ``metrics`` holds the scores by method, the conventions that they share, and on
        top the headline of the network: phase PSNR and SSIM, complex NRMSE.
    """
    rows, columns = dataset.obj.shape
    fluence = fluence_map(dataset.probe, dataset.positions_px, (rows, columns))
    region = scan_region(fluence, dataset.positions_px, params.region_threshold)
    truth = dataset.obj[region.rectangle]
    methods: dict[str, Any] = {}
    aligned: dict[str, NDArray[np.complex128]] = {}
    curves: dict[str, FrcCurve] = {}
    conventions: dict[str, Any] = {}
    progress = track(reconstructions.items(), total=len(reconstructions), label="score", unit="method")
    for name, reconstruction in progress:
        found = align_to(dataset.obj, reconstruction, region, upsampling=params.registration_upsampling)
        aligned[name] = found.field
        curves[name] = fourier_ring_correlation(truth, found.field[region.rectangle])
        scores = score(dataset.obj, found.field, region)
        conventions = scores.pop("conventions")
        scores["frc"] = _cutoffs(curves[name], _pixel_nm(dataset))
        scores["alignment"] = found.parameters()
        methods[name] = scores
    headline = methods[NETWORK]
    metrics = {
        "psnr": headline["phase"]["psnr_db"],
        "ssim": headline["phase"]["ssim"],
        "nrmse": headline["complex_nrmse"],
        **{
            f"psnr_{name.replace(' ', '_')}": scores["phase"]["psnr_db"]
            for name, scores in methods.items()
            if name != NETWORK
        },
        "methods": methods,
        "conventions": {
            **conventions,
            "split": "test",
            "alignment": "sub-pixel shift, complex factor, linear phase ramp",
            "region": {
                "illumination_threshold": region.threshold,
                "pixels": region.pixels,
                "rows": [region.rectangle[0].start, region.rectangle[0].stop],
                "columns": [region.rectangle[1].start, region.rectangle[1].stop],
                "covered_fraction": region.covered_fraction,
            },
        },
    }
    return Evaluation(metrics, aligned, curves, region)


def _pixel_nm(dataset: Dataset) -> float | None:
    pixel_m = dataset.record.get("physics_parameters", {}).get("object_pixel_m")
    return None if pixel_m is None else float(pixel_m) * 1e9


def _cutoffs(curve: FrcCurve, pixel_nm: float | None) -> dict[str, float | None]:
    """Return each cutoff as a fraction of Nyquist and as a half period in nanometres."""
    found: dict[str, float | None] = {}
    for threshold, name in FRC_THRESHOLDS.items():
        fraction = cutoff(curve, threshold)
        found[name] = fraction
        found[f"{name}_nm"] = pixel_nm / fraction if pixel_nm and fraction > 0 else None
    return found
