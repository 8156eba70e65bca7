"""What each ingredient of the networks is worth, in dB and in seconds.

    python -m benchmarks.ablation --cell 10000-dense --output docs/design/ablation.md

On the datasets of the study (`dvc pull`, or `dvc repro` of stage `overlap`). Each line trains
the cell's network with one thing changed and scores it on the test frames.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from torch import Tensor

from benchmarks.trials import chosen, scores_of, train, write_rows
from fly64_dose_overlap.config import Params, load_params
from fly64_dose_overlap.learning.corrector import CORRECTION_PLANES, Corrector

Changes = dict[str, Any]
Forward = Callable[[Corrector, Tensor], Tensor]
NO_GAINS = "no gains of bands of detail"
OF_METHOD: dict[str, dict[str, Changes]] = {
    "network": {
        "3 iterations for 6": {"iterations": 3},
        "12 iterations for 6": {"iterations": 12},
    },
    "refined": {
        "30 iterations for 60": {"iterations": 30},
        "no prior in the iterations": {"weight": 0.0},
        "coarse phase never left to the iterations": {"coarse_photons": None},
    },
}
HEAD = """# What each ingredient is worth

One thing changed at a time, one seed, scored on the test frames. Phase and amplitude PSNR in dB
(peak = the truth's range) and complex NRMSE; the difference is that of phase PSNR to the study's
own network; seconds of one core for the training. Written by
`python -m benchmarks.ablation --cell 1000-sparse --cell 10000-dense --output docs/design/ablation.md`.

| object | cell | network | change | scores | difference | seconds |
|---|---|---|---|---:|---:|---:|
"""


def without_gains(forward: Forward) -> Forward:
    """Return a forward pass after which every band of detail is taken as it is."""

    def plain(network: Corrector, planes: Tensor) -> Tensor:
        output = forward(network, planes)
        correction, gains = output[:, :CORRECTION_PLANES], output[:, CORRECTION_PLANES:]
        return torch.cat((correction, torch.zeros_like(gains)), dim=1)

    return plain


def variants(settings: Changes, name: str) -> dict[str, Changes]:
    """Return what each variant changes."""
    steps, epochs = settings["steps_per_epoch"], settings["epochs"]
    return {
        "as in the study": {},
        NO_GAINS: {},
        "scored on the counts that it sees": {"target": "same"},
        "mean absolute error of amplitudes for the likelihood": {"loss": "mae"},
        "half the width": {"width": settings["width"] // 2},
        "half the steps": {"steps_per_epoch": steps // 2},
        "one realisation for all steps": {"epochs": 1, "steps_per_epoch": steps * epochs},
        **OF_METHOD[name],
    }


def rows(params: Params, view: str, dose: int, name: str, folder: Path) -> Iterator[str]:
    """Yield a line for each variant."""
    first = (params.base.object_kind, f"{dose}-{view}", name)
    own: float | None = None
    for number, (label, changes) in enumerate(variants(params.methods[name], name).items()):
        patched = mock.patch.object(Corrector, "forward", without_gains(Corrector.forward))
        with patched if label == NO_GAINS else nullcontext():
            bundle, seconds = train(params, view, dose, name, folder / str(number), changes)
            reached = scores_of(params, view, dose, name, bundle)
        own = reached.phase if own is None else own
        cells = (*first, label, reached, f"{reached.phase - own:+.2f}", round(seconds))
        yield f"| {' | '.join(map(str, cells))} |\n"


def main(
    cell: Annotated[list[str], typer.Option(help="DOSE-VIEW; may be repeated.")],
    method: Annotated[list[str] | None, typer.Option(help="network or refined: only this one.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Also append rows here.")] = None,
) -> None:
    """Print what each ingredient is worth."""
    params = load_params()
    for each in cell:
        dose, _, view = each.partition("-")
        for name in chosen(method):
            with tempfile.TemporaryDirectory() as folder:
                write_rows(rows(params, view, int(dose), name, Path(folder)), HEAD, output)


if __name__ == "__main__":
    typer.run(main)
