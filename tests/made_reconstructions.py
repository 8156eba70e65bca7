"""Reconstructions of the tiny scan, made from its truth, and a limit to go with them."""

from __future__ import annotations

import numpy as np

import factories
import tiny_scan
from fly64_dose_overlap.files.reconstruction import Kind, Reconstruction
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.scores.limit import PARTS, Limit
from fly64_dose_overlap.scores.region import scan_region

DOSE = tiny_scan.DOSE
NAMES = {"network": "network", "lsqml_held_out": "LSQML held-out", "flat_object": "flat object"}
"""Methods by their short names, best first; evaluation adds the flat object itself."""
KINDS: dict[str, Kind] = {"network": "learned", "lsqml_held_out": "iterative"}


def reconstructions() -> list[Reconstruction]:
    """Return the truth behind a phase, and the truth with noise."""
    scan, truth = tiny_scan.scan(), tiny_scan.truth()
    noise = np.random.default_rng(0).normal(0, 0.1, (2, *truth.shape))
    objects = {"network": truth * np.exp(0.9j), "lsqml_held_out": truth + noise[0] + 1j * noise[1]}
    return [
        Reconstruction(
            method=key,
            label=NAMES[key],
            kind=KINDS[key],
            obj=obj.astype(np.complex64),
            probe=scan.probe,
            positions_px=scan.positions_px,
            loss=np.zeros(0),
            settings={},
            record=scan.record,
        )
        for key, obj in objects.items()
    ]


def limit_of(threshold: float | None = None, scan: Scan | None = None) -> Limit:
    """Return a made-up limit over the region that evaluation scores, of the tiny scan or another."""
    scan = tiny_scan.scan() if scan is None else scan
    chosen = factories.study_params().evaluate.region_threshold if threshold is None else threshold
    region = scan_region(scan.illumination(), scan.positions_px, chosen)
    y, x = region.rectangle
    rings = min(region.shape) // 2
    frequency = np.arange(1, rings + 1) / min(region.shape)
    doses = [10.0, 1e4, 1e7]
    return Limit(
        unbiased=dict.fromkeys(PARTS, 2.0),
        doses=doses,
        bayesian={part: [1.0 / dose for dose in doses] for part in PARTS},
        prior={"std_real": 0.1, "std_imaginary": 0.1},
        peak={"phase": 1.0, "amplitude": 0.3},
        photons_per_pixel=0.01,
        frequency=frequency.tolist(),
        signal=[1.0] * rings,
        noise=[10.0] * rings,
        window="hann",
        region={"pixels": region.pixels, "rows": [y.start, y.stop], "columns": [x.start, x.stop]},
        solver={"unbiased": {"converged": [True]}},
    )
