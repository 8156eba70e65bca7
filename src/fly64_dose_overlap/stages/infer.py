"""Stage infer: images of the test half by the trained networks, and one of them refined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fly64_dose_overlap.config import PARAMS_FILE, load_params
from fly64_dose_overlap.data.atomic import sha256_of
from fly64_dose_overlap.data.contract import read_dataset
from fly64_dose_overlap.provenance import with_step
from fly64_dose_overlap.results.reconstruction import Kind, Reconstruction, write_reconstructions
from fly64_dose_overlap.results.repository import repository_root
from fly64_dose_overlap.results.timings import Stopwatch, Timing, record_timing
from fly64_dose_overlap.stages._cli import ParamsOption, run

NETWORK = Path("models/cell/model.safetensors")
SUPERVISED = Path("models/supervised/model.safetensors")
RESULTS = Path("reconstructions/learned")


def main(params_file: ParamsOption = PARAMS_FILE) -> None:
    """Write reconstructions/learned for the cell of `dose` and `view`.

    The network, the classical iterations that it starts from, the network's image refined
    by maximum likelihood, the supervised network, and the empty object that a method must
    beat. The truth gives the size of the grid and nothing else.
    """
    # torch takes seconds to import, which --help need not wait for.
    import numpy as np
    import torch

    from fly64_dose_overlap.networks.apply import load_imager
    from fly64_dose_overlap.networks.bundle import load_bundle, load_supervised
    from fly64_dose_overlap.networks.supervised import supervised_image
    from fly64_dose_overlap.reconstruction.held_out import HeldOut
    from fly64_dose_overlap.reconstruction.problem import Problem, load_problem
    from fly64_dose_overlap.reconstruction.refine import refine

    params = load_params(params_file)
    settings = params.infer
    torch.set_num_threads(settings.threads)
    path = Path(f"data/views/{params.dose}/{params.view}/test.npz")
    dataset = read_dataset(path)
    network, info = load_bundle(NETWORK)
    imager = load_imager(dataset, network, info, where=path, device=settings.device)
    taught, taught_info = load_supervised(SUPERVISED)
    problem = load_problem(dataset)
    timings: dict[str, Timing] = {}

    def result(
        method: str, label: str, kind: Kind, make: Callable[[], tuple[Any, list[float], dict[str, Any]]]
    ) -> Reconstruction:
        watch = Stopwatch()
        obj, loss, used = make()
        timings[method] = watch.read()
        return Reconstruction(
            method=method,
            label=label,
            kind=kind,
            obj=np.asarray(obj),
            probe=dataset.probe[None],
            positions_px=dataset.positions_px,
            loss=np.array(loss),
            settings=used,
            record=with_step(dataset.record, "infer", label, **used),
        )

    def refined() -> tuple[Any, list[float], dict[str, Any]]:
        def image(seen: Problem, fraction: float) -> torch.Tensor:
            return torch.from_numpy(imager.images(seen.counts, fraction)[0])

        held = HeldOut(settings.held_out_fraction, settings.patience, settings.seed)
        obj, course = refine(problem, image, held, settings.refine_epochs)
        used = {"epochs": course.epoch, "stop": "held-out photons", "model_sha256": sha256_of(NETWORK)}
        return obj, list(course.deviances), used

    def results() -> Iterator[Reconstruction]:
        start: list[Any] = []

        def images() -> tuple[Any, list[float], dict[str, Any]]:
            corrected, late = imager.images(imager.scan.counts, 1.0)
            start.append(late)
            return corrected, [], {"model_sha256": sha256_of(NETWORK)}

        yield result("network", "network", "learned", images)
        yield result("refined", "refined", "learned", refined)
        yield result(
            "supervised",
            "supervised",
            "learned",
            lambda: (
                supervised_image(taught, taught_info, dataset),
                [],
                {"model_sha256": sha256_of(SUPERVISED)},
            ),
        )
        yield result("group_start", "group start", "reference", lambda: (start[0], [], {}))
        yield result("flat_object", "flat object", "reference", lambda: (problem.flat_object(), [], {}))

    write_reconstructions(RESULTS, results())
    for method, timing in timings.items():
        record_timing(repository_root(Path.cwd()), sha256_of(RESULTS / f"{method}.npz"), timing)


if __name__ == "__main__":
    run(main)
