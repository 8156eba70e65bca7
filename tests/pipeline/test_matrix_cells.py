"""Cells of the matrix by themselves: the plain queue, failures, edits, changed parameters."""

from __future__ import annotations

import re

import pytest
import yaml

from matrix_study import (
    JOBS,
    TWO_CELLS,
    data_made,
    executed,
    experiments,
    job_logs,
    record,
    states,
    wait_until,
)
from study_copy import CELL_STAGES, DOSES, StudyCopy

pytestmark = pytest.mark.slow


def test_the_plain_queue_makes_no_data_after_a_pull(clone: StudyCopy) -> None:
    clone.dvc("pull")
    clone.dvc("exp", "run", "--queue", "-S", "dose=10000", "-S", "view=baseline")
    # Its worker would hold a pipe open.
    clone.run("sh", "-c", "dvc queue start >../start.log 2>&1")

    def ended() -> bool:
        found = [path.read_text() for path in clone.root.glob(f"{JOBS}/*/*.json")]
        return bool(found) and all('"returncode": 0' in text for text in found)

    wait_until(ended, "job of the queue")
    wait_until(lambda: len(experiments(clone)) == 1, "its experiment")
    assert executed(job_logs(clone)) == CELL_STAGES


def test_a_failed_cell_stops_no_other(clone: StudyCopy) -> None:
    overrides = ("overlap.views.sparse.n_groups=60", "overlap.enable_oversampling=false")
    settings = [part for override in overrides for part in ("-S", override)]
    result = clone.matrix(*TWO_CELLS, *settings, check=False)
    assert result.returncode == 1
    found = {cell["view"]: cell for cell in record(clone).values()}
    assert found["baseline"]["state"] == "done"
    assert found["sparse"]["state"] == "failed"
    assert list(experiments(clone)) == [found["baseline"]["name"]]
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: matrix: 1 of 2 cells failed")
    assert f"{found['sparse']['name']} ({found['sparse']['log']})" in error
    assert "OVERSAMPLING" in (clone.root / found["sparse"]["log"]).read_text()
    assert "Traceback" not in result.stderr


def test_an_edit_of_text_goes_with_the_cells(clone: StudyCopy) -> None:
    for name in ("README.md", "params.yaml"):
        with (clone.root / name).open("a") as file:
            file.write("\n# a note\n")
    clone.matrix("--dose", "1000", "--view", "baseline")
    reference = experiments(clone)["1000-baseline"]
    assert clone.git("show", f"{reference}:README.md").endswith("# a note\n")
    assert data_made(job_logs(clone)) == set()
    assert sorted(clone.changes()) == ["README.md", "params.yaml"]


def test_a_changed_parameter_gets_a_name_of_its_own(clone: StudyCopy) -> None:
    clone.change_params(methods__refined__width=8)
    clone.matrix("--dose", "1000", "--view", "baseline")
    (name,) = experiments(clone)
    assert re.fullmatch(r"1000-baseline-[0-9a-f]{6}", name)
    assert (
        yaml.safe_load(clone.git("show", f"{experiments(clone)[name]}:params.yaml"))["methods"]["refined"][
            "width"
        ]
        == 8
    )
    clone.git("restore", "params.yaml")
    assert "1000-baseline: to run" in clone.matrix("--dry-run").stdout


def test_a_dose_beside_the_list_gets_data_of_its_own(clone: StudyCopy) -> None:
    before = (clone.root / "params.yaml").read_bytes()
    clone.matrix("--dose", "3e3", "--view", "baseline")
    (reference,) = experiments(clone).values()
    assert states(clone) == {"3000-baseline": "done"}
    assert data_made(job_logs(clone)) == {"expose@3000", "overlap@3000-baseline"}
    params = yaml.safe_load(clone.git("show", f"{reference}:params.yaml"))
    assert params["dose"] == 3000
    assert params["doses"] == [*DOSES, 3000]
    assert (clone.root / "params.yaml").read_bytes() == before
    assert clone.changes() == []
