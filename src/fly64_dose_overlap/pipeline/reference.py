"""The reference: what stands for the truth of measured frames, whose object nobody knows.

The photons of every frame are divided once. A part makes the reference, and doses are made of the
others, so that reference and study share no photon: noise of the one is none of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.config import NOTHING_TO_REFINE, ReferenceParams, RefineParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import BaseSet
from fly64_dose_overlap.files.reconstruction import Reconstruction
from fly64_dose_overlap.methods.held_out import HeldOut
from fly64_dose_overlap.methods.map import MaximumAPosteriori
from fly64_dose_overlap.methods.run import run_method
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.provenance import MEASURED, with_step
from fly64_dose_overlap.scan import Scan, Unknown
from fly64_dose_overlap.scores.align import align_to
from fly64_dose_overlap.scores.fit import fit_figures, fit_of_others
from fly64_dose_overlap.scores.frc import cutoff, fourier_ring_correlation
from fly64_dose_overlap.scores.region import EVALUATION, scan_region
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.study.dose import require_measured
from fly64_dose_overlap.study.gauge import in_standard_gauge
from fly64_dose_overlap.study.measured import scan_of

LEAST_PHOTONS = 1000
"""Of a whole scan, in either part."""
LEAST_SIDE_PX = 8
"""Of the region in which halves of the reference are compared."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Measured frames with an object that stands for the truth."""

    study: BaseSet
    """Photons that doses are made of; its object is the reference."""
    held: Scan
    """Photons of the reference, which no method sees."""
    halves: tuple[NDArray[np.complex64], NDArray[np.complex64]]
    """Objects (y, x) from the two halves of those photons, both aligned with the reference."""
    figures: dict[str, Any]
    """JSON-able: photons per frame of both parts, how well the reference explains either, and how its
    halves agree."""


def make_reference(
    base: BaseSet,
    params: ReferenceParams,
    doses: Sequence[int] = (),
    refine: RefineParams = NOTHING_TO_REFINE,
) -> Reference:
    """Divide the photons of measured frames, and reconstruct their object from the first part.

    The weight of the prior is found by held-out photons, in each half anew, and so is what ``refine``
    says is to be found: halves share nothing but the probe and positions that they begin with. The
    power of the probe is set to the photons that were counted, and the gauge is that of
    `in_standard_gauge`.

    Raises
    ------
    StudyError
        If a part would hold too few photons, or one of the ``doses`` is above what is left for them.
    """
    scan = scan_of(base)
    counted = scan.photons_per_frame
    power = float((np.abs(base.probe.astype(np.complex128)) ** 2).sum())
    probe = (base.probe * np.sqrt(counted / power)).astype(np.complex64)
    base, scan = replace(base, probe=probe), replace(scan, probe=probe)
    least = min(params.fraction, 1 - params.fraction) * counted * len(scan)
    if least < LEAST_PHOTONS:
        problem = (
            f"of {counted * len(scan):.4g} photons in all, a part of the reference or study has {least:.4g}"
        )
        raise StudyError("reference", problem, f"it takes {LEAST_PHOTONS}: measure longer, or more frames")
    first, rest = scan.divide(params.fraction, generator(params.seed, "reference", "divide"))
    first = replace(first, unknown=Unknown.of(refine))
    require_measured(max(doses, default=0), rest.photons_per_frame)
    region = scan_region(first.illumination(), first.positions_px, EVALUATION.region_threshold)
    upsampling, inside = EVALUATION.registration_upsampling, region.rectangle
    height, width = region.shape
    if min(height, width) < LEAST_SIDE_PX:
        problem = f"{len(scan)} frames light {height} x {width} object pixels evenly"
        hint = f"halves are compared on {LEAST_SIDE_PX} x {LEAST_SIDE_PX} at least"
        raise StudyError("reference", problem, hint)
    whole = _reconstructed(first, params, "reference")
    halves = first.divide(0.5, generator(params.seed, "reference", "halves"))
    pair = [
        _reconstructed(half, params, f"half {n} of the reference").obj for n, half in enumerate(halves, 1)
    ]
    aligned = align_to(pair[0], pair[1], region, upsampling=upsampling).field
    curve = fourier_ring_correlation(pair[0][inside], aligned[inside])
    figures = {
        "kind": "measured",
        "photons_per_frame": first.photons_per_frame,
        "study_photons_per_frame": rest.photons_per_frame,
        "frames": len(scan),
        "modes": len(probe),
        "method": MaximumAPosteriori.name,
        "settings": whole.settings,
        "refine": refine.model_dump(),
        "fit": _fit(whole, first, first, params.seed),
        "fit_of_other_photons": _fit(whole, rest, first, params.seed),
        "frc_of_halves_nyquist": {name: cutoff(curve, name) for name in ("half-bit", "one-seventh")},
    }
    photons = {key: figures[key] for key in ("photons_per_frame", "study_photons_per_frame")}
    what = "reconstruct the object from a part of the photons"
    record = with_step(base.record, MEASURED, what, **params.model_dump(), **photons)
    gauged = in_standard_gauge(replace(base, obj=whole.obj, record=record))
    if first.unknown:
        # The object belongs to the probe that was found with it: its scale and ramp are not the given one's.
        gauged = replace(gauged, probe=base.probe)
    study, held = (
        _with_part(gauged, part, share)
        for part, share in ((rest, 1 - params.fraction), (first, params.fraction))
    )
    amplitude = np.concatenate([np.sqrt(block) for block in study.blocks()])
    measured = replace(gauged, probe=study.probe, amplitude=amplitude, background=study.background)
    # In the gauge of the reference: their difference is noise of its amplitude and of its phase.
    one, other = (
        align_to(gauged.obj, each, region, upsampling=upsampling).field.astype(np.complex64) for each in pair
    )
    return Reference(measured, held, (one, other), figures)


def _with_part(gauged: BaseSet, part: Scan, share: float) -> Scan:
    """Return the scan of a part of the photons, its probe in the gauge of the reference."""
    probe = (gauged.probe * np.float32(share**0.5)).astype(np.complex64)
    return replace(part, probe=probe, record=gauged.record)


def _reconstructed(scan: Scan, params: ReferenceParams, what: str) -> Reconstruction:
    say(f"reference: {what} from {scan.photons_per_frame:.4g} photons per frame")
    method = MaximumAPosteriori(MaximumAPosteriori.Settings.model_validate({"epochs": params.epochs}))
    ((found, _),) = run_method(method, scan, HeldOut(seed=params.seed))
    return found


def _fit(found: Reconstruction, scan: Scan, own: Scan, seed: int) -> dict[str, float]:
    """Return how well what was found in its ``own`` photons explains those of a scan of the same frames."""
    moved = replace(scan, positions_px=found.positions_px, flux=found.flux)
    return fit_figures(fit_of_others(moved, found.obj, found.probe, own, generator(seed, "fit")))
