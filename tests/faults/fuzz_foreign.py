"""Files of other programs, with a dataset or an attribute that is wrong, or bytes that are."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from faults.mutations import fresh_path, mutate_bytes
from fly64_dose_overlap.files.own_npz import read_user_base
from fly64_dose_overlap.study.measured import examined
from foreign_files import WITHOUT_FRAMES, WRITERS, written


@cache
def foreign_file(name: str) -> bytes:
    """Return a file of another program."""
    return written(Path("foreign-seed.h5"), name).read_bytes()


def make_foreign(rng: random.Random) -> str:
    """Write a file of another program with a dataset or an attribute that is wrong, or bytes that are."""
    path, name = fresh_path("foreign.h5"), rng.choice(sorted(WRITERS | WITHOUT_FRAMES))
    content = foreign_file(name)
    if rng.random() < 0.4:
        what, content = mutate_bytes(rng, content)
        path.write_bytes(content)
        return f"{name}: {what}"
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda key, item: names.append(key) if isinstance(item, h5py.Dataset) else None)
        chosen = rng.choice(names)
        what = rng.choice(sorted(FOREIGN_CHANGES))
        dataset: Any = file[chosen]
        value = FOREIGN_CHANGES[what](dataset[()])
        del file[chosen]
        if what == "declares too much":
            file.create_dataset(chosen, shape=(2**20, 2**20), dtype="f8", chunks=(64, 64))
        elif value is not None:
            file[chosen] = value
        if rng.random() < 0.3 and chosen in file:
            file[chosen].attrs["units"] = rng.choice(("m", "um", "furlong", "", b"\xff", 7, np.arange(3)))
    return f"{name}: {chosen} {what}"


FOREIGN_CHANGES: dict[str, Callable[[Any], Any]] = {
    "missing": lambda value: None,
    "declares too much": lambda value: None,
    "not finite": lambda value: np.full(np.shape(value), np.nan),
    "negative": lambda value: -np.ones(np.shape(value)),
    "huge": lambda value: np.full(np.shape(value), 1e300),
    "zero": lambda value: np.zeros(np.shape(value)),
    "text": lambda value: "abc",
    "empty": lambda value: np.zeros(0),
    "a number": lambda value: 3,
    "with an axis more": lambda value: np.asarray(value)[..., None],
    "with an axis less": lambda value: np.asarray(value).ravel(),
    "cut": lambda value: np.asarray(value)[: max(1, np.size(value) // 200)] if np.ndim(value) else value,
    "integers": lambda value: np.zeros(np.shape(value), np.int8),
    "complex": lambda value: np.full(np.shape(value), 1j),
}


def use_foreign() -> None:
    """Read it as `fdo.read_scan` does, and look at what was read."""
    base = read_user_base("foreign.h5", modes="all")
    if base.amplitude is not None:
        examined(base, "foreign.h5", probe_in_photons=True)
