"""Stage evaluate: reconstruct the test half, score every method alike, report."""

from __future__ import annotations

from pathlib import Path

from fly64_dose_overlap.config import PARAMS_FILE, load_params
from fly64_dose_overlap.data.contract import read_dataset
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.stages._cli import ParamsOption, run

BUNDLE = Path("models/cell/model.safetensors")
METRICS = Path("metrics")
REPORTS = Path("reports")


def main(params_file: ParamsOption = PARAMS_FILE) -> None:
    """Write metrics/evaluation.json, metrics/frc.csv and reports/ for the cell of `dose` and `view`."""
    # torch and matplotlib take seconds to import, which --help need not wait for.
    import torch

    from fly64_dose_overlap.evaluation.reconstruct import reconstruct
    from fly64_dose_overlap.evaluation.report import print_table, write_report
    from fly64_dose_overlap.evaluation.scoring import evaluate
    from fly64_dose_overlap.networks.bundle import load_bundle

    params = load_params(params_file)
    settings = params.evaluate
    torch.set_num_threads(settings.threads)
    network, info = load_bundle(BUNDLE)
    path = Path(f"data/views/{params.dose}/{params.view}/test.npz")
    dataset = read_dataset(path)
    reconstructions = reconstruct(dataset, network, info, where=path, device=settings.device)
    evaluation = evaluate(dataset, reconstructions, settings)
    title = f"{params.dose} photons per frame, view {params.view}"
    picture = write_report(
        evaluation, reconstructions, dataset, title, metrics_dir=METRICS, reports_dir=REPORTS
    )
    print_table(evaluation.metrics, title)
    say(f"picture: {picture}")


if __name__ == "__main__":
    run(main)
