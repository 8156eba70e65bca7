"""Scans of the star bench at one dose, and where they are scored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.provenance import with_physics, with_step
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.scores.region import Region, scan_region
from fly64_dose_overlap.study.dose import BLOCK_FRAMES, Simulation, draw_counts
from fly64_dose_overlap.study.star_bench import (
    OBJECT_SIDE_PX,
    SCORED_PX,
    make_star_bench,
    with_raster_step,
)


def star_bench_scan(view: str, dose: int, seed: int) -> tuple[Scan, NDArray[np.complex64]]:
    """Draw the counts of one raster of the star bench.

    Dose and counts are those of the baseline raster's scan, of which the other two keep
    frames: the same frame holds the same counts in each of them.

    Parameters
    ----------
    view : {"baseline", "dense", "sparse"}
    dose : int, photons per frame
        Averaged over the baseline raster; > 0.
    seed : int
        Of jitter and counts.

    Returns
    -------
    scan : Scan
        Without groups.
    truth : (y, x) complex64

    Raises
    ------
    StudyError
        If there is no such raster, or the dose is not positive.
    """
    kept = make_star_bench(view, seed).scan_index
    base, factor = Simulation(make_star_bench("baseline", seed)).with_dose(dose)
    record = with_step(
        base.record,
        "simulate",
        "draw photon counts",
        photons_per_frame=dose,
        seed=seed,
        amplitude_factor=factor,
        block_frames=BLOCK_FRAMES,
    )
    counts = np.concatenate(list(draw_counts(base, seed=seed, dose=dose))).astype(np.float32)
    scan = Scan(counts[kept], base.probe, base.positions_px[kept], (OBJECT_SIDE_PX, OBJECT_SIDE_PX), kept)
    record = with_physics(
        record if view == "baseline" else with_raster_step(record, view),
        photons_per_frame_nominal=dose,
        photons_per_frame_measured=scan.photons_per_frame,
    )
    return replace(scan, record=record), base.obj


def star_bench_region() -> Region:
    """Return the square that is scored, the same for all rasters, without regard to the light on it."""
    first, stop = SCORED_PX
    corners_px = np.array([[first, first], [stop - 1, stop - 1]], dtype=np.float64)
    return scan_region(np.ones((OBJECT_SIDE_PX, OBJECT_SIDE_PX)), corners_px, 0.0)
