"""How every figure is drawn and written: the same on every machine, whatever matplotlib is set to there."""

from __future__ import annotations

import base64
import io
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fly64_dose_overlap.files.atomic import atomic_path

DPI = 120


@contextmanager
def figure(width_in: float, height_in: float, settings: Mapping[str, Any]) -> Generator[Any]:
    """Yield an empty figure, drawn with matplotlib's defaults and ``settings`` until the block ends.

    A user's matplotlibrc, ``text.usetex`` and MPLBACKEND change nothing: neither the bytes,
    nor whether it can be drawn at all.
    """
    own = {"figure.constrained_layout.use": True, "svg.hashsalt": "report", **settings}
    with matplotlib.style.context(["default", own]):
        drawn: Any = Figure(figsize=(width_in, height_in), dpi=DPI)
        FigureCanvasAgg(drawn)
        yield drawn


def write_png(drawn: Any, path: Path | str) -> None:
    """Write a figure without matplotlib's version stamp, which would change the bytes."""
    with atomic_path(path) as temporary:
        drawn.savefig(temporary, format="png", metadata={"Software": None})


def data_uri(png: io.BytesIO) -> str:
    """Return a PNG file for a page that needs no other file."""
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode('ascii')}"


def svg_text(drawn: Any) -> str:
    """Return a figure as SVG without the date, which would change the bytes."""
    content = io.BytesIO()
    drawn.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue().decode()
