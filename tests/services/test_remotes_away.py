"""With the remote away, nothing is made again and nothing is left half done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.remotes import READABLE, cached, checksums, log_of, queue_cells, remote_named, run_queue
from study_copy import StudyCopy, stages_run

pytestmark = [pytest.mark.services, pytest.mark.parametrize("name", READABLE)]

MISSING = r"Checkout failed for following targets:\n(data|metrics|models|reports)/"
MESSAGES = {
    "folder": MISSING,
    "ssh": "failed to connect to ssh .*Connect call failed",
    "s3": "failed to connect to s3 .*Could not connect to the endpoint URL",
    "webdav": "Connection refused",
    "http": MISSING,
}
"""What DVC says in a pull; without an answer it takes files of a folder or a web server as missing."""


@pytest.fixture
def cut_off(origin: StudyCopy, name: str, tmp_path: Path) -> StudyCopy:
    """Return a fresh clone with an empty cache, whose remote does not answer."""
    study = origin.clone_to(tmp_path)
    remote_named(name).use(study)
    return study


def test_a_pull_says_so(cut_off: StudyCopy, origin: StudyCopy, name: str) -> None:
    pulled = cut_off.dvc("pull", check=False)
    assert pulled.returncode != 0
    assert re.search(f"ERROR: .*{MESSAGES[name]}", pulled.stderr), pulled.stderr
    assert_nothing_there(cut_off, origin)


def test_queued_jobs_fail_and_make_nothing(cut_off: StudyCopy, origin: StudyCopy, name: str) -> None:
    queue_cells(cut_off)
    assert run_queue(cut_off) == {"m-1": "Failed", "m-2": "Failed"}
    for experiment in ("m-1", "m-2"):
        log = log_of(cut_off, experiment)
        assert stages_run(log) <= {"check"}
        assert "ERROR: " in log.stdout
    assert_nothing_there(cut_off, origin)


def assert_nothing_there(study: StudyCopy, origin: StudyCopy) -> None:
    assert study.data_files() == set()
    assert cached(study) & set(checksums(origin).values()) == set()
    assert study.changes() == []
