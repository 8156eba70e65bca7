"""The synthetic base set: a fly64-like object, probe and scan from one seed."""

from __future__ import annotations

import math

import numpy as np

from fly64_dose_overlap.config import BaseParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import BaseSet
from fly64_dose_overlap.provenance import new_record
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.study.objects import siemens_star, texture
from fly64_dose_overlap.study.probe import ZonePlate, zone_plate_probe
from fly64_dose_overlap.study.raster import raster_scan
from fly64_dose_overlap.study.star_bench import STAR_BENCH, make_star_bench

MARGIN_PX = 2
"""Object pixels beyond the outermost windows, so that interpolation stays inside."""


def make_synthetic_base(params: BaseParams) -> BaseSet:
    """Make object, probe and scan positions.

    All lengths of the scan are in object pixels of the chosen frame side N. The object
    pixel shrinks as N grows while the probe keeps its size in metres, so the same
    ``step_px`` at N = 128 is half the step in metres. The object is drawn in pixels
    too: its finest lines have a period of about 3 px whatever N is.

    Parameters
    ----------
    params : BaseParams
        With ``source: synthetic``, or ``star-bench`` for the baseline raster of
        `make_star_bench`, which takes the seed alone.

    Returns
    -------
    BaseSet
        The scan sits in the middle of the object and every window lies inside it. The
        probe's squared modulus sums to 1: the dose is set later.

    Raises
    ------
    StudyError
        If the source is not synthetic, or a length does not fit the others.
    """
    if params.source == STAR_BENCH:
        return make_star_bench("baseline", params.seed)
    if not params.is_synthetic:
        raise StudyError("base.source", f"must be 'synthetic' to make a base set, got {params.source!r}")
    optics, side, seed, kind = ZonePlate(), params.frame_side_px, params.seed, params.object_kind
    defocus_m = params.defocus_um * 1e-6
    probe = zone_plate_probe(side, defocus_m, optics)
    side_px = object_side_px(params.field_px, side)
    draw = {"star": siemens_star, "texture": texture}[kind]
    origin_px = (side_px - params.field_px) / 2
    lengths = {"field_px": params.field_px, "step_px": params.step_px, "jitter_px": params.jitter_px}
    rng = generator(seed, "base", "scan")
    positions_px = raster_scan(**lengths, rng=rng, origin_px=(origin_px, origin_px))
    pupil = {"pupil_apodisation_fraction": optics.apodisation}
    physics = optics.described(side, **pupil, defocus_m=defocus_m, **lengths)
    record = new_record("base", physics=physics, source=params.source, seed=seed, object_kind=kind)
    return BaseSet(
        obj=draw((side_px, side_px), generator(seed, "base", "object")),
        probe=probe[None],
        positions_px=positions_px,
        scan_index=np.arange(len(positions_px), dtype=np.int64),
        record=record,
    )


def object_side_px(field_px: float, frame_side_px: int) -> int:
    """Return the even side of an object that holds every window of a centred field."""
    side_px = math.ceil(field_px) + frame_side_px + 2 * MARGIN_PX
    return side_px + side_px % 2
