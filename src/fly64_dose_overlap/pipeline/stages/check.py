"""Stage check: refuse parameters that no stage could work with, before DVC runs any."""

from __future__ import annotations

from pathlib import Path

from fly64_dose_overlap.config import PARAMS_FILE, load_params
from fly64_dose_overlap.files.atomic import write_json_atomic
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, run
from fly64_dose_overlap.progress import say

RESULT = Path("metrics/params.json")


def main(params_file: ParamsOption = PARAMS_FILE) -> None:
    """Validate the parameters and write metrics/params.json.

    Training and evaluation depend on that file, which is always the same. DVC looks for
    the data of `dose` and `view`, and removes old results, before it starts a stage;
    without this one a mistyped dose would be a missing file to it, and cost the results.
    """
    params = load_params(params_file)
    write_json_atomic(RESULT, {"valid": True})
    say(f"check: the cell is {params.dose} photons per frame, view {params.view}")


if __name__ == "__main__":
    run(main)
