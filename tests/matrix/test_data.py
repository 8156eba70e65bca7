"""Which cells read the datasets of the working tree, as dvc.yaml says, and what results of dvc.lock."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import yaml
from dvc.repo import Repo

from fly64_dose_overlap.config import load_params
from fly64_dose_overlap.pipeline.matrix.data import recorded_results, shares_data
from fly64_dose_overlap.pipeline.matrix.history import base_checksum
from fly64_dose_overlap.pipeline.matrix.plan import Selection, plan
from tiny_study import ROOT


@pytest.fixture(scope="module")
def repo() -> Generator[Repo]:
    with Repo(str(ROOT)) as repo:
        yield repo


def shares(repo: Repo, *overrides: str, dose: int = 1000, view: str = "dense") -> bool:
    file = ROOT / "params.yaml"
    tree = load_params(file)
    selection = Selection(doses=[dose], views=[view], overrides=overrides)
    (experiment,) = plan(selection, committed=tree, params_file=file)
    return shares_data(repo, experiment, tree)


@pytest.mark.parametrize("view", ["baseline", "dense", "sparse"])
def test_a_plain_cell_reads_the_datasets_that_are_there(repo: Repo, view: str) -> None:
    assert shares(repo, view=view)


@pytest.mark.parametrize(
    "override",
    [
        "calibration.defocus_error_um=5.0",
        "methods.refined.width=8",
        "seed=43",
        "evaluate.region_threshold=0.2",
        "overlap.views.sparse.s_img=0.2",
        "base.seed=42",
    ],
)
def test_these_overrides_leave_its_data_alone(repo: Repo, override: str) -> None:
    assert shares(repo, override)


@pytest.mark.parametrize(
    "override",
    [
        "base.seed=43",
        "expose.seed=43",
        "overlap.seed_grouping=1",
        "overlap.enable_oversampling=false",
        "overlap.views.dense.s_img=0.5",
    ],
)
def test_these_overrides_change_its_data(repo: Repo, override: str) -> None:
    assert not shares(repo, override)


def test_a_dose_beside_the_list_has_data_of_its_own(repo: Repo) -> None:
    assert not shares(repo, dose=3000)


@pytest.mark.parametrize(
    ("override", "others"),
    [("", set()), ("methods.map.epochs=7", {"map"}), ("seed=43", {"refined"}), ("base.seed=43", None)],
)
def test_results_of_the_lock_are_those_of_equal_parameters(
    repo: Repo, override: str, others: set[str] | None
) -> None:
    file = ROOT / "params.yaml"
    tree = load_params(file)
    selection = Selection(doses=[tree.dose], overrides=[override] if override else [])
    for each in plan(selection, committed=tree, params_file=file):
        own = {*tree.learned, *tree.iterative} - others if others is not None else set()
        expected = own if each.cell.view == tree.view else set()
        assert {path.partition("/")[2] for path in recorded_results(repo, each)} == expected


def test_the_checksum_of_the_base_set() -> None:
    text = (ROOT / "dvc.lock").read_text(encoding="utf-8")
    outputs = yaml.safe_load(text)["stages"]["base"]["outs"]
    assert base_checksum(text) == outputs[0]["md5"]
    assert len(base_checksum(text)) == 32


@pytest.mark.parametrize(
    "text", ["schema: '2.0'\n", "schema: '2.0'\nstages: {}\n", "stages: {base: {cmd: make}}\n"]
)
def test_a_lock_without_a_base_set_has_no_checksum(text: str) -> None:
    assert base_checksum(text) == ""
