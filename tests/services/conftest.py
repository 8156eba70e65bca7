"""A finished study, made once, for tests that need services of the scripts beside this file."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.remotes import Remote, announced, remote_named
from study_copy import StudyCopy, make_study

# The scripts beside this file start the services and name the tests' files, which are
# then collected all the same.
collect_ignore_glob = ["*.py"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "services: needs the services that tests/services/run.sh starts")


@pytest.fixture(scope="session")
def origin() -> StudyCopy:
    """Return a study with all its data, kept for later runs of pytest against the same services."""
    folder = Path(announced("STUDY"))
    study = StudyCopy(folder / "study")
    if not study.root.exists():
        study = make_study(folder)
        study.dvc("repro")
        study.commit("all datasets")
    return study


@pytest.fixture(scope="session")
def remote(request: pytest.FixtureRequest, origin: StudyCopy) -> Remote:
    """Return the remote named by the test's parameter, which holds all data of the origin."""
    chosen = remote_named(request.param)
    # Over HTTP the folder is read, and nothing written.
    writable = remote_named("folder") if request.param == "http" else chosen
    writable.use(origin)
    origin.dvc("push")
    return chosen


@pytest.fixture
def clone(origin: StudyCopy, remote: Remote, tmp_path: Path) -> StudyCopy:
    """Return a fresh clone with an empty cache, which knows the remote."""
    study = origin.clone_to(tmp_path)
    remote.use(study)
    return study
