"""Which cells read the datasets of the working tree."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fly64_dose_overlap.config import load_params
from fly64_dose_overlap.pipeline.matrix.cells import Selection, plan_cells
from fly64_dose_overlap.pipeline.matrix.datasets import base_checksum, shares_data
from tiny_study import ROOT, write_params


def shares(tmp_path: Path, *overrides: str, dose: int = 1000, view: str = "dense") -> bool:
    tree = load_params(write_params(tmp_path))
    selection = Selection(doses=[dose], views=[view], overrides=overrides)
    (cell,) = plan_cells(selection, committed=tree, params_file=tmp_path / "params.yaml")
    return shares_data(cell, tree)


@pytest.mark.parametrize("view", ["baseline", "dense", "sparse"])
def test_a_plain_cell_reads_the_datasets_that_are_there(tmp_path: Path, view: str) -> None:
    assert shares(tmp_path, view=view)


@pytest.mark.parametrize(
    "override",
    [
        "train.width=8",
        "train.seed=43",
        "evaluate.region_threshold=0.2",
        "overlap.views.sparse.s_img=0.2",
        "base.seed=42",
    ],
)
def test_these_overrides_leave_its_data_alone(tmp_path: Path, override: str) -> None:
    assert shares(tmp_path, override)


@pytest.mark.parametrize(
    "override",
    [
        "base.seed=43",
        "simulate.seed=43",
        "overlap.seed_grouping=1",
        "overlap.enable_oversampling=false",
        "overlap.views.dense.s_img=0.5",
    ],
)
def test_these_overrides_change_its_data(tmp_path: Path, override: str) -> None:
    assert not shares(tmp_path, override)


def test_a_dose_beside_the_list_has_data_of_its_own(tmp_path: Path) -> None:
    assert not shares(tmp_path, dose=3000)


def test_the_checksum_of_the_base_set() -> None:
    text = (ROOT / "dvc.lock").read_text(encoding="utf-8")
    outputs = yaml.safe_load(text)["stages"]["base"]["outs"]
    assert base_checksum(text) == outputs[0]["md5"]
    assert len(base_checksum(text)) == 32


@pytest.mark.parametrize(
    "text", ["", "schema: '2.0'\n", "schema: '2.0'\nstages: {}\n", "stages: {base: {cmd: make}}\n"]
)
def test_a_lock_without_a_base_set_has_no_checksum(text: str) -> None:
    assert base_checksum(text) == ""
