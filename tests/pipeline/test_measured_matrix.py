"""A study of measured frames under DVC: its matrix, and its restoring from remote storage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fly64_dose_overlap.pipeline.cells import EVALUATION
from matrix_study import kill_all
from pipeline.test_measured_study import write_file
from study_copy import METHODS, StudyCopy, make_study, stages_run

pytestmark = pytest.mark.slow

SUPERVISED = {**METHODS["refined"]}
for key in ("crop_px", "iterations"):
    del SUPERVISED[key]


@pytest.fixture
def study(tmp_path: Path) -> StudyCopy:
    """Return a study of a scan that was measured, with all data of its cells, but no results."""
    write_file(tmp_path / "mine.npz")
    study = make_study(tmp_path, {**METHODS, "supervised": SUPERVISED})
    study.change_params(
        base__source=str(tmp_path / "mine.npz"), reference__epochs=10, doses=[1000, 10000], dose=1000
    )
    study.dvc("repro", "overlap")
    study.commit("measured data")
    return study


def test_cells_of_the_matrix_are_of_measured_frames_wherever_they_run(
    study: StudyCopy, tmp_path: Path
) -> None:
    assert json.loads((study.root / "metrics/reference.json").read_text())["kind"] == "measured"
    found = study.matrix("--view", "baseline")
    kill_all(study)
    assert "left out: supervised" in found.stderr
    names = study.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout.split()
    results = [json.loads(study.git("show", f"{name}:{EVALUATION}")) for name in names if "stash" not in name]
    assert len(results) == 2
    for each in results:
        assert each["conventions"]["against"].startswith("the reference of 1.4e+05 photons")
        assert {"refined", "ML", "flat object"} <= each["methods"].keys()
        assert "supervised" not in each["methods"]

    store = tmp_path / "store"
    study.use_remote(store)
    study.dvc("push")
    (tmp_path / "other").mkdir()
    other = study.clone_to(tmp_path / "other")
    other.use_remote(store)
    other.dvc("pull", "--allow-missing")
    assert (other.root / "data/reference/held.npz").is_file()
    ran = stages_run(other.dvc("repro", "evaluate"))
    assert not ran & {"base", "reference", "expose@1000", "overlap@1000-dense"}
    found = json.loads((other.root / EVALUATION).read_text())
    assert found["conventions"]["frames"] == "measured"


def test_halves_of_the_photons_are_asked_for_by_a_parameter(study: StudyCopy) -> None:
    study.dvc("exp", "run", "-S", "halves=[refined,ml]", "evaluate")
    methods = json.loads((study.root / EVALUATION).read_text())["methods"]
    for name in ("refined", "ML", "ML held-out"):
        assert methods[name]["halves"]["frc_half_bit"] > 0
    assert "halves" not in methods["flat object"]
