"""Stage train: the physics-informed network of one dose and view."""

from __future__ import annotations

from fly64_dose_overlap.config import PARAMS_FILE, load_params
from fly64_dose_overlap.learning import cell_job, run_training_job, write_manifest
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, run


def main(params_file: ParamsOption = PARAMS_FILE) -> None:
    """Train on the cell that `dose` and `view` name: models/cell and the curves in metrics/train.

    Repeated after an interruption, it goes on from the last finished epoch.
    """
    params = load_params(params_file)
    views = params.overlap.views
    job = cell_job(params.dose, params.view, views[params.view].gridsize)
    result = run_training_job(job, config=params.train, neighbor_count=params.overlap.neighbor_count)
    # The same model has the same manifest, whether or not its training was interrupted.
    del result["resumed_from_epoch"]
    write_manifest(job.artifact_dir / "manifest.json", [(job, result)])


if __name__ == "__main__":
    run(main)
