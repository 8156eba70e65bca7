"""Stage train: a learned method, on the training half of one dose and view."""

from __future__ import annotations

from fly64_dose_overlap.config import PARAMS_FILE, load_params
from fly64_dose_overlap.pipeline import cells
from fly64_dose_overlap.pipeline.stages._cli import MethodOption, ParamsOption, run
from fly64_dose_overlap.pipeline.stages._method import method_of


def main(method: MethodOption, params_file: ParamsOption = PARAMS_FILE) -> None:
    """Train on the cell that `dose` and `view` name: models/METHOD, and curves in metrics/METHOD.

    Repeated after an interruption, it goes on from the last finished epoch.
    """
    from fly64_dose_overlap.files.atomic import write_json_atomic
    from fly64_dose_overlap.pipeline.instrument import Instrument
    from fly64_dose_overlap.pipeline.training import train_method

    params = load_params(params_file)
    made = method_of(method, params.methods, params_file)
    data = cells.view_file(params.dose, params.view, "train")
    bundle = cells.model_file(method)
    with train_method(
        made,
        data,
        bundle,
        cells.curves_folder(method),
        seed=params.seed,
        instrument=Instrument(params.probe, params.calibration, params.refine),
        gridsize=params.overlap.views[params.view].gridsize,
        neighbor_count=params.overlap.neighbor_count,
    ) as outcome:
        content = {"method": method, "data": data.as_posix(), "bundle": bundle.name, **outcome}
        write_json_atomic(bundle.with_name("manifest.json"), content)


if __name__ == "__main__":
    run(main)
