"""The repository's root, and names for work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fly64_dose_overlap.results import repository

import factories
from fly64_dose_overlap.pipeline.repository import repository_root, work_key


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


def write_package(root: Path, text: str, name: str = "model.py") -> Path:
    (root / "physics").mkdir(parents=True)
    (root / "physics" / name).write_text(text)
    (root / "seeding.py").write_text("seeds")
    return root


def test_a_key_follows_settings_files_code_and_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = [
        write_package(tmp_path / "a", "fft"),
        write_package(tmp_path / "b", "fft, mended"),
        write_package(tmp_path / "c", "fft", name="other.py"),
    ]
    monkeypatch.setattr(repository, "PACKAGE", packages[0])
    code = ("physics", "seeding.py")
    key = work_key({"a": 1, "b": 2}, "digest", code=code)
    assert key == work_key({"b": 2, "a": 1}, "digest", code=code)
    assert len(key) == 20
    assert set(key) <= set("0123456789abcdef")
    others = [work_key({"a": 1, "b": 3}, "digest", code=code), work_key({"a": 1, "b": 2}, "other", code=code)]
    others.append(work_key({"a": 1, "b": 2}, "digest", code=code[:1]))
    for package in packages[1:]:
        monkeypatch.setattr(repository, "PACKAGE", package)
        others.append(work_key({"a": 1, "b": 2}, "digest", code=code))
    monkeypatch.setattr(repository, "PACKAGE", packages[0])
    monkeypatch.setattr(repository, "version", lambda name: f"{name} 0.1")
    others.append(work_key({"a": 1, "b": 2}, "digest", code=code))
    assert len({key, *others}) == 7


def test_code_that_does_not_exist_is_a_defect() -> None:
    with pytest.raises(FileNotFoundError):
        work_key(code=("phisics",))


def test_a_key_needs_no_torch() -> None:
    code = "import sys; from fly64_dose_overlap.pipeline.repository import work_key; "
    code += "work_key(code=('physics',)); sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(factories.ROOT / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
