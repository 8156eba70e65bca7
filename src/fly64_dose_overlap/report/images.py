"""Reconstructions of a cell beside the truth, small enough to be part of the page."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from fly64_dose_overlap.errors import MissingFileError
from fly64_dose_overlap.files.npz import NpzReader
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.report.figures import Picture, embedded
from fly64_dose_overlap.report.metrics import COMPLEX_NRMSE, PHASE_PSNR
from fly64_dose_overlap.report.revisions import fetched
from fly64_dose_overlap.report.study import Cell, Run
from fly64_dose_overlap.scores.picture import comparison_picture
from fly64_dose_overlap.scores.region import Region

RECONSTRUCTION = "reports/reconstruction.npz"
MOST_LEARNED = 3
WIDTH_PX = 1500
QUALITY = 85


def shown_methods(cell: Cell) -> list[str]:
    """Return the methods whose pictures are shown: the learned ones and the best iterative one."""
    learned = [name for name, kind in cell.methods.items() if kind == "learned"]
    best = cell.best_iterative()
    chosen = learned[:MOST_LEARNED] or list(cell.methods)[:1]
    return [*chosen, best] if best else chosen


def reconstructions(root: Path, cell: Cell) -> Picture | None:
    """Draw truth and reconstructions of a cell's first run; None where DVC has not got them here."""
    run = cell.first
    try:
        with fetched(root, run.revision, RECONSTRUCTION) as path:
            content = _draw(path, cell, shown_methods(cell))
    except MissingFileError as error:
        say(f"{run.name}: {error}")
        return None
    best = cell.best_iterative()
    ending = f" Last column: the iterative method with the highest phase PSNR ({best})." if best else ""
    caption = (
        f"Truth and aligned reconstructions, {cell.dose:,} photons per frame, view {cell.view}, "
        f"train.seed {run.seed}: amplitude, phase, phase error; one colour scale per row.{ending}"
    )
    return embedded(content, "image/webp", caption)


def _draw(path: Path, cell: Cell, names: list[str]) -> bytes:
    run = cell.first
    with NpzReader(path) as reader:
        truth = reader.load("objectGuess")
        methods = {name: reader.load(f"{run.key(name)}_aligned") for name in names}
        region = _region(run, reader.load("region").astype(bool))
    captions = {name: _caption(run, name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "comparison.png"
        comparison_picture(picture, truth, methods, region, title="", captions=captions)
        with Image.open(picture) as image:
            return _small(image.convert("RGB"))


def _region(run: Run, mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Region:
    found = run.evaluation["conventions"]["region"]
    rectangle = (slice(*found["rows"]), slice(*found["columns"]))
    return Region(
        mask, rectangle, found["pixels"], found["illumination_threshold"], found["covered_fraction"]
    )


def _caption(run: Run, name: str) -> str:
    scores = run.methods[name]
    psnr, nrmse = PHASE_PSNR.write(PHASE_PSNR.of(scores)), COMPLEX_NRMSE.write(COMPLEX_NRMSE.of(scores))
    return f"phase PSNR {psnr} dB\nNRMSE {nrmse}"


def _small(image: Image.Image) -> bytes:
    width = min(WIDTH_PX, image.width)
    size = width, round(image.height * width / image.width)
    content = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(content, format="WEBP", quality=QUALITY)
    return content.getvalue()
