"""One phase of the work on a large scan: ``python -m faults.load_phase PHASE``, in the folder of the scan."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fly64_dose_overlap.config import PARAMS_FILE, Params, load_params
from fly64_dose_overlap.files.dataset import read_dataset
from fly64_dose_overlap.pipeline.stages import base, evaluate, infer, overlap, refine, simulate, train

METHODS = ("refined", "supervised", "map", "lsqml", "ml", "flat_object")
"""Names under which the same image is scored again: as many methods as a picture shows."""


def view_file(params: Params, half: str) -> Path:
    """Return the frames of a half of the cell."""
    return Path(f"data/views/{params.dose}/{params.view}/{half}.npz")


def simulation(params: Params) -> None:
    """Make the base set and draw the counts of the whole scan."""
    base.main()
    simulate.main(params.dose)


def views(params: Params) -> None:
    """Make a view of single frames and one of groups, and take the large half for the training."""
    for view in ("baseline", "dense"):
        overlap.main(params.dose, view)
    train_file = view_file(params, "train")
    train_file.unlink()
    os.link(view_file(params, "test"), train_file)


def training(params: Params) -> None:
    """Prepare validation and one epoch, and take a few steps."""
    del params
    train.main()


def refining(params: Params) -> None:
    """Prepare validation and one epoch of joint iterations, and take a few steps."""
    del params
    refine.main()


def image(params: Params) -> None:
    """Let the network reconstruct all frames, stitched."""
    import numpy as np
    import torch
    from fly64_dose_overlap.learning.apply import load_imager

    from fly64_dose_overlap.files.reconstruction import Kind, Reconstruction, write_reconstructions
    from fly64_dose_overlap.learning.bundle import load_bundle
    from fly64_dose_overlap.learning.mosaic import GroupStart

    torch.set_num_threads(1)
    path = view_file(params, "test")
    dataset = read_dataset(path)
    network, info = load_bundle(infer.NETWORK)
    mosaics = GroupStart(info.start_iterations)
    imager = load_imager(dataset, network, info, mosaics, where=path, device="cpu")
    learned, started = imager.images(imager.scan.counts, 1.0)

    def made(method: str, kind: Kind, obj: np.ndarray) -> Reconstruction:
        positions_px, loss = dataset.positions_px, np.zeros(0)
        return Reconstruction(method, method, kind, obj, dataset.probe[None], positions_px, loss, {}, {})

    images = [made("network", "learned", learned), made("group_start", "reference", started)]
    write_reconstructions(evaluate.RECONSTRUCTIONS[0], images)
    write_reconstructions(evaluate.RECONSTRUCTIONS[1], (made(each, "iterative", started) for each in METHODS))


def evaluation(params: Params) -> None:
    """Score all images, against a made-up limit."""
    from fly64_dose_overlap.scores.limit import write_limit
    from made_reconstructions import limit_of

    limit = limit_of(params.evaluate.region_threshold, read_dataset(view_file(params, "test")))
    write_limit(evaluate.METRICS / "limit" / f"{params.view}.json", limit)
    evaluate.main()


PHASES: dict[str, Callable[[Params], None]] = {
    "simulation": simulation,
    "views": views,
    "training input": training,
    "refining input": refining,
    "network image": image,
    "evaluation": evaluation,
}


def peak_mib() -> float:
    """Return the peak resident memory of this program, without that of the one that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(float(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def main() -> None:
    """Run a phase and print what it took."""
    start = time.process_time()
    params = load_params(PARAMS_FILE)
    PHASES[sys.argv[1]](params)
    found = {"cpu_seconds": time.process_time() - start, "mib": peak_mib()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
