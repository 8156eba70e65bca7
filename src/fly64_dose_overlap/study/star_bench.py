"""The star bench: one Siemens star and three rasters, on which iterative solvers were measured.

Object, probe and pitches follow a test case of which scores of pty-chi's solvers and of a
maximum a posteriori solver are known at three doses. The whole scan is reconstructed, not a
half of it, and scored on `SCORED_PX`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import BaseSet
from fly64_dose_overlap.provenance import Record, new_record, with_step
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.study.probe import ZonePlate, zone_plate_probe
from fly64_dose_overlap.study.raster import raster_scan

STAR_BENCH = "star-bench"
"""Name of the bench as ``base.source``."""

OBJECT_SIDE_PX = 320
FRAME_SIDE_PX = 64
SCORED_PX = (48, 272)
"""First and one past the last row and column that are scored, the same for all rasters."""

SPOKES = 36
PHASE_CONTRAST_RAD = 1.0
ABSORPTION = 0.3
INNER_RADIUS_PX, OUTER_RADIUS_PX = 4.0, 148.0
GAP_RADII_PX, GAP_PX = (30.0, 60.0, 90.0, 120.0), 3.0
SUBPIXELS = 4

DEFOCUS_M = -1.85e-3
OPTICS = ZonePlate(outermost_zone_m=183e-9, central_stop_m=71.5e-6, apodisation=math.inf, rim_width=0.2)
"""Their probe overlaps the test case's by 0.992; what is missing is a little coma and astigmatism."""

FIELD_PX = 248.0
JITTER_PX = 0.5
RASTERS: dict[str, tuple[int, float]] = {
    "baseline": (50, 5.0),
    "dense": (28, 8.92),
    "sparse": (13, 19.6),
}
"""Lines and their pitch in object pixels."""


def make_star_bench(view: str, seed: int) -> BaseSet:
    """Make the object, the probe and the positions of one raster.

    The baseline raster is a scan with jitter. The other two keep the frames of that scan
    which lie nearest to the nodes of a coarser raster, so that all three share frames,
    and counts where they are drawn for the scan. Mean distances to the nearest neighbour
    are 4.3, 6.8 and 18 px.

    Parameters
    ----------
    view : {"baseline", "dense", "sparse"}
    seed : int
        Of the jitter; object and probe have no random part.

    Returns
    -------
    BaseSet
        320 x 320 object, N = 64, 2500, 784 or 169 positions; ``scan_index`` counts the
        frames of the baseline raster. The probe's squared modulus sums to 1.

    Raises
    ------
    StudyError
        If there is no such raster.
    """
    if view not in RASTERS:
        raise StudyError("star bench", f"view must be one of {', '.join(RASTERS)}, got {view!r}")
    origin_px = (OBJECT_SIDE_PX - FIELD_PX) / 2
    lengths = {"field_px": FIELD_PX, "step_px": RASTERS["baseline"][1], "jitter_px": JITTER_PX}
    rng = generator(seed, STAR_BENCH, "scan")
    scan_px = raster_scan(**lengths, rng=rng, origin_px=(origin_px, origin_px))
    frames = _nearest_frames(scan_px, *RASTERS[view]) if view != "baseline" else np.arange(len(scan_px))
    pupil = {"pupil_rim_width_fraction": OPTICS.rim_width}
    physics = OPTICS.described(FRAME_SIDE_PX, **pupil, defocus_m=DEFOCUS_M, **lengths)
    record = new_record("base", physics=physics, source=STAR_BENCH, seed=seed, object_kind="star")
    return BaseSet(
        obj=bench_star(OBJECT_SIDE_PX),
        probe=zone_plate_probe(FRAME_SIDE_PX, DEFOCUS_M, OPTICS)[None],
        positions_px=scan_px[frames],
        scan_index=frames,
        record=with_raster_step(record, view),
    )


def with_raster_step(record: Record, view: str) -> Record:
    """Return the record with the choice of a raster's frames as one more step."""
    lines, pitch_px = RASTERS[view]
    operation = "keep the frames of a raster"
    return with_step(record, STAR_BENCH, operation, view=view, lines=lines, pitch_px=pitch_px)


def bench_star(side_px: int) -> NDArray[np.complex64]:
    """Draw the star: straight spokes with a hole in the hub and gaps at four radii.

    Amplitude and phase have the same shape, and pixels on an edge the mean over
    their area. Spokes are finer than a pixel within 11 px of the hub. The star keeps its size
    on an object of any side.

    Returns
    -------
    obj : (y, x) complex64
        Transmission, modulus 0.7 to 1, phase -1 to 0 rad.
    """
    axis = (np.arange(side_px * SUBPIXELS) + 0.5) / SUBPIXELS - side_px / 2
    y, x = axis[:, None], axis[None, :]
    radius = np.hypot(y, x)
    # Two spokes have edges on the diagonals, where the sine's sign would be left to rounding.
    star = np.sin(SPOKES * np.arctan2(y, x)) > 1e-9
    star &= (radius > INNER_RADIUS_PX) & (radius < OUTER_RADIUS_PX)
    for gap_px in GAP_RADII_PX:
        star &= np.abs(radius - gap_px) > GAP_PX / 2
    thickness = star.reshape(side_px, SUBPIXELS, side_px, SUBPIXELS).mean(axis=(1, 3))
    return ((1 - ABSORPTION * thickness) * np.exp(-1j * PHASE_CONTRAST_RAD * thickness)).astype(np.complex64)


def _nearest_frames(scan_px: NDArray[np.float64], lines: int, pitch_px: float) -> NDArray[np.int64]:
    """Return the frames nearest to the nodes of a raster in the middle of the object, ascending."""
    axis = OBJECT_SIDE_PX / 2 + pitch_px * (np.arange(lines) - (lines - 1) / 2)
    nodes = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    distance = np.hypot(*(scan_px[:, None] - nodes).transpose(2, 0, 1))
    return np.unique(distance.argmin(axis=0)).astype(np.int64)
