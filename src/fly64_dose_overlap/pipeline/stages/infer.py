"""Stage infer: images of the test half by the trained networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fly64_dose_overlap.config import PARAMS_FILE, InferParams, load_params
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.dataset import Dataset, read_dataset
from fly64_dose_overlap.files.product import write_products
from fly64_dose_overlap.files.reconstruction import Kind, Reconstruction, write_reconstructions
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, run
from fly64_dose_overlap.provenance import with_step
from fly64_dose_overlap.results.repository import repository_root
from fly64_dose_overlap.results.timings import Stopwatch, Timing, record_timing

NETWORK = Path("models/cell/model.safetensors")
REFINER = Path("models/refiner/model.safetensors")
SUPERVISED = Path("models/supervised/model.safetensors")
RESULTS = Path("reconstructions/learned")

Made = tuple[Any, list[float], dict[str, Any]]
"""Object (y, x), loss by iteration, settings."""


def main(params_file: ParamsOption = PARAMS_FILE) -> None:
    """Write reconstructions/learned for the cell of `dose` and `view`.

    The network, its image taken on by maximum likelihood, joint iterations refined by a
    network, the supervised network, the classical iterations that the first network starts
    from, and the empty object that a method must beat. The truth gives the size of the grid and nothing else.
    """
    # torch takes seconds to import, which --help need not wait for.
    import torch

    params = load_params(params_file)
    torch.set_num_threads(params.infer.threads)
    path = Path(f"data/views/{params.dose}/{params.view}/test.npz")
    dataset = read_dataset(path)
    timings: dict[str, Timing] = {}

    def results() -> Iterator[Reconstruction]:
        for method, label, kind, make in _methods(dataset, path, params.infer):
            watch = Stopwatch()
            made = make()
            timings[method] = watch.read()
            yield _reconstruction(method, label, kind, made, dataset)

    write_reconstructions(RESULTS, results())
    write_products(RESULTS)
    for method, timing in timings.items():
        record_timing(repository_root(Path.cwd()), sha256_of(RESULTS / f"{method}.npz"), timing)


def _methods(
    dataset: Dataset, path: Path, settings: InferParams
) -> list[tuple[str, str, Kind, Callable[[], Made]]]:
    """Return short name, name and kind of each method, and what makes its image."""
    import torch

    from fly64_dose_overlap.learning.apply import load_imager
    from fly64_dose_overlap.learning.bundle import load_bundle, load_supervised
    from fly64_dose_overlap.learning.mosaic import GroupStart
    from fly64_dose_overlap.learning.supervised import supervised_image
    from fly64_dose_overlap.methods.held_out import HeldOut
    from fly64_dose_overlap.methods.joint import JointStart
    from fly64_dose_overlap.methods.problem import Problem, load_problem
    from fly64_dose_overlap.methods.refine import refine

    network, info = load_bundle(NETWORK)
    mosaics = GroupStart(info.start_iterations)
    imager = load_imager(dataset, network, info, mosaics, where=path, device=settings.device)
    refining, refining_info = load_bundle(REFINER, "joint")
    joint = JointStart(refining_info.start_iterations, refining_info.start_weight)
    refiner = load_imager(dataset, refining, refining_info, joint, where=path, device=settings.device)
    taught, taught_info = load_supervised(SUPERVISED)
    problem = load_problem(dataset)
    own_model = {"model_sha256": sha256_of(NETWORK)}

    def image(seen: Problem, fraction: float) -> torch.Tensor:
        return torch.from_numpy(imager.images(seen.counts, fraction)[0])

    def likelihood() -> Made:
        held = HeldOut(settings.held_out_fraction, settings.patience, settings.seed)
        obj, iterations, deviances = refine(problem, image, held, settings.likelihood_epochs)
        used = {"epochs": iterations, "stop": "held-out photons", **own_model}
        return obj.numpy(), list(deviances), used

    def refined() -> Made:
        return refiner.images(problem.counts, 1.0)[0], [], {"model_sha256": sha256_of(REFINER)}

    def supervised() -> Made:
        return supervised_image(taught, taught_info, dataset), [], {"model_sha256": sha256_of(SUPERVISED)}

    return [
        ("network", "network", "learned", lambda: (imager.images(problem.counts, 1.0)[0], [], own_model)),
        ("network_ml", "network + ML", "learned", likelihood),
        ("refined", "refined", "learned", refined),
        ("supervised", "supervised", "learned", supervised),
        ("group_start", "group start", "reference", lambda: (imager.images(problem.counts, 1.0)[1], [], {})),
        ("flat_object", "flat object", "reference", lambda: (problem.flat_object().numpy(), [], {})),
    ]


def _reconstruction(method: str, label: str, kind: Kind, made: Made, dataset: Dataset) -> Reconstruction:
    import numpy as np

    obj, loss, settings = made
    return Reconstruction(
        method=method,
        label=label,
        kind=kind,
        obj=obj,
        probe=dataset.probe[None],
        positions_px=dataset.positions_px,
        loss=np.array(loss),
        settings=settings,
        record=with_step(dataset.record, "infer", label, **settings),
    )


if __name__ == "__main__":
    run(main)
