"""One network for all doses, beside the networks of each dose.

    python -m benchmarks.dose_transfer --view dense

On the datasets of the study (`dvc pull`, or `dvc repro` of stage `overlap`). A network trained
on the highest dose, seeing in training from half of the lowest dose up to 60 % of the highest, is
applied to the test frames of every dose; so are the networks trained on each dose as the study
does. The one network takes `STEPS_FACTOR` times the steps, from `REALISATIONS` thinnings.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.trials import chosen, scores_of, train, write_rows
from fly64_dose_overlap.config import Params, load_params

REALISATIONS = 16
"""Epochs of the one network: each thins the photons anew, to another part of them."""
STEPS_FACTOR = 4
"""Steps of its epochs, in multiples of ``steps_per_epoch``: the range of doses is wide."""

HEAD = """# One network for all doses

Networks trained on each dose, and one trained on the highest dose for all, with 16 epochs of four times
the steps. All on the same test frames:
phase and amplitude PSNR in dB (peak = the truth's range) and complex NRMSE.
Written by `python -m benchmarks.dose_transfer --output docs/design/dose-transfer.md`.

| object | view | dose | network | of this dose | one for all | difference of phase |
|---|---|---:|---|---:|---:|---:|
"""


def rows(params: Params, view: str, name: str, folder: Path) -> Iterator[str]:
    """Yield a line for each dose."""
    lowest, *_, highest = doses = sorted(params.doses)
    for_all: dict[str, Any] = {
        "least_seen": lowest / highest / 2,
        "epochs": REALISATIONS,
        "patience": REALISATIONS,
        "steps_per_epoch": STEPS_FACTOR * params.methods[name]["steps_per_epoch"],
    }
    one, _ = train(params, view, highest, name, folder / "one", for_all)
    for dose in doses:
        own, _ = train(params, view, dose, name, folder / str(dose), {})
        reached = [scores_of(params, view, dose, name, bundle) for bundle in (own, one)]
        difference = round(reached[1].phase, 2) - round(reached[0].phase, 2)
        cells = (params.base.object_kind, view, dose, name, *reached, f"{difference:+.2f}")
        yield f"| {' | '.join(map(str, cells))} |\n"


def main(
    view: Annotated[list[str] | None, typer.Option(help="Only this view; may be repeated.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="network or refined: only this one.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Also append rows here.")] = None,
) -> None:
    """Print what a network for all doses loses against those of each dose."""
    params = load_params()
    for each in view or params.overlap.views:
        for name in chosen(method):
            with tempfile.TemporaryDirectory() as folder:
                write_rows(rows(params, each, name, Path(folder)), HEAD, output)


if __name__ == "__main__":
    typer.run(main)
