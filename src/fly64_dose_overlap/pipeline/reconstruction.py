"""Reconstruct a dataset by a method: what the stages and jobs outside DVC have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fly64_dose_overlap.config import StopParams
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.dataset import read_scan
from fly64_dose_overlap.files.product import write_products
from fly64_dose_overlap.files.reconstruction import Reconstruction, write_reconstructions
from fly64_dose_overlap.methods.base import Learned, Method
from fly64_dose_overlap.methods.held_out import HeldOut
from fly64_dose_overlap.methods.run import run_method
from fly64_dose_overlap.pipeline.instrument import Instrument, as_told
from fly64_dose_overlap.pipeline.repository import repository_root
from fly64_dose_overlap.pipeline.timings import record_timing
from fly64_dose_overlap.timing import Timing


def reconstruct_by(
    method: Method,
    data: Path,
    folder: Path,
    *,
    stops: StopParams,
    instrument: Instrument,
    bundle: Path | None = None,
) -> None:
    """Write everything that a method makes of a dataset to a folder, as NPZ files and as products.

    The method sees no object of the dataset, and is told the scan as ``instrument`` has
    it. ``bundle`` is the model of a learned method.
    """
    scan = as_told(read_scan(data), instrument, where=str(data))
    if isinstance(method, Learned) and bundle is not None:
        method.load(bundle)
    stop = HeldOut(stops.held_out_fraction, stops.patience, stops.seed)
    timings: dict[str, Timing] = {}

    def results() -> Iterator[Reconstruction]:
        for reconstruction, timing in run_method(method, scan, stop):
            timings[reconstruction.method] = timing
            yield reconstruction

    write_reconstructions(folder, results())
    write_products(folder)
    for name, timing in timings.items():
        record_timing(repository_root(Path.cwd()), sha256_of(folder / f"{name}.npz"), timing)
