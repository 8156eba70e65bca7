"""One reconstruction in a process of its own; `reconstruction.jobs` starts it."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import cast

from fly64_dose_overlap.config import MethodName, load_params
from fly64_dose_overlap.errors import as_refusal
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.dataset import read_dataset
from fly64_dose_overlap.files.reconstruction import write_reconstructions
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.results.repository import repository_root
from fly64_dose_overlap.results.timings import record_timing


def main(method: MethodName, data: Path, params_file: Path, folder: Path) -> None:
    """Write the results of one method on one dataset into a folder, the manifest last."""
    import torch

    from fly64_dose_overlap.methods.methods import reconstruct

    torch.set_num_threads(1)
    results = reconstruct(read_dataset(data), method, load_params(params_file).reconstruct)
    write_reconstructions(folder, [result for result, _ in results])
    root = repository_root(Path.cwd())
    for result, timing in results:
        record_timing(root, sha256_of(folder / f"{result.method}.npz"), timing)


def _end_with_parent(parent: int) -> None:
    """End this process when the one that started it is gone: nobody would take its result."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        main(cast(MethodName, sys.argv[1]), *map(Path, sys.argv[2:]))
    except Exception as error:
        refusal = as_refusal(error)
        if refusal is None:
            raise
        say(f"error: {refusal}")
        sys.exit(1)
