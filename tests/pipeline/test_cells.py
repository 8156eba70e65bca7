"""The cells of the study, their files, and the choice among them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fly64_dose_overlap.config import Params, load_params
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.cells import HALVES, Cell, cells, choose, limit_file, overlap_metrics
from tiny_study import write_params


@pytest.fixture
def params(tmp_path: Path) -> Params:
    return load_params(write_params(tmp_path, dose=1000, doses=[10000, 1000]))


def test_doses_ascend_and_each_has_every_view_and_seed(params: Params) -> None:
    found = [(cell.dose, cell.view, cell.seed) for cell in cells(params, seeds=2)]
    views = ["baseline", "dense", "sparse"]
    assert found == [(dose, view, seed) for dose in (1000, 10000) for view in views for seed in (42, 43)]
    assert [cell.gridsize for cell in cells(params)] == [1, 2, 2] * 2


def test_further_doses_take_their_place(params: Params) -> None:
    doses = [cell.dose for cell in cells(params, doses=[3000, 1000])]
    assert doses == [1000] * 3 + [3000] * 3 + [10000] * 3


def test_a_cell_knows_its_files() -> None:
    cell = Cell(1000, "dense", 42, 2)
    assert [cell.data(half).as_posix() for half in HALVES] == [
        "data/views/1000/dense/train.npz",
        "data/views/1000/dense/test.npz",
    ]
    assert overlap_metrics(cell.dose, cell.view).as_posix() == "metrics/overlap/1000-dense.json"
    assert limit_file(cell.view).as_posix() == "metrics/limit/dense.json"


def test_one_filter_serves_every_attribute(params: Params) -> None:
    everything = cells(params, seeds=2)
    assert choose(everything) == everything
    assert choose(everything, dose=[], view=()) == everything
    (only,) = choose(everything, dose=[1000], view=["dense"], seed=[43])
    assert only == Cell(1000, "dense", 43, 2)
    assert {cell.view for cell in choose(everything, gridsize=[2])} == {"dense", "sparse"}


@pytest.mark.parametrize(
    ("attribute", "values", "message"),
    [
        ("dose", [3000], r"^--dose: 3000 is not among 1000, 10000$"),
        ("view", ["thin", "thick"], r"^--view: thick, thin is not among baseline, dense, sparse$"),
        ("seed", [1], r"^--seed: 1 is not among 42$"),
    ],
)
def test_a_value_that_no_cell_has_is_refused_with_the_choices(
    params: Params, attribute: str, values: list[object], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        choose(cells(params), **{attribute: values})


def test_filters_that_leave_nothing_are_refused(params: Params) -> None:
    with pytest.raises(
        StudyError, match=r"^cells: none matches all filters; leave out --view or --gridsize$"
    ):
        choose(cells(params), view=["baseline"], gridsize=[2])


def test_cells_need_neither_torch_nor_dvc() -> None:
    code = "import sys, fly64_dose_overlap.pipeline.cells; sys.exit(bool({'torch', 'dvc'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
