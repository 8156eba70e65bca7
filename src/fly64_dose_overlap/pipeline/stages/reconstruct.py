"""Stages reconstruct and infer: the test half by an iterative or a learned method."""

from __future__ import annotations

from fly64_dose_overlap.config import PARAMS_FILE, load_params
from fly64_dose_overlap.pipeline import cells
from fly64_dose_overlap.pipeline.stages._cli import MethodOption, ParamsOption, run
from fly64_dose_overlap.pipeline.stages._method import method_of


def main(method: MethodOption, params_file: ParamsOption = PARAMS_FILE) -> None:
    """Write reconstructions/METHOD for the cell that `dose` and `view` name.

    An iterative method starts from an empty object; a learned one takes up models/METHOD,
    trained on the other half.
    """
    from fly64_dose_overlap.pipeline.instrument import Instrument
    from fly64_dose_overlap.pipeline.reconstruction import reconstruct_by

    params = load_params(params_file)
    reconstruct_by(
        method_of(method, params.methods, params_file),
        cells.view_file(params.dose, params.view, "test"),
        cells.reconstruction_folder(method),
        stops=params.stops,
        instrument=Instrument(params.probe, params.calibration, params.refine),
        bundle=cells.model_file(method),
    )


if __name__ == "__main__":
    run(main)
