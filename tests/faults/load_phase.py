"""One phase of the work on a large scan: ``python -m faults.load_phase PHASE``, in the folder of the scan."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fly64_dose_overlap.config import PARAMS_FILE, Params, load_params
from fly64_dose_overlap.files.atomic import write_json_atomic
from fly64_dose_overlap.files.dataset import read_scan
from fly64_dose_overlap.pipeline import cells
from fly64_dose_overlap.pipeline.stages import base, evaluate, expose, overlap, train
from fly64_dose_overlap.scan import Scan

METHODS = ("ml", "lsqml", "rpie", "epie", "ad_poisson", "flat")
"""Names under which the same image is scored again: as many methods as a picture shows."""


def view_file(params: Params, half: str) -> Path:
    """Return the frames of a half of the cell."""
    return cells.view_file(params.dose, params.view, half)


def simulation(params: Params) -> None:
    """Make the base set and draw the counts of the whole scan."""
    base.main()
    expose.main(params.dose)


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
    train.main("network")


def refining(params: Params) -> None:
    """Prepare validation and one epoch of joint iterations, and take a few steps."""
    del params
    train.main("refined")


def image(params: Params) -> None:
    """Let the network reconstruct all frames, stitched."""
    from itertools import islice

    from fly64_dose_overlap.files.reconstruction import Reconstruction, write_reconstructions
    from fly64_dose_overlap.methods.held_out import HeldOut
    from fly64_dose_overlap.methods.registry import make_method
    from fly64_dose_overlap.methods.run import run_method

    method: Any = make_method("network", params.methods["network"])
    method.load(cells.model_file("network"))
    # The first two: what maximum likelihood makes of the image is not the network's.
    started, learned = (found for found, _ in islice(run_method(method, scan_of(params), HeldOut()), 2))
    write_reconstructions(cells.reconstruction_folder("network"), [started, learned])

    def again(name: str) -> Reconstruction:
        return replace(started, method=name, label=name, kind="iterative")

    write_reconstructions(cells.reconstruction_folder("refined"), map(again, METHODS))


def scan_of(params: Params) -> Scan:
    """Return the large half of the cell."""
    return read_scan(view_file(params, "test"))


def evaluation(params: Params) -> None:
    """Score all images, against a made-up limit."""
    from fly64_dose_overlap.scores.limit import write_limit
    from made_reconstructions import limit_of

    limit = limit_of(params.evaluate.region_threshold, scan_of(params))
    write_limit(cells.limit_file(params.view), limit)
    write_json_atomic(cells.DIAGNOSIS, {"fault": None, "sentence": "nobody looked"})
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
