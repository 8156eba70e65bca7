"""Train a network on a cell of the study, and score it on the test frames of a cell."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import typer
from numpy.typing import NDArray

from fly64_dose_overlap.config import Params, ViewName
from fly64_dose_overlap.files.atomic import write_text_atomic
from fly64_dose_overlap.files.dataset import read_dataset
from fly64_dose_overlap.learning import cell_job, execute_refining_job, execute_training_job
from fly64_dose_overlap.learning.apply import load_imager
from fly64_dose_overlap.learning.bundle import load_bundle
from fly64_dose_overlap.learning.mosaic import GroupStart
from fly64_dose_overlap.methods.joint import JointStart
from fly64_dose_overlap.methods.problem import load_problem
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.scores.align import align_to
from fly64_dose_overlap.scores.region import scan_region
from fly64_dose_overlap.scores.scores import score

Kind = Literal["groups", "joint"]
KINDS: tuple[Kind, ...] = ("groups", "joint")
RUNNERS = {"groups": execute_training_job, "joint": execute_refining_job}
LABELS = {"groups": "network", "joint": "refined"}


@dataclass(frozen=True)
class Scores:
    """Scores of an image on test frames.

    Attributes
    ----------
    phase, amplitude : float, dB
        PSNR.
    nrmse : float
        Of the complex object.
    """

    phase: float
    amplitude: float
    nrmse: float

    def __str__(self) -> str:
        return f"{self.phase:.2f} / {self.amplitude:.2f}, {self.nrmse:.4f}"


def kinds_of(names: Sequence[str] | None) -> tuple[Kind, ...]:
    """Return the networks that a user named, both if none.

    Raises
    ------
    typer.BadParameter
        If there is no such network.
    """
    if not set(names or ()) <= set(KINDS):
        raise typer.BadParameter(f"must be among {', '.join(KINDS)}", param_hint="--kind")
    return tuple(kind for kind in KINDS if not names or kind in names)


def write_rows(rows: Iterable[str], head: str, output: Path | None) -> None:
    """Print lines of a table as they come, and append them to a document.

    Parameters
    ----------
    rows : iterable of str
    head : str
        What the document begins with, if it is new.
    output : Path or None
    """
    for row in rows:
        say(row.strip())
        if output:
            # Read anew for each row, minutes apart: another run may have added some meanwhile.
            before = output.read_text(encoding="utf-8") if output.exists() else head
            write_text_atomic(output, before + row)


def train(
    params: Params, view: ViewName, dose: int, kind: Kind, folder: Path, changes: Mapping[str, Any]
) -> tuple[Path, float]:
    """Train a network; return its bundle and the seconds that the processor took."""
    job = replace(
        cell_job(dose, view, params.overlap.views[view].gridsize),
        artifact_dir=folder,
        log_path=folder / "train.log",
        curves_dir=folder / "curves",
    )
    folder.mkdir(parents=True)
    config = params.train.model_copy(update=dict(changes))
    started = time.process_time()
    result = RUNNERS[kind](config=config, job=job, log_path=job.log_path)
    return folder / str(result["bundle"]), time.process_time() - started


def scores_of(params: Params, view: ViewName, dose: int, kind: Kind, bundle: Path) -> tuple[Scores, Scores]:
    """Return the scores of a network's image, and of the classical one that it corrects."""
    path = Path(f"data/views/{dose}/{view}/test.npz")
    dataset = read_dataset(path)
    network, info = load_bundle(bundle, kind)
    joint = JointStart(info.start_iterations, info.start_weight)
    start = GroupStart(info.start_iterations) if kind == "groups" else joint
    imager = load_imager(dataset, network, info, start, where=path, device=params.infer.device)
    evaluate = params.evaluate
    region = scan_region(imager.scan.fluence, dataset.positions_px, evaluate.region_threshold)

    def scored(image: NDArray[np.complex64]) -> Scores:
        aligned = align_to(dataset.obj, image, region, upsampling=evaluate.registration_upsampling)
        found = score(dataset.obj, aligned.field, region)
        return Scores(found["phase"]["psnr_db"], found["amplitude"]["psnr_db"], found["complex_nrmse"])

    image, late = imager.images(load_problem(dataset).counts, 1.0)
    return scored(image), scored(late)
