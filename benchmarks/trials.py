"""Train a network on a cell of the study, and score it on the test frames of a cell."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from fly64_dose_overlap.config import Params
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import write_text_atomic
from fly64_dose_overlap.files.dataset import read_scan, read_truth
from fly64_dose_overlap.files.reconstruction import Reconstruction
from fly64_dose_overlap.methods.base import Learned, Training
from fly64_dose_overlap.methods.held_out import HeldOut
from fly64_dose_overlap.methods.registry import make_method
from fly64_dose_overlap.methods.run import one_torch_thread, run_method
from fly64_dose_overlap.pipeline.cells import view_file
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.scores.align import align_to
from fly64_dose_overlap.scores.region import scan_region
from fly64_dose_overlap.scores.scores import score

NETWORKS = ("network", "refined")


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


def chosen(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the networks that a user named, both if none.

    Raises
    ------
    typer.BadParameter
        If there is no such network.
    """
    if not set(names or ()) <= set(NETWORKS):
        raise typer.BadParameter(f"must be among {', '.join(NETWORKS)}", param_hint="--method")
    return tuple(name for name in NETWORKS if not names or name in names)


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


def learned(params: Params, name: str, changes: Mapping[str, Any]) -> Learned:
    """Return a network with the settings of the study, but for some."""
    made = make_method(name, {**params.methods[name], **changes})
    if not isinstance(made, Learned):
        raise StudyError(name, "is no network")
    return made


def train(
    params: Params, view: str, dose: int, name: str, folder: Path, changes: Mapping[str, Any]
) -> tuple[Path, float]:
    """Train a network; return its model and the seconds that the processor took."""
    scan, _ = read_scan(view_file(dose, view, "train")).cropped()
    bundle = folder / "model.safetensors"
    started = time.process_time()
    with one_torch_thread():
        learned(params, name, changes).train(scan, Training(params.seed, bundle))
    return bundle, time.process_time() - started


def scores_of(params: Params, view: str, dose: int, name: str, bundle: Path) -> Scores:
    """Return the scores of a network's image of the test frames."""
    path = view_file(dose, view, "test")
    scan, truth = read_scan(path), read_truth(path)
    method = learned(params, name, {})
    method.load(bundle)
    found = next(
        each for each, _ in run_method(method, scan, HeldOut(seed=params.stops.seed)) if each.method == name
    )
    return scored(params, found, truth)


def scored(params: Params, found: Reconstruction, truth: Any) -> Scores:
    """Return the scores of a reconstruction of a scan with its own probe and positions."""
    from fly64_dose_overlap.physics.illumination import illumination

    evaluate = params.evaluate
    light = illumination(found.probe, found.positions_px, truth.shape)
    region = scan_region(light, found.positions_px, evaluate.region_threshold)
    aligned = align_to(truth, found.obj, region, upsampling=evaluate.registration_upsampling)
    scores = score(truth, aligned.field, region)
    return Scores(scores["phase"]["psnr_db"], scores["amplitude"]["psnr_db"], scores["complex_nrmse"])
