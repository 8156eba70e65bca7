"""Reconstruct measured frames, outside the study's pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from fly64_dose_overlap.config import PARAMS_FILE, MethodName, load_params
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import write_json_atomic
from fly64_dose_overlap.files.reconstruction import Reconstruction, write_reconstructions
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, run
from fly64_dose_overlap.provenance import with_step

OUTPUT = Path("reconstructions/measured")


def main(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="NPZ with frames, positions and probe.")],
    method: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Method, of reconstruct.epochs; may be repeated.")
    ] = None,
    pixel_nm: Annotated[
        float | None, typer.Option(min=1e-3, help="Object pixel, for resolutions in nanometres.")
    ] = None,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where results go.")] = OUTPUT,
    params_file: ParamsOption = PARAMS_FILE,
) -> None:
    """Reconstruct measured frames, with all probe modes, and say how far the result can be trusted.

    There is no ground truth: the Fourier R-factor tells how well the frames are fitted, and
    the Fourier ring correlation between reconstructions of two halves of the data how far
    these agree. Methods run for their reconstruct.epochs; ml is the default.
    """
    import numpy as np
    import torch

    from fly64_dose_overlap.methods.measured import (
        agreement,
        describe,
        photons_per_frame,
        read_measurement,
    )
    from fly64_dose_overlap.methods.methods import LABELS, solver_of
    from fly64_dose_overlap.report.picture import frc_picture

    params = load_params(params_file)
    methods = cast(list[MethodName], method) or ["ml"]
    unset = [name for name in methods if name not in params.reconstruct.epochs or name == "map"]
    if unset:
        known = ", ".join(name for name in params.reconstruct.epochs if name != "map")
        raise StudyError("--method", f"must be one of {known}, got {', '.join(unset)}")
    torch.set_num_threads(params.infer.threads)
    measurement = read_measurement(source, params.evaluate.region_threshold)
    problem, seed = measurement.problem, params.reconstruct.seed
    scores = {"frames": len(problem.counts), "modes": len(problem.probe), **photons_per_frame(problem)}
    results: list[Reconstruction] = []
    found_by_method: dict[str, dict[str, Any]] = {}
    for name in methods:
        epochs = params.reconstruct.epochs[name]
        found = agreement(measurement, solver_of(name, epochs), epochs=epochs, seed=seed, label=LABELS[name])
        found_by_method[name] = describe(found, pixel_nm)
        frc_picture(output / f"{name}-frc.png", found.frc, title=f"{source.name}, {LABELS[name]}: halves")
        settings = {"epochs": epochs, "seed": seed}
        results.append(
            Reconstruction(
                method=name,
                label=LABELS[name],
                kind="iterative",
                obj=found.obj.numpy().astype(np.complex64),
                probe=problem.probe.numpy(),
                positions_px=problem.positions_px,
                loss=np.zeros(0),
                settings=settings,
                record=with_step(measurement.record, "measured", LABELS[name], **settings),
            )
        )
        print(", ".join(f"{key} {value:.4g}" for key, value in found_by_method[name].items() if value))
    write_reconstructions(output, results)
    write_json_atomic(output / "scores.json", {"data": scores, "methods": found_by_method})


if __name__ == "__main__":
    run(main)
