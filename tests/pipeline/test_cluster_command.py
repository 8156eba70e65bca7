"""`dose-overlap dask` runs cells elsewhere and brings their results here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from node_cells import Nodes, make_nodes
from study_copy import CELL_STAGES, PACKAGE, Completed, StudyCopy

pytestmark = pytest.mark.slow

CELLS = ["1000-dense", "1000-sparse"]


@pytest.fixture
def nodes(study: StudyCopy, tmp_path: Path) -> Nodes:
    """Return a clone's surroundings: a git remote and a remote storage that nodes reach."""
    nodes = make_nodes(study, tmp_path)
    study.git("remote", "add", "origin", str(tmp_path / "hub.git"))
    return nodes


def dask(nodes: Nodes, *arguments: str, check: bool = True) -> Completed:
    line = ["env", "PYTHONPATH=src", "python", "-m", f"{PACKAGE}.cli", "dask"]
    filters = ["--dose", "1000", "--view", "dense", "--view", "sparse"]
    return nodes.study.run(*line, "--scratch", str(nodes.scratch), *filters, *arguments, check=check)


def test_results_come_here_and_no_dataset_is_made(nodes: Nodes) -> None:
    found = dask(nodes)
    assert "2/2" in found.stderr
    assert all(name in found.stdout for name in CELLS)
    record = json.loads((nodes.study.root / ".dvc/tmp/matrix.json").read_text(encoding="utf-8"))
    assert [set(cell["stages"]) for cell in record["cells"]] == [CELL_STAGES] * 2
    nodes.assert_nothing_left()

    nodes.study.dvc("exp", "apply", "1000-sparse")
    assert {"models/refined/model.safetensors", "reports/comparison.png"} <= nodes.study.data_files()


def test_cells_that_are_here_are_not_run_again(nodes: Nodes) -> None:
    dask(nodes)
    logs = {name: (nodes.scratch / f"{name}.log").read_bytes() for name in CELLS}
    assert "executed: nothing" in dask(nodes).stderr
    assert logs == {name: (nodes.scratch / f"{name}.log").read_bytes() for name in CELLS}


def test_what_is_not_committed_is_refused(nodes: Nodes) -> None:
    nodes.study.change_params(methods__refined__width=8)
    found = dask(nodes, check=False)
    assert found.returncode == 1
    assert found.stderr.splitlines() == [
        "error: params.yaml: differs from the commit, which is all that nodes see; commit and push it"
    ]
    assert not nodes.scratch.exists()
