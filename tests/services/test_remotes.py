"""Data come back from each kind of remote as they were, and nothing is computed again."""

from __future__ import annotations

import pytest

from services.remotes import CELLS, READABLE, cached, checksums, log_of, queue_cells, run_queue
from study_copy import CELL_STAGES, DOSES, VIEWS, StudyCopy, stages_run

pytestmark = [
    pytest.mark.services,
    pytest.mark.parametrize("remote", READABLE, indirect=True, scope="session"),
]


def test_a_pull_restores_all_files_as_they_were(clone: StudyCopy, origin: StudyCopy) -> None:
    assert clone.data_files() == set()
    clone.dvc("pull")
    assert checksums(clone) == checksums(origin)
    # The base set, what says that there is no reference, and two halves of each dose and of its views.
    assert len(checksums(clone, "data/")) == 2 + 2 * len(DOSES) * (1 + len(VIEWS))
    assert clone.dvc("status", "--quiet", check=False).returncode == 0
    assert clone.changes() == []


def test_a_pull_can_fetch_one_dataset(clone: StudyCopy, origin: StudyCopy) -> None:
    clone.dvc("pull", "expose@1000")
    assert checksums(clone) == checksums(origin, "data/dose/1000/")
    clone.dvc("pull", "overlap@10000-dense")
    assert checksums(clone) == checksums(origin, "data/dose/1000/", "data/views/10000/dense/")


def test_queued_jobs_fetch_what_they_need_and_make_no_data(clone: StudyCopy, origin: StudyCopy) -> None:
    queue_cells(clone)
    assert run_queue(clone) == {"m-1": "Success", "m-2": "Success"}
    for experiment in ("m-1", "m-2"):
        assert stages_run(log_of(clone, experiment)) == CELL_STAGES
    # Beside their data what evaluation looks for: that there is no reference.
    needed = checksums(origin, "data/reference/", *(f"data/views/1000/{view}/" for view in CELLS))
    assert len(needed) == 5
    # The list of methods, which a cell makes itself, is the same in all cells.
    others = {digest for name, digest in checksums(origin).items() if not name.endswith("/manifest.json")}
    assert cached(clone) & others == set(needed.values())
    assert clone.data_files() == set()
    assert clone.changes() == []


def test_credentials_stay_out_of_git(clone: StudyCopy) -> None:
    assert clone.git("diff", "HEAD", "--", ".dvc/config") == ""
    assert clone.git("check-ignore", ".dvc/config.local") == ".dvc/config.local\n"
