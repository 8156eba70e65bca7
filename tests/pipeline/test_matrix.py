"""The matrix by one command: nine cells, no dataset made, compared, applied and shared."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from matrix_study import (
    CELLS,
    cached,
    data_made,
    data_outputs,
    executed,
    experiments,
    job_logs,
    kill_all,
    record,
)
from study_copy import CELL_STAGES, DOSES, PACKAGE, VIEWS, Completed, StudyCopy

pytestmark = pytest.mark.slow

MODEL = "models/refined/model.safetensors"
SHOW = (
    "exp show --csv --hide-workspace --drop .* "
    "--keep ^(Experiment|State|dose|view|psnr|ssim|nrmse|psnr_ml|psnr_flat_object)$"
)


@dataclass(frozen=True)
class NineCells:
    """A fresh clone in which the matrix ran twice; to be left as it is."""

    study: StudyCopy
    first: Completed
    first_record: dict[str, dict[str, Any]]
    cache: set[str]
    second: Completed
    second_record: dict[str, dict[str, Any]]
    logs_between: str


@pytest.fixture(scope="module")
def nine(finished: StudyCopy, remote: Path, tmp_path_factory: pytest.TempPathFactory) -> NineCells:
    study = finished.clone_to(tmp_path_factory.mktemp("my clone"))
    study.use_remote(remote)
    try:
        first = study.matrix()
        first_record, cache, logs = record(study), cached(study), job_logs(study)
        second = study.matrix()
        return NineCells(study, first, first_record, cache, second, record(study), logs)
    finally:
        kill_all(study)


def test_nine_cells_run_and_no_dataset_is_made(nine: NineCells) -> None:
    assert sorted(experiments(nine.study)) == sorted(CELLS)
    assert list(nine.first_record) == CELLS
    assert {cell["state"] for cell in nine.first_record.values()} == {"done"}
    for name, cell in nine.first_record.items():
        log = (nine.study.root / cell["log"]).read_text()
        assert set(cell["stages"]) == executed(log)
        assert set(cell["stages"]) <= CELL_STAGES
        if name != "10000-dense":  # the cell of the commit itself
            assert sorted(cell["stages"]) == sorted(CELL_STAGES)
    assert executed(nine.study.dvc("queue", "logs", "1000-sparse").stdout) == CELL_STAGES
    assert data_made(nine.logs_between) == set()
    assert "datasets made: none" in nine.first.stderr


def test_the_report_shows_all_cells(nine: NineCells, tmp_path: Path) -> None:
    line = ["env", "PYTHONPATH=src", "python", "-m", f"{PACKAGE}.cli", "report", "--output", str(tmp_path)]
    found = nine.study.run(*line)
    assert "complete: 9 of 9 cells" in found.stderr
    assert found.stdout == f"report: {tmp_path / 'index.html'}\n"
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert {(row["dose"], row["view"]) for row in rows} == {
        (str(dose), view) for dose in DOSES for view in VIEWS
    }
    assert {"refined", "ML", "ML held-out", "limit"} <= {row["method"] for row in rows}


def test_only_the_datasets_of_the_cells_are_fetched(nine: NineCells) -> None:
    checksums = data_outputs(nine.study.lock())
    views = {value for path, value in checksums.items() if path.startswith("data/views/")}
    # Beside its data what evaluation looks for: that a simulated study has no reference.
    reference = {value for path, value in checksums.items() if path == "data/reference"}
    # Methods are told the probe of a file, which is that of the base set.
    reference |= {value for path, value in checksums.items() if path == "data/base/base.npz"}
    others = set(checksums.values()) - views - reference
    assert len(views) == 18
    assert len(reference) == 2
    assert len(others) == 6
    assert views | reference <= nine.cache
    assert not others & nine.cache


def test_experiments_have_the_datasets_of_the_origin(nine: NineCells, finished: StudyCopy) -> None:
    expected = data_outputs(finished.lock())
    for reference in experiments(nine.study).values():
        lock = yaml.safe_load(nine.study.git("show", f"{reference}:dvc.lock"))["stages"]
        assert data_outputs(lock) == expected


def test_the_table_has_a_row_per_cell(nine: NineCells) -> None:
    rows = [
        line for line in nine.first.stdout.splitlines() if re.search(r"\b10+-(baseline|dense|sparse)\b", line)
    ]
    assert [re.findall(r"10+-\w+", row)[0] for row in rows] == CELLS
    assert all(re.search(r"\bdone\b.*\d\.\d{4}\b", row) for row in rows)
    for title in ("flat object", "refined", "ML", "best pty-chi", "limit"):
        assert title in nine.first.stdout


def test_a_second_matrix_runs_nothing(nine: NineCells) -> None:
    assert {cell["state"] for cell in nine.second_record.values()} == {"done before"}
    assert all(cell["stages"] == [] for cell in nine.second_record.values())
    assert job_logs(nine.study) == nine.logs_between
    assert "executed: nothing" in nine.second.stderr
    assert nine.second.stdout.count("done before") == len(CELLS)


def test_dvc_compares_the_cells(nine: NineCells) -> None:
    table = list(csv.DictReader(io.StringIO(nine.study.dvc(*SHOW.split()).stdout)))
    columns = {"Experiment", "State", "dose", "view", "psnr", "ssim", "nrmse"}
    assert set(table[0]) == columns | {"psnr_ml", "psnr_flat_object"}
    good = {row["Experiment"]: row for row in table if row["State"] == "Success"}
    assert sorted(good) == sorted(CELLS)
    assert {(row["dose"], row["view"]) for row in good.values()} == {
        (str(d), v) for d in DOSES for v in VIEWS
    }
    assert all(float(row["psnr"]) > 0 for row in good.values())
    nine.study.dvc("plots", "diff", "1000-sparse", "100000-dense")
    page = (nine.study.root / "dvc_plots/index.html").read_text()
    assert "1000-sparse" in page
    assert "100000-dense" in page


def test_an_experiment_is_applied_and_shared(nine: NineCells, remote: Path, tmp_path: Path) -> None:
    sender = nine.study.copy_to(tmp_path)
    # An applied experiment comes with every dataset, of which the matrix fetched its own only.
    sender.dvc("fetch")
    sender.dvc("exp", "apply", "1000-sparse")
    for name in (MODEL, "reports/comparison.png", "reports/frc.png"):
        assert (sender.root / name).stat().st_size > 0
    assert sender.params()["dose"] == 1000
    assert sender.params()["view"] == "sparse"
    bare = tmp_path / "shared.git"
    sender.git("init", "--quiet", "--bare", "--initial-branch", "main", str(bare))
    sender.git("remote", "add", "shared", str(bare))
    sender.git("push", "--quiet", "shared", "HEAD:refs/heads/main")
    sender.dvc("exp", "push", "shared", "1000-sparse")

    receiver = StudyCopy(tmp_path / "other" / "study")
    sender.git("clone", "--quiet", str(bare), str(receiver.root))
    receiver.use_remote(remote)
    receiver.dvc("exp", "pull", "origin", "1000-sparse")
    receiver.dvc("exp", "apply", "1000-sparse")
    assert (receiver.root / MODEL).read_bytes() == (sender.root / MODEL).read_bytes()
