"""Two halves of the photons, reconstructed each by itself: how far a method agrees with itself.

Halves share a probe, positions and the method's settings. Whatever a method finds, a network, the weight of a
prior, a stop, it finds in each half anew: what they shared would agree, whether it is right or wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fly64_dose_overlap.config import StopParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.dataset import read_scan
from fly64_dose_overlap.files.reconstruction import write_reconstructions
from fly64_dose_overlap.learning.checkpoint import CheckpointStore
from fly64_dose_overlap.methods.base import Learned, Method, Training
from fly64_dose_overlap.methods.held_out import HeldOut
from fly64_dose_overlap.methods.run import run_method
from fly64_dose_overlap.pipeline.cells import PARTS
from fly64_dose_overlap.pipeline.code import code_of_method
from fly64_dose_overlap.pipeline.instrument import Instrument, as_told, described
from fly64_dose_overlap.pipeline.repository import CHECKPOINTS, repository_root, work_key
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.seeding import generator


def reconstruct_halves(
    make: Callable[[], Method],
    data: Path,
    folder: Path,
    *,
    stops: StopParams,
    instrument: Instrument,
    seed: int,
) -> None:
    """Write what a method makes of either half of the photons to ``folder/first`` and ``folder/second``.

    A learned method is trained on each half itself, and goes on from its checkpoints where that was
    interrupted.

    Parameters
    ----------
    make : callable
        Returns the method anew for each half.
    seed : int
        Of the trainings.

    Raises
    ------
    StudyError
        If the method learns from the true object, which halves would share.
    """
    scan = as_told(read_scan(data), instrument, where=str(data)).grouped()
    stop = HeldOut(stops.held_out_fraction, stops.patience, stops.seed)
    finished: list[CheckpointStore] = []
    for name, half in zip(PARTS, scan.divide(0.5, generator(stops.seed, "halves")), strict=True):
        method = make()
        say(f"halves: {method.label}, {name} half of {half.photons_per_frame:.4g} photons per frame")
        if isinstance(method, Learned):
            if method.needs_truth:
                raise StudyError(
                    method.name,
                    "learns from the true object, which halves would share",
                    "take it out of halves",
                )
            settings = [method.name, method.settings.model_dump(), described(instrument), stops.seed, seed]
            key = work_key("halves", name, *settings, sha256_of(data), code_of_method(method.name))
            store = CheckpointStore(repository_root(Path.cwd()) / CHECKPOINTS / key)
            finished.append(store)
            bundle = folder / f"{name}.safetensors"
            method.trained(half.cropped()[0], Training(seed, bundle, checkpoints=store.folder))
            method.load(bundle)
        write_reconstructions(folder / name, (found for found, _ in run_method(method, half, stop)))
    for store in finished:
        store.clear()
