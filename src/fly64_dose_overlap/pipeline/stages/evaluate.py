"""Stage evaluate: every reconstruction of the test half scored alike, beside the physical limit."""

from __future__ import annotations

from pathlib import Path

from fly64_dose_overlap.config import PARAMS_FILE, load_params
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.dataset import read_dataset
from fly64_dose_overlap.files.reconstruction import read_reconstructions
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, run
from fly64_dose_overlap.progress import say

RECONSTRUCTIONS = (Path("reconstructions/learned"), Path("reconstructions/iterative"))
METRICS = Path("metrics")
REPORTS = Path("reports")


def main(params_file: ParamsOption = PARAMS_FILE) -> None:
    """Write metrics/evaluation.json, metrics/frc.csv and reports/ for the cell of `dose` and `view`."""
    # torch and matplotlib take seconds to import, which --help need not wait for.
    import torch

    from fly64_dose_overlap.report.comparison import print_table, write_report
    from fly64_dose_overlap.scores.evaluation import evaluate
    from fly64_dose_overlap.scores.limit import read_limit

    params = load_params(params_file)
    # More threads would change the last digits.
    torch.set_num_threads(1)
    dose, view = params.dose, params.view
    dataset = read_dataset(Path(f"data/views/{dose}/{view}/test.npz"))
    limit = read_limit(METRICS / "limit" / f"{view}.json")
    reconstructions = read_reconstructions(*RECONSTRUCTIONS)
    digests = {
        path.stem: sha256_of(path) for folder in RECONSTRUCTIONS for path in sorted(folder.glob("*.npz"))
    }
    evaluation = evaluate(dataset, reconstructions, params.evaluate, limit=limit, dose=dose, digests=digests)
    title = f"{dose} photons per frame, view {view}"
    picture = write_report(evaluation, dataset, limit, dose, title, metrics_dir=METRICS, reports_dir=REPORTS)
    print_table(evaluation.metrics, title)
    say(f"picture: {picture}")


if __name__ == "__main__":
    run(main)
