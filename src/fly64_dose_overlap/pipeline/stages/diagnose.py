"""Stage diagnose: what is likely wrong with the instrument as methods are told it."""

from __future__ import annotations

from fly64_dose_overlap.config import NOTHING_TO_REFINE, PARAMS_FILE, load_params
from fly64_dose_overlap.pipeline import cells
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, refusals_of, run
from fly64_dose_overlap.progress import say


def main(params_file: ParamsOption = PARAMS_FILE) -> None:
    """Write metrics/diagnosis.json, by the frames of the cell of `dose` and `view`."""
    from fly64_dose_overlap.diagnosis import diagnosed
    from fly64_dose_overlap.files.atomic import write_json_atomic
    from fly64_dose_overlap.files.dataset import read_scan
    from fly64_dose_overlap.pipeline.instrument import Instrument, as_told

    params = load_params(params_file)
    data = cells.view_file(params.dose, params.view, "test")
    instrument = Instrument(params.probe, params.calibration, NOTHING_TO_REFINE)
    with refusals_of(str(data)):
        found = diagnosed(as_told(read_scan(data), instrument, where=str(data)))
    write_json_atomic(cells.DIAGNOSIS, found.described())
    say(f"diagnose: {found}")


if __name__ == "__main__":
    run(main)
