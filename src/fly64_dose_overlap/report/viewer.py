"""Pictures of one cell for the page: every method on the same pixels, to be laid over each other."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fly64_dose_overlap.files.npz import NpzReader
from fly64_dose_overlap.report.drawing import data_uri
from fly64_dose_overlap.report.findings import by_interest
from fly64_dose_overlap.report.picture import (
    QUANTITIES,
    REFERENCE,
    TRUTH,
    Limits,
    Quantity,
    colour_limits,
    images,
    scale_bar,
)
from fly64_dose_overlap.report.study import Cell, Run, Study
from fly64_dose_overlap.scores.catalogue import COMPLEX_NRMSE, PHASE_PSNR
from fly64_dose_overlap.scores.evaluation import pixel_nm

MOST_METHODS = 6
MOST_SIDE_PX = 640
"""A larger region is shown smaller: all pictures of a cell stay below 4 MB."""
_OUTSIDE = 255
_GREY = (217, 217, 217)


@dataclass(frozen=True)
class Viewer:
    """All pictures of a cell, and which two methods are compared at first."""

    captions: dict[str, str]
    """Scores by method, the truth or the reference first."""
    left: str
    right: str
    size_px: tuple[int, int]
    """Width and height."""
    layers: list[tuple[str, str, str]]
    """Quantity, method, and the picture as a data URI."""
    scales: list[tuple[Quantity, str, str, str]]
    """Quantity, the ends of its range, and a bar of its colours as a data URI."""
    bar_percent: float
    """Length of the scale bar, as part of the width."""
    bar_label: str


def viewer_of(study: Study, cell: Cell) -> Viewer | None:
    """Return the pictures of a cell's first run, None where its reconstructions are not at hand."""
    run = cell.first
    if run.reconstruction is None:
        return None
    with NpzReader(run.reconstruction) as reader:
        found = [name for name in by_interest(study) if f"{run.key(name)}_aligned" in reader]
        names = found[:MOST_METHODS]
        truth = reader.load("objectGuess")
        fields = {name: reader.load(f"{run.key(name)}_aligned") for name in names}
        mask = reader.load("region").astype(bool)
        record = json.loads(str(reader.load("_metadata"))) if "_metadata" in reader else {}
    conventions = run.evaluation["conventions"]
    measured = conventions.get("frames") == "measured"
    region, first = conventions["region"], REFERENCE if measured else TRUTH
    rectangle = (slice(*region["rows"]), slice(*region["columns"]))
    shown = images(truth, fields, mask, rectangle, first)
    limits = colour_limits(shown[first])
    height, width = mask[rectangle].shape
    length_px, label = scale_bar(width, pixel_nm(record))
    factor = min(1.0, MOST_SIDE_PX / max(height, width))
    size = round(width * factor), round(height * factor)
    layers = [
        (quantity.name, name, _picture(image, limit, quantity.colours, size))
        for name, each in shown.items()
        for quantity, image, limit in zip(QUANTITIES, each, limits, strict=True)
        if (name, quantity) != (first, QUANTITIES[-1])
    ]
    ramp = np.linspace(0, 1, _OUTSIDE)[None]
    scales = [
        (q, f"{low:.2f}", f"{high:.2f}", _picture(ramp, (0, 1), q.colours, (_OUTSIDE, 1)))
        for q, (low, high) in zip(QUANTITIES, limits, strict=True)
    ]
    rival = names[1] if len(names) > 1 else first
    about = conventions["against"] if measured else "what was simulated"
    captions = {first: about, **{name: _caption(run, name) for name in names}}
    return Viewer(captions, rival, names[0], size, layers, scales, 100 * length_px / width, label)


def _caption(run: Run, name: str) -> str:
    scores = run.methods[name]
    psnr, nrmse = (score.write(score.of(scores)) for score in (PHASE_PSNR, COMPLEX_NRMSE))
    return f"phase PSNR {psnr} dB, NRMSE {nrmse}"


def _picture(image: NDArray[np.float64], limits: Limits, colours: str, size: tuple[int, int]) -> str:
    """Return an image as a PNG in a data URI.

    Its palette is the colour map itself, so that no colour is changed; the last entry is
    the grey of pixels outside the mask.
    """
    low, high = limits
    scaled = np.clip(np.nan_to_num((image - low) / (high - low)), 0, 1).astype(np.float32)
    values: Any = Image.fromarray(scaled * (_OUTSIDE - 1)).resize(size, Image.Resampling.BOX)
    lit: Any = Image.fromarray((~np.isnan(image)).astype(np.float32)).resize(size, Image.Resampling.BOX)
    index = np.where(np.asarray(lit) > 0.5, np.rint(np.asarray(values)), _OUTSIDE).astype(np.uint8)
    palette = np.rint(255 * mpl.colormaps[colours](np.linspace(0, 1, _OUTSIDE))[:, :3]).astype(np.uint8)
    picture = Image.fromarray(index, mode="P")
    picture.putpalette([*palette.ravel().tolist(), *_GREY])
    content = io.BytesIO()
    picture.save(content, format="PNG", optimize=True)
    return data_uri(content)
