"""Stage refine: the network that refines joint iterations, of one dose and view."""

from __future__ import annotations

from pathlib import Path

from fly64_dose_overlap.config import PARAMS_FILE, load_params
from fly64_dose_overlap.learning import (
    cell_job,
    execute_refining_job,
    run_training_job,
    write_manifest,
)
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, run

MODEL_DIR = Path("models/refiner")
CURVES = Path("metrics/refiner")


def main(params_file: ParamsOption = PARAMS_FILE) -> None:
    """Train on the cell that `dose` and `view` name: models/refiner, and curves in metrics/refiner.

    Repeated after an interruption, it goes on from the last finished epoch.
    """
    params = load_params(params_file)
    views = params.overlap.views
    job = cell_job(
        params.dose, params.view, views[params.view].gridsize, artifact_dir=MODEL_DIR, curves_dir=CURVES
    )
    neighbors = params.overlap.neighbor_count
    result = run_training_job(job, config=params.train, neighbor_count=neighbors, runner=execute_refining_job)
    # The same model has the same manifest, whether or not its training was interrupted.
    del result["resumed_from_epoch"]
    write_manifest(job.artifact_dir / "manifest.json", [(job, result)])


if __name__ == "__main__":
    run(main)
