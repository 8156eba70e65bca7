"""Studies that have run once, for all tests to look at or to copy."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from matrix_study import kill_all
from study_copy import Completed, StudyCopy, make_study


@dataclass(frozen=True)
class FirstRun:
    """A study after `dvc repro evaluate` in a fresh repository.

    Attributes
    ----------
    study : StudyCopy
        To be left as it is.
    output : Completed
        What the command printed.
    changes : list of str
        Paths that git then found changed or new.
    """

    study: StudyCopy
    output: Completed
    changes: list[str]


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    """Run the one cell of a tiny study."""
    study = make_study(tmp_path_factory.mktemp("cell"))
    output = study.dvc("repro", "evaluate")
    changes = study.changes()
    study.commit("one cell")
    return FirstRun(study, output, changes)


@pytest.fixture(scope="session")
def finished(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> StudyCopy:
    """Run all datasets of a tiny study too; to be left as it is."""
    study = first_run.study.copy_to(tmp_path_factory.mktemp("finished"))
    study.dvc("repro")
    study.commit("all datasets")
    return study


@pytest.fixture
def study(finished: StudyCopy, tmp_path: Path) -> StudyCopy:
    """Return a finished study that the test may change."""
    return finished.copy_to(tmp_path)


@pytest.fixture(scope="session")
def remote(finished: StudyCopy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds the data of the finished study."""
    folder = tmp_path_factory.mktemp("my remote")
    pushed = finished.copy_to(tmp_path_factory.mktemp("pushed"))
    pushed.use_remote(folder)
    pushed.dvc("push")
    return folder


@pytest.fixture
def fresh(finished: StudyCopy, tmp_path: Path) -> Generator[StudyCopy]:
    """Return a fresh clone with an empty cache, which knows no remote storage."""
    study = finished.clone_to(tmp_path / "my clone")
    yield study
    kill_all(study)


@pytest.fixture
def clone(fresh: StudyCopy, remote: Path) -> StudyCopy:
    """Return a fresh clone with an empty cache, which knows the remote storage."""
    fresh.use_remote(remote)
    return fresh
