"""Stage evaluate: every reconstruction scored alike, beside the physical limit."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from fly64_dose_overlap.commands import run_command
from fly64_dose_overlap.config import PARAMS_FILE, load_params
from fly64_dose_overlap.pipeline import cells
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, refusals_of, run
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.provenance import MEASURED, steps

if TYPE_CHECKING:
    from pathlib import Path

    from fly64_dose_overlap.scan import Scan
    from fly64_dose_overlap.scores.against import Against
    from fly64_dose_overlap.scores.evaluation import Evaluation


def main(params_file: ParamsOption = PARAMS_FILE) -> None:
    """Write metrics/evaluation.json, metrics/frc.csv and reports/ for the cell of `dose` and `view`."""
    from fly64_dose_overlap.files.atomic import read_json, sha256_of
    from fly64_dose_overlap.files.dataset import read_scan, read_truth
    from fly64_dose_overlap.files.reconstruction import MANIFEST, read_reconstructions
    from fly64_dose_overlap.parallel import one_torch_thread
    from fly64_dose_overlap.report.comparison import print_table, write_report
    from fly64_dose_overlap.scores.evaluation import evaluate
    from fly64_dose_overlap.scores.limit import read_limit

    params = load_params(params_file)
    dose, view = params.dose, params.view
    data = cells.view_file(dose, view, "test")
    scan, truth = read_scan(data), read_truth(data)
    limit = read_limit(cells.limit_file(view))
    folders = [cells.reconstruction_folder(name) for name in (*params.learned, *params.iterative)]
    # A queued experiment starts without data, and DVC, told to allow that, leaves the outputs of
    # unchanged stages away; it does not see that this stage needs the folders in its dependency.
    parts = [[cells.halves_folder(name) / part for name in params.halves] for part in cells.PARTS]
    needed = [*folders, *chain(*parts)]
    if missing := [str(folder) for folder in needed if not (folder / MANIFEST).is_file()]:
        run_command("dvc", "pull", *missing, where="reconstructions")
    digests = {path.stem: sha256_of(path) for folder in folders for path in sorted(folder.glob("*.npz"))}
    found = read_reconstructions(*folders)
    against = _reference_for(scan)
    part = "test half" if "split_dataset" in steps(scan.record) else "scan"
    with one_torch_thread(), refusals_of(f"view {view}, {part} of {len(scan)} frames"):
        evaluation = evaluate(
            scan, truth, found, params.evaluate, limit=limit, dose=dose, digests=digests, against=against
        )
    evaluation.metrics["diagnosis"] = read_json(cells.DIAGNOSIS)
    title = f"{dose} photons per frame, view {view}"
    if params.halves:
        _add_halves(evaluation, scan, parts, params.evaluate.registration_upsampling)
    where = {"metrics_dir": cells.METRICS, "reports_dir": cells.REPORTS}
    picture = write_report(evaluation, truth, limit, dose, title, **where)
    print_table(evaluation.metrics, title)
    say(f"picture: {picture}")


def _add_halves(evaluation: Evaluation, scan: Scan, parts: list[list[Path]], upsampling: int) -> None:
    """Add how far two halves of the photons agree to the scores of the methods that were asked to."""
    from fly64_dose_overlap.files.reconstruction import read_reconstructions
    from fly64_dose_overlap.scores.halves import agreement_of_halves

    nanometres = None if scan.optics is None else scan.optics.object_pixel_m * 1e9
    first, second = (read_reconstructions(*folders) for folders in parts)
    found = agreement_of_halves(first, second, evaluation.region, upsampling=upsampling, pixel_nm=nanometres)
    for scores in evaluation.metrics["methods"].values():
        if agreed := found.get(scores["key"]):
            scores["halves"] = agreed


def _reference_for(scan: Scan) -> Against | None:
    """Return what stands for the truth of measured frames, None where frames are simulated."""
    import numpy as np

    from fly64_dose_overlap.files.atomic import read_json
    from fly64_dose_overlap.files.dataset import read_scan
    from fly64_dose_overlap.files.npz import NpzReader
    from fly64_dose_overlap.scores.against import Against

    if MEASURED not in steps(scan.record):
        return None
    if not cells.HELD_FILE.is_file():  # in a queued experiment, as reconstructions above
        run_command("dvc", "pull", str(cells.REFERENCE), where="reference")
    with NpzReader(cells.REFERENCE_HALVES) as reader:
        halves = reader.load("first"), reader.load("second")
    held = read_scan(cells.HELD_FILE)
    order = np.argsort(held.scan_index)
    rows = order[np.searchsorted(held.scan_index, scan.scan_index, sorter=order)]
    return Against(read_json(cells.REFERENCE / "reference.json"), halves, held.frames(rows))


if __name__ == "__main__":
    run(main)
