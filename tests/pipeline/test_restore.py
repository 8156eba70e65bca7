"""Data come back from a remote, and nothing is computed again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from study_copy import CELL_STAGES, DOSES, VIEWS, StudyCopy, stages_run

pytestmark = pytest.mark.slow

HALVES = ("train", "test")


def test_a_pull_leaves_nothing_to_run(clone: StudyCopy, finished: StudyCopy) -> None:
    assert clone.data_files() == set()
    clone.dvc("pull")
    data = {name for name in finished.data_files() if name.startswith("data/")}
    views = {f"data/views/{d}/{v}/{half}.npz" for d in DOSES for v in VIEWS for half in HALVES}
    doses = {f"data/dose/{dose}/{half}.npz" for dose in DOSES for half in HALVES}
    assert data == views | doses | {"data/base/base.npz", "data/reference/reference.json"}
    assert clone.data_files() == {name for name in finished.data_files() if not name.endswith(".log")}
    assert stages_run(clone.dvc("repro")) == set()
    assert clone.changes() == []


@pytest.mark.parametrize(
    ("target", "folder"),
    [("expose@1000", "data/dose/1000"), ("overlap@10000-dense", "data/views/10000/dense")],
)
def test_a_pull_can_fetch_one_dataset(clone: StudyCopy, target: str, folder: str) -> None:
    clone.dvc("pull", target)
    assert clone.data_files() == {f"{folder}/{half}.npz" for half in HALVES}
    assert clone.changes() == []


def test_a_result_of_ones_own_survives_the_recipes_for_other_cells(first_run: Any, tmp_path: Path) -> None:
    """Where dvc.lock names bytes of another processor; docs/getting-started.md has these lines."""
    study = first_run.study.clone_to(tmp_path)
    lock, text = study.lock(), (study.root / "dvc.lock").read_text(encoding="utf-8")
    made = [out for name in ("train@refined", "infer@refined", "evaluate") for out in lock[name]["outs"]]
    for out in made:
        if not out["path"].startswith("metrics/"):
            digest, dot, kind = out["md5"].partition(".")
            text = text.replace(out["md5"], hashlib.md5(digest.encode()).hexdigest() + dot + kind)
    (study.root / "dvc.lock").write_text(text, encoding="utf-8")
    study.commit("of another processor")
    study.dvc("repro")
    scores = study.root / "metrics/evaluation.json"
    model = study.root / "models/refined/model.safetensors"
    own = (scores.read_bytes(), model.read_bytes())
    study.dvc("exp", "save", "-n", "mine")
    study.dvc("exp", "run", "-S", "methods.refined.width=8")
    assert (scores.read_bytes(), model.read_bytes()) != own

    study.git("restore", "params.yaml", "dvc.lock", "metrics")
    study.git("clean", "-fdq", "metrics")
    study.dvc("checkout", "--allow-missing")
    assert study.changes() == []
    study.dvc("exp", "apply", "mine")
    assert (scores.read_bytes(), model.read_bytes()) == own
    assert stages_run(study.dvc("repro", "evaluate")) == set()


def test_training_after_a_pull_makes_no_data(clone: StudyCopy) -> None:
    clone.dvc("pull")
    experiment = clone.dvc("exp", "run", "-S", "dose=1000", "-S", "view=baseline")
    assert stages_run(experiment) == CELL_STAGES
