"""Files appear whole or not at all, on a full disk and after a kill too."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import made_reconstructions
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files import atomic
from fly64_dose_overlap.files.atomic import atomic_path, write_json_atomic, write_text_atomic
from fly64_dose_overlap.files.npz_writer import write_npz
from fly64_dose_overlap.files.product import Optics, write_product

MANY = 100_000


@contextmanager
def file_size_limit(size: int) -> Generator[None]:
    """Have the system refuse files beyond a size, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_noise(path: Path) -> None:
    write_npz(path, {"noise": np.random.default_rng(1).normal(size=MANY)})


def write_large_product(path: Path) -> None:
    noisy = made_reconstructions.reconstructions()[1]
    write_product(path, noisy, Optics(pixel_m=1e-8, photon_energy_ev=8e3, detector_distance_m=1.0))


WRITERS: dict[str, Callable[[Path], None]] = {
    "text": lambda path: write_text_atomic(path, "x" * MANY),
    "json": lambda path: write_json_atomic(path, list(range(MANY))),
    "npz": write_noise,
    "product": write_large_product,
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_file_that_cannot_grow_is_refused_in_one_line(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    path = tmp_path / "result"
    path.write_text("old")
    wanted = r"result: cannot be written \(File too large, [\d.]+ MiB free\); raise the limit .*ulimit -f"
    with file_size_limit(20_000), pytest.raises(StudyError, match=wanted):
        write(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_on_the_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    rename, synchronise = os.replace, os.fsync

    def noting_sync(descriptor: int) -> None:
        events.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).suffix or 'folder'}")
        synchronise(descriptor)

    def noting_rename(source: Any, target: Any) -> None:
        events.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(os, "replace", noting_rename)
    write_text_atomic(tmp_path / "a.txt", "x")
    assert events == ["sync .txt", "rename", "sync folder"]


def test_what_a_kill_left_goes_once_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    killed, busy, other = (
        tmp_path / f".{name}.tmp.txt" for name in ("a.00000000", "a.11111111", "ab.22222222")
    )
    for leftover in (killed, busy, other):
        leftover.touch()
    long_ago = time.time() - atomic.LEFTOVER_AGE_S - 1
    for leftover in (killed, other):
        os.utime(leftover, (long_ago, long_ago))
    with atomic_path(path) as temporary:
        temporary.write_text("x")
    assert sorted(tmp_path.iterdir()) == sorted([path, busy, other])
