"""An edit runs what depends on it and nothing else; experiments are edits with a name."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from study_copy import CELL_STAGES, DOSES, RESULTS, StudyCopy, stages_run

pytestmark = pytest.mark.slow

SPARSE_VIEWS = {f"overlap@{dose}-sparse" for dose in DOSES}
LIMITS = {f"limit@{view}" for view in ("baseline", "dense", "sparse")}
LOSS = "val.loss"
"""As `dvc exp show` calls it, where one method is trained."""
TABLE = f"^(Experiment|State|dose|view|{LOSS}|psnr|ssim)$"
REFUSED = [
    ("dose=-1", "error: params.yaml: dose: input should be greater than or equal to 10, got -1"),
    (
        "dose=1e3",
        "error: params.yaml: dose must be a whole number of photons per frame, got 1000.0; write 1000",
    ),
    ("dose=abc", "error: params.yaml: dose must be a whole number of photons per frame, got 'abc'"),
    ("base.step_px=-1.0", "error: params.yaml: base.step_px: input should be greater than 0, got -1.0"),
    ("view=foo", "error: params.yaml: view foo is not among overlap.views ['baseline', 'dense', 'sparse']"),
    (
        "methods.refined.learning_rate=nan",
        "error: params.yaml: methods.refined: learning_rate: input should be a finite number, got nan",
    ),
]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"methods__refined__steps_per_epoch": 4}, CELL_STAGES - {"diagnose", "reconstruct@ml"}),
        ({"overlap__views__sparse__s_img": 0.25}, {"check", *SPARSE_VIEWS, "limit@sparse"}),
        ({"evaluate__region_threshold": 0.2}, {"check", *LIMITS, "evaluate"}),
    ],
    ids=["train", "sparse", "evaluate"],
)
def test_an_edit_runs_what_depends_on_it(
    study: StudyCopy, changes: dict[str, Any], expected: set[str]
) -> None:
    study.change_params(**changes)
    assert stages_run(study.dvc("repro")) == expected
    assert stages_run(study.dvc("repro")) == set()


def test_a_method_added_runs_alone(study: StudyCopy) -> None:
    content = study.params()
    content["methods"]["raar"] = {"epochs": 2, "beta": 0.6}
    content["iterative"].append("raar")
    (study.root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    assert stages_run(study.dvc("repro")) == {"check", "reconstruct@raar", "evaluate"}


def test_code_of_a_method_changed_runs_it_alone_and_a_picture_none(study: StudyCopy) -> None:
    source = study.root / "src/fly64_dose_overlap"
    for file, expected in (
        ("methods/ml.py", {"check", "reconstruct@ml", "evaluate"}),
        ("report/picture.py", {"check", "evaluate"}),
    ):
        path = source / file
        path.write_text(path.read_text(encoding="utf-8") + "\n# Nothing new.\n", encoding="utf-8")
        # The result is the same, so that what comes after may be spared.
        found = stages_run(study.dvc("repro"))
        assert found <= expected
        assert found >= expected - {"evaluate"}


def test_a_comment_in_the_parameters_runs_nothing(study: StudyCopy) -> None:
    with (study.root / "params.yaml").open("a", encoding="utf-8") as file:
        file.write("# nothing\n")
    assert stages_run(study.dvc("repro")) == set()


def test_experiments_run_only_what_they_must_and_compare_in_one_table(study: StudyCopy) -> None:
    other_cell = study.dvc("exp", "run", "--name", "cell", "-S", "dose=1000", "-S", "view=sparse")
    assert stages_run(other_cell) == CELL_STAGES
    assert [path for path in study.changes() if not path.startswith((*RESULTS, "params.yaml"))] == []
    study.git("checkout", "--quiet", ".")
    other_loss = study.dvc("exp", "run", "--name", "mae", "-S", "methods.refined.loss=mae")
    assert stages_run(other_loss) == CELL_STAGES - {"diagnose", "reconstruct@ml"}

    columns = ["--hide-workspace", "--drop", ".*", "--keep", TABLE]
    found = study.dvc("exp", "show", "--csv", *columns).stdout
    rows = list(csv.DictReader(io.StringIO(found)))
    assert set(rows[0]) == {"Experiment", "State", "dose", "view", LOSS, "psnr", "ssim"}
    cells = {row["Experiment"]: (row["dose"], row["view"]) for row in rows}
    assert cells == {"": ("10000", "dense"), "cell": ("1000", "sparse"), "mae": ("10000", "dense")}
    for column in (LOSS, "psnr", "ssim"):
        assert len({float(row[column]) for row in rows}) == 3


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[change for change, _ in REFUSED])
def test_an_experiment_with_a_wrong_parameter_changes_nothing(
    study: StudyCopy, change: str, message: str
) -> None:
    before = contents(study)
    refused = study.dvc("exp", "run", "-S", change, check=False)
    assert refused.returncode != 0
    assert [line for line in refused.stderr.splitlines() if line.startswith("error:")] == [message]
    assert "Traceback" not in refused.stdout + refused.stderr
    assert stages_run(refused) == {"check"}
    assert study.changes() == ["params.yaml"]
    assert contents(study) == before


def contents(study: StudyCopy) -> dict[str, bytes]:
    return {path: (study.root / path).read_bytes() for path in study.data_files()}


def test_two_clones_give_the_same_bytes(finished: StudyCopy, tmp_path: Path) -> None:
    other = finished.clone_to(tmp_path, "--branch", "start")
    other.dvc("repro")
    assert other.lock() == finished.lock()
    assert contents(other).keys() == contents(finished).keys()
    for name in ("data/base/base.npz", "models/refined/model.safetensors", "reports/comparison.png"):
        assert (other.root / name).read_bytes() == (finished.root / name).read_bytes()
