"""Datasets of the star bench: a whole scan at one dose, and where it is scored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fly64_dose_overlap.config import ViewName
from fly64_dose_overlap.data.contract import Dataset, select_frames
from fly64_dose_overlap.provenance import with_physics, with_step
from fly64_dose_overlap.scoring.region import Region, scan_region
from fly64_dose_overlap.simulation.diffraction import BLOCK_FRAMES, dose_factor, draw_counts, with_dose
from fly64_dose_overlap.simulation.star_bench import (
    OBJECT_SIDE_PX,
    SCORED_PX,
    make_star_bench,
    with_raster_step,
)


def star_bench_dataset(view: ViewName, dose: int, seed: int) -> Dataset:
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
    Dataset
        Without groups.

    Raises
    ------
    StudyError
        If there is no such raster, or the dose is not positive.
    """
    frames = make_star_bench(view, seed).scan_index
    base = make_star_bench("baseline", seed)
    factor = dose_factor(base, dose)
    scan = with_dose(base, factor)
    blocks = [np.sqrt(counts).astype(np.float32) for counts in draw_counts(scan, seed=seed, dose=dose)]
    drawn = with_step(
        base.record,
        "simulate",
        "draw photon counts",
        photons_per_frame=dose,
        seed=seed,
        amplitude_factor=factor,
        block_frames=BLOCK_FRAMES,
    )
    whole = Dataset(
        amplitude=np.concatenate(blocks),
        obj=scan.obj,
        probe=scan.probe,
        positions_px=scan.positions_px,
        scan_index=scan.scan_index,
        record=drawn if view == "baseline" else with_raster_step(drawn, view),
    )
    kept = select_frames(whole, frames)
    measured = float(np.square(kept.amplitude[:], dtype=np.float64).sum() / len(kept.amplitude))
    record = with_physics(kept.record, photons_per_frame_nominal=dose, photons_per_frame_measured=measured)
    return replace(kept, record=record)


def star_bench_region() -> Region:
    """Return the square that is scored, the same for all rasters, without regard to the light on it."""
    first, stop = SCORED_PX
    corners_px = np.array([[first, first], [stop - 1, stop - 1]], dtype=np.float64)
    return scan_region(np.ones((OBJECT_SIDE_PX, OBJECT_SIDE_PX)), corners_px, 0.0)
