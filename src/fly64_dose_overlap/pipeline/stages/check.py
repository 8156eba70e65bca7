"""Stage check: refuse parameters that no stage could work with, and take down each method's code."""

from __future__ import annotations

from fly64_dose_overlap.config import PARAMS_FILE
from fly64_dose_overlap.files.atomic import write_json_atomic
from fly64_dose_overlap.pipeline import cells
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, run
from fly64_dose_overlap.progress import say


def main(params_file: ParamsOption = PARAMS_FILE) -> None:
    """Validate the parameters and write metrics/check/METHOD.json for every method that they name.

    Training and reconstruction by a method depend on its file, which holds digests of the
    method's code: a method that is changed runs alone. DVC looks for the data of `dose` and
    `view`, and removes old results, before it starts a stage; without this one a mistyped
    dose would be a missing file to it, and cost the results.
    """
    from fly64_dose_overlap.pipeline.code import code_of_method
    from fly64_dose_overlap.pipeline.study import load_study

    params = load_study(params_file)
    for name in (*params.learned, *params.iterative):
        write_json_atomic(cells.CODE / f"{name}.json", code_of_method(name))
    say(f"check: the cell is {params.dose} photons per frame, view {params.view}")


if __name__ == "__main__":
    run(main)
