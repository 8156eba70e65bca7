"""One network for all doses, beside the networks of each dose.

    python -m benchmarks.dose_transfer --view dense

On the datasets of the study (`dvc pull`, or `dvc repro` of stage `overlap`). A network trained
on the highest dose, seeing in training from half of the lowest dose up to 60 % of the highest, is
applied to the test frames of every dose; so are the networks trained on each dose as the study
does. The one network takes twice the epochs: it stands for three.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, cast

import torch
import typer

from fly64_dose_overlap.config import Params, ViewName, load_params
from fly64_dose_overlap.data.atomic import write_text_atomic
from fly64_dose_overlap.data.contract import read_dataset
from fly64_dose_overlap.networks.apply import load_imager
from fly64_dose_overlap.networks.bundle import load_bundle
from fly64_dose_overlap.networks.mosaic import GroupStart
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.reconstruction.joint import JointStart
from fly64_dose_overlap.reconstruction.problem import load_problem
from fly64_dose_overlap.scoring.align import align_to
from fly64_dose_overlap.scoring.region import scan_region
from fly64_dose_overlap.scoring.scores import score
from fly64_dose_overlap.training import cell_job, execute_refining_job, execute_training_job
from fly64_dose_overlap.training.jobs import VIEW_ORDER

Kind = Literal["groups", "joint"]
RUNNERS = {"groups": execute_training_job, "joint": execute_refining_job}
LABELS = {"groups": "network", "joint": "refined"}
HEAD = """# One network for all doses

Networks trained on each dose, and one trained on the highest dose for all, on the same test
frames. Phase and amplitude PSNR in dB (peak = the truth's range) and complex NRMSE. Written by
`python -m benchmarks.dose_transfer --output docs/dose-transfer.md`.

| object | view | dose | network | of this dose | one for all | difference of phase |
|---|---|---:|---|---:|---:|---:|
"""


def train(params: Params, view: ViewName, dose: int, kind: Kind, folder: Path, **changes: float) -> Path:
    """Train a network and return its bundle."""
    job = replace(
        cell_job(dose, view, params.overlap.views[view].gridsize),
        artifact_dir=folder,
        log_path=folder / "train.log",
        curves_dir=folder / "curves",
    )
    folder.mkdir(parents=True)
    config = params.train.model_copy(update=changes)
    return folder / str(RUNNERS[kind](config=config, job=job, log_path=job.log_path)["bundle"])


def scores_of(
    params: Params, view: ViewName, dose: int, kind: Kind, bundle: Path
) -> tuple[float, float, float]:
    """Return phase and amplitude PSNR and complex NRMSE of a network on the test frames of a dose."""
    path = Path(f"data/views/{dose}/{view}/test.npz")
    dataset = read_dataset(path)
    network, info = load_bundle(bundle, kind)
    joint = JointStart(info.start_iterations, info.start_weight)
    start = GroupStart(info.start_iterations) if kind == "groups" else joint
    imager = load_imager(dataset, network, info, start, where=path, device=params.infer.device)
    image = imager.images(load_problem(dataset).counts, 1.0)[0]
    evaluate = params.evaluate
    region = scan_region(imager.scan.fluence, dataset.positions_px, evaluate.region_threshold)
    aligned = align_to(dataset.obj, image, region, upsampling=evaluate.registration_upsampling)
    found = score(dataset.obj, aligned.field, region)
    return found["phase"]["psnr_db"], found["amplitude"]["psnr_db"], found["complex_nrmse"]


def rows(params: Params, view: ViewName, kind: Kind, folder: Path) -> Iterator[str]:
    """Yield a line for each dose."""
    lowest, *_, highest = doses = sorted(params.doses)
    for_all = {"least_seen": lowest / highest / 2, "epochs": 2 * params.train.epochs}
    one = train(params, view, highest, kind, folder / "one", **for_all)
    for dose in doses:
        own = train(params, view, dose, kind, folder / str(dose))
        reached = [scores_of(params, view, dose, kind, bundle) for bundle in (own, one)]
        texts = [f"{phase:.2f} / {amplitude:.2f}, {nrmse:.4f}" for phase, amplitude, nrmse in reached]
        difference = reached[1][0] - reached[0][0]
        cells = (params.base.object_kind, view, dose, LABELS[kind], *texts, f"{difference:+.2f}")
        yield f"| {' | '.join(map(str, cells))} |\n"


def main(
    view: Annotated[list[str] | None, typer.Option(help="Only this view; may be repeated.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Also append rows here.")] = None,
) -> None:
    """Print what a network for all doses loses against those of each dose."""
    params = load_params()
    torch.set_num_threads(params.train.threads)
    text = output.read_text() if output and output.exists() else HEAD
    for each in cast(list[ViewName], view) or list(VIEW_ORDER):
        for kind in RUNNERS:
            with tempfile.TemporaryDirectory() as folder:
                for row in rows(params, each, cast(Kind, kind), Path(folder)):
                    say(row.strip())
                    text += row
                    if output:
                        write_text_atomic(output, text)


if __name__ == "__main__":
    typer.run(main)
