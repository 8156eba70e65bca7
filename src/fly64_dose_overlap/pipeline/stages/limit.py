"""Stage limit: the least errors that the photons of one view allow, at any dose."""

from __future__ import annotations

from dataclasses import replace

from fly64_dose_overlap.config import PARAMS_FILE, load_params
from fly64_dose_overlap.pipeline import cells
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, ViewOption, refusals_of, run
from fly64_dose_overlap.progress import say


def main(view: ViewOption, params_file: ParamsOption = PARAMS_FILE) -> None:
    """Write metrics/limit/VIEW.json: error bounds of the test half, for every dose.

    The bounds depend on the dose by a known law, so the view's data of the first of
    `doses` serve. An interrupted run starts again.
    """
    from fly64_dose_overlap.files.dataset import read_scan, read_truth
    from fly64_dose_overlap.scan import Unknown
    from fly64_dose_overlap.scores.bound import find_limit
    from fly64_dose_overlap.scores.limit import write_limit

    params = load_params(params_file)
    dose = params.doses[0]
    data = cells.view_file(dose, view, "test")
    scan, threshold = read_scan(data), params.evaluate.region_threshold
    with refusals_of(f"view {view}, test half of {len(scan)} frames"):
        truth, settings = read_truth(data), params.limit
        limit = find_limit(scan, truth, threshold, settings, dose=dose)
        if unsure := Unknown.of(params.refine):
            blind = find_limit(replace(scan, unknown=unsure), truth, threshold, settings, dose=dose)
            price = {part: blind.unbiased[part] / limit.unbiased[part] for part in limit.unbiased}
            limit = replace(limit, price=price)
            say(f"limit: to find the instrument besides takes {price['complex']:.3g} times the photons")
    path = cells.limit_file(view)
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
