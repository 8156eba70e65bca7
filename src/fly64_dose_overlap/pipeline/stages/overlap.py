"""Stage overlap: one view of the scan at one dose, grouped and with its overlap measured."""

from __future__ import annotations

import warnings
from typing import Any

from fly64_dose_overlap.config import PARAMS_FILE, load_params
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import write_json_atomic
from fly64_dose_overlap.pipeline import cells
from fly64_dose_overlap.pipeline.stages._cli import DoseOption, ParamsOption, ViewOption, require_listed, run
from fly64_dose_overlap.progress import say


def main(dose: DoseOption, view: ViewOption, params_file: ParamsOption = PARAMS_FILE) -> None:
    """Write data/views/DOSE/VIEW/train.npz and test.npz, and metrics/overlap/DOSE-VIEW.json.

    A view keeps a part of the frames and groups them; its overlap is measured and
    reported, and never a condition.
    """
    from fly64_dose_overlap.files.dataset import read_scan, read_truth, write_scan
    from fly64_dose_overlap.study.geometry import DEFAULT_SOURCE
    from fly64_dose_overlap.study.views import make_view

    params = load_params(params_file)
    require_listed(dose, params.doses)
    if view not in params.overlap.views:
        raise StudyError("--view", f"{view} is not among overlap.views {', '.join(params.overlap.views)}")
    overlap = params.overlap
    sampling = params.overlap.views[view]
    metrics: dict[str, dict[str, Any]] = {}
    for half in cells.HALVES:
        source = cells.dose_file(dose, half)
        scan = read_scan(source)
        try:
            kept, metrics[half] = make_view(scan, sampling, overlap, name=view)
        except StudyError as error:
            where = f"overlap, dose {dose}, view {view}, {half} half"
            raise StudyError(where, error.problem, error.hint) from None
        path = cells.view_file(dose, view, half)
        write_scan(path, kept, read_truth(source))
        read_scan(path, gridsize=sampling.gridsize, neighbor_count=overlap.neighbor_count)
        found = metrics[half]
        frames, groups = found["n_images_subsampled"], found["n_training_groups"]
        measured = found["metric_2_image_based_avg"]
        say(f"overlap: {path} has {frames} frames in {groups} groups, measured overlap {measured:.3f}")
        if (origin := found["probe_diameter_source"]) == DEFAULT_SOURCE:
            warnings.warn(
                f"overlap: the probe has no width at half maximum in its frame, taken is {origin} = "
                f"{found['probe_diameter_px']:g} px; set overlap.probe_diameter_px",
                stacklevel=2,
            )
    write_json_atomic(cells.overlap_metrics(dose, view), metrics)


if __name__ == "__main__":
    run(main)
