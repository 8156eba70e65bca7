"""Stage halves: two halves of the photons, reconstructed each by itself."""

from __future__ import annotations

from fly64_dose_overlap.config import PARAMS_FILE, load_params
from fly64_dose_overlap.pipeline import cells
from fly64_dose_overlap.pipeline.stages._cli import MethodOption, ParamsOption, run
from fly64_dose_overlap.pipeline.stages._method import method_of


def main(method: MethodOption, params_file: ParamsOption = PARAMS_FILE) -> None:
    """Write reconstructions/_halves/METHOD for the cell that `dose` and `view` name.

    A learned method is trained on each half itself. Repeated after an interruption, it goes on from the
    last finished epoch.
    """
    from fly64_dose_overlap.pipeline.halves import reconstruct_halves
    from fly64_dose_overlap.pipeline.instrument import Instrument

    params = load_params(params_file)
    reconstruct_halves(
        lambda: method_of(method, params.methods, params_file),
        cells.view_file(params.dose, params.view, "test"),
        cells.halves_folder(method),
        stops=params.stops,
        instrument=Instrument(params.probe, params.calibration, params.refine),
        seed=params.seed,
    )


if __name__ == "__main__":
    run(main)
