"""Turn a half of the scan into a view: fewer frames, groups, and the overlap measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fly64_dose_overlap.config import OverlapParams, ViewParams
from fly64_dose_overlap.physics.illumination import fluence_summary
from fly64_dose_overlap.provenance import with_step
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.study.geometry import resolve_diameter
from fly64_dose_overlap.study.grouping import make_groups, subsample
from fly64_dose_overlap.study.overlap import measure_overlap

VIEW_MAPPING_VERSION = "1"
"""Version of the mapping from view names to sampling, described in docs/design/views.md."""

RESULTS = (
    "metric_1_group_based_avg",
    "metric_2_image_based_avg",
    "metric_3_group_to_group_avg",
    "n_unique_images",
    "fluence",
)
"""Entries of the metrics that are not in the provenance too."""


def make_view(
    scan: Scan, view: ViewParams, overlap: OverlapParams, *, name: str
) -> tuple[Scan, dict[str, Any]]:
    """Keep a part of the frames, group them and measure their overlap.

    The same seeds serve every dataset, so the two halves of a scan can be made one
    by one.

    Parameters
    ----------
    scan : Scan
        One half of the scan at one dose.
    name : str
        Name of the view, for the record.

    Returns
    -------
    view : Scan
        The kept frames in their order, with ``groups`` and one more provenance step.
    metrics : dict
        JSON-able: the three overlap metrics with their arguments and counts, the
        number of training groups and of frames in none of them, and the fluence of
        the kept frames at this dose.

    Raises
    ------
    StudyError
        If the view keeps no frame, or too few for its groups.
    """
    frames = subsample(len(scan), view.s_img, overlap.seed_subsample)
    kept = scan.frames(frames)
    groups = make_groups(
        kept.positions_px,
        gridsize=view.gridsize,
        n_groups=view.n_groups,
        neighbor_count=overlap.neighbor_count,
        seed=overlap.seed_grouping,
        enable_oversampling=overlap.enable_oversampling,
    )
    diameter_px, diameter_source = resolve_diameter(scan.probe, overlap.probe_diameter_px)
    measured = measure_overlap(
        scan.positions_px,
        view,
        probe_diameter_px=diameter_px,
        neighbor_count=overlap.metric_neighbor_count,
        seed=overlap.seed_subsample,
    )
    metrics = {
        "view": name,
        "view_mapping_version": VIEW_MAPPING_VERSION,
        **measured,
        "probe_diameter_source": diameter_source,
        "training_neighbor_count": overlap.neighbor_count,
        "rng_seed_grouping": overlap.seed_grouping,
        "n_training_groups": len(groups),
        "n_frames_in_no_group": len(frames) - len(np.unique(groups)),
        "fluence": fluence_summary(kept.illumination(), kept.positions_px),
    }
    recorded = {key: value for key, value in metrics.items() if key not in RESULTS}
    record = with_step(kept.record, "overlap_view", "keep frames and group them", **recorded)
    return replace(kept, groups=groups, record=record), metrics
