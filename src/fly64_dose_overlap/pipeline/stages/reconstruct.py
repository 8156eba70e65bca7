"""Stage reconstruct: the test half of the cell, by every iterative method."""

from __future__ import annotations

from pathlib import Path

from fly64_dose_overlap.config import PARAMS_FILE, load_params
from fly64_dose_overlap.files.product import write_products
from fly64_dose_overlap.methods.jobs import cell_jobs, clear, collect, run_jobs
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, run

RESULTS = Path("reconstructions/iterative")


def main(params_file: ParamsOption = PARAMS_FILE) -> None:
    """Write reconstructions/iterative for the cell that `dose` and `view` name.

    Every method starts from an empty object and uses all frames of the test half. A failed
    method does not stop the others, and fails the stage. Repeated after an interruption,
    methods that had finished are not run again.
    """
    params = load_params(params_file)
    views = params.overlap.views
    jobs = cell_jobs(params.dose, params.view, views[params.view].gridsize, params.reconstruct)
    collect(run_jobs(jobs, params_file=params_file, workers=params.reconstruct.workers), RESULTS)
    write_products(RESULTS)
    clear(jobs)


if __name__ == "__main__":
    run(main)
