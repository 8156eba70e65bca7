"""The repository's root, and names for work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import factories
from fly64_dose_overlap.results.repository import repository_root, work_key


@pytest.mark.parametrize(
    "inside", [".", "data/views", ".dvc/tmp/exps/standalone/tmpabc", ".dvc/tmp/exps/temp/x/src"]
)
def test_the_repository_is_found_from_inside_also_of_its_temporary_copies(
    tmp_path: Path, inside: str
) -> None:
    (tmp_path / ".dvc").mkdir()
    start = tmp_path / inside
    start.mkdir(parents=True, exist_ok=True)
    assert repository_root(start) == tmp_path.resolve()
    if "exps" in inside:
        (tmp_path / ".dvc/tmp/exps/standalone/tmpabc/.dvc").mkdir(parents=True, exist_ok=True)
        assert repository_root(start) == tmp_path.resolve()


def test_without_a_repository_it_is_the_start(tmp_path: Path) -> None:
    assert repository_root(tmp_path) == tmp_path.resolve()


def test_a_key_follows_everything_that_it_is_made_of() -> None:
    key = work_key({"a": 1, "b": 2}, "digest", {"physics": "0" * 64})
    assert key == work_key({"b": 2, "a": 1}, "digest", {"physics": "0" * 64})
    assert len(key) == 20
    assert set(key) <= set("0123456789abcdef")
    others = [
        work_key({"a": 1, "b": 3}, "digest", {"physics": "0" * 64}),
        work_key({"a": 1, "b": 2}, "other", {"physics": "0" * 64}),
        work_key({"a": 1, "b": 2}, "digest", {"physics": "1" * 64}),
        work_key({"a": 1, "b": 2}, "digest"),
    ]
    assert len({key, *others}) == 5


def test_a_key_needs_no_torch() -> None:
    code = "import sys; from fly64_dose_overlap.results.repository import work_key; "
    code += "work_key('physics'); sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(factories.ROOT / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
