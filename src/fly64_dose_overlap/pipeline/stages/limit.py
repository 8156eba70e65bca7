"""Stage limit: the least errors that the photons of one view allow, at any dose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fly64_dose_overlap.config import PARAMS_FILE, ViewName, load_params
from fly64_dose_overlap.files.dataset import read_dataset
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, run
from fly64_dose_overlap.progress import say

ViewOption = Annotated[ViewName, typer.Option("--view", help="Name of the sampling in overlap.views.")]


def main(view: ViewOption, params_file: ParamsOption = PARAMS_FILE) -> None:
    """Write metrics/limit/VIEW.json: error bounds of the test half, for every dose.

    The bounds depend on the dose by a known law, so the view's data of the first of
    `doses` serve. An interrupted run starts again.
    """
    # torch takes seconds to import, which --help and refused arguments need not wait for.
    import torch

    from fly64_dose_overlap.scores.bound import Scan, find_limit
    from fly64_dose_overlap.scores.limit import write_limit

    params = load_params(params_file)
    # More threads would change the last digits, and these products hardly gain by them.
    torch.set_num_threads(1)
    dose = params.doses[0]
    dataset = read_dataset(f"data/views/{dose}/{view}/test.npz")
    scan = Scan(dataset.obj, dataset.probe[None] / dose**0.5, dataset.positions_px)
    limit = find_limit(scan, params.evaluate.region_threshold, params.limit)
    path = Path(f"metrics/limit/{view}.json")
    write_limit(path, limit)
    if not limit.converged:
        say(
            f"limit: {view} hardly determines its object; its unbiased bound still grew after "
            f"{params.limit.iterations} products, and the Bayesian one is the one to look at"
        )
    say(
        f"limit: {path} has kappa {limit.kappa:.3g} at "
        f"{limit.photons_per_pixel_at(dose):.3g} photons per pixel and {dose} per frame"
    )


if __name__ == "__main__":
    run(main)
