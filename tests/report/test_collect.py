"""What counts as a result, tried on texts by hand and on real experiments of git and DVC."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from fly64_dose_overlap.commands import run_command
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.report.collect import (
    NO_RESULT,
    STALE,
    _columns,
    _curves,
    _json,
    _state,
    _variant,
    collect_studies,
)
from fly64_dose_overlap.report.metrics import PHASE_PSNR
from fly64_dose_overlap.report.page import write_report
from fly64_dose_overlap.report.revisions import Entry, entries_of, fetched, read_texts
from report_runs import params_of
from study_copy import StudyCopy

SCORES = '{"methods": {}}'


def _entry(name: str = "1000-dense", **changes: Any) -> Entry:
    return Entry(name, "a" * 40, "success", {**params_of(1000, "dense"), **changes}, {})


def _texts(*, scores: str = SCORES, dose: int = 1000, seed: int = 42) -> dict[str, str]:
    """Return scores and a dvc.lock that records them for a dose and a seed."""
    train = {"seed": seed, "epochs": 5}
    stages = {
        "train": {"outs": [{"path": "model", "md5": "0" * 32}], "params": {"params.yaml": {"train": train}}},
        "evaluate": {
            "deps": [{"path": "model"}],
            "outs": [{"path": "metrics/evaluation.json", "md5": hashlib.md5(SCORES.encode()).hexdigest()}],
            "params": {"params.yaml": {"dose": dose, "view": "dense"}},
        },
        "beside": {"params": {"params.yaml": {"dose": 7}}},
    }
    return {"metrics/evaluation.json": scores, "dvc.lock": yaml.safe_dump({"stages": stages})}


def test_scores_of_the_own_parameters_count() -> None:
    assert _state(_entry(), _texts()) == "success"


@pytest.mark.parametrize(
    "texts", [_texts(dose=10000), _texts(seed=43), _texts(scores='{"methods": {"other": {}}}')]
)
def test_scores_of_another_cell_do_not_count(texts: dict[str, str]) -> None:
    assert _state(_entry(), texts) == STALE


def test_a_longer_list_of_doses_changes_no_result() -> None:
    assert _state(_entry(doses=[1000, 3000]), _texts()) == "success"


@pytest.mark.parametrize("lost", ["metrics/evaluation.json", "dvc.lock"])
def test_revision_without_scores_has_no_result(lost: str) -> None:
    texts = _texts()
    del texts[lost]
    assert _state(_entry(), texts) == NO_RESULT


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("1000-sparse", {}, ""),
        ("1000-sparse-seed44", {}, ""),
        ("1000-sparse-ab12cd", {}, "ab12cd"),
        ("1000-sparse-seed44-ab12cd", {}, "ab12cd"),
        ("my-own-name", {"dose": 3000, "view": "sparse"}, ""),
    ],
)
def test_variant_is_the_digest_in_the_name(name: str, changes: dict[str, Any], expected: str) -> None:
    assert _variant(_entry(name, **changes), _entry("")) == expected


def test_own_names_with_equal_changes_are_one_variant() -> None:
    first = _variant(_entry("one", train={"seed": 1, "epochs": 9}), _entry(""))
    second = _variant(_entry("two", train={"seed": 2, "epochs": 9}), _entry(""))
    assert first == second
    assert len(first) == 6


def test_tables_of_text_become_columns() -> None:
    assert _columns("a,b\n1,2\n3,\n", ",")["a"] == [1.0, 3.0]
    path = "metrics/train/plots/metrics/val/loss.tsv"
    assert _curves({path: "step\tloss\n1\t0.5\n", "metrics/frc.csv": ""}) == {"val/loss": [(1.0, 0.5)]}


def test_damaged_scores_are_named() -> None:
    with pytest.raises(StudyError, match=r"1000-dense: m.json: is not JSON .*; evaluate it again"):
        _json("1000-dense", "m.json", {"m.json": "{"})


def test_failing_command_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        StudyError, match=r"git: git status ended with status 128: fatal: not a git repository"
    ):
        run_command("git", "status", root=tmp_path)


@pytest.mark.slow
def test_experiments_are_found_with_their_state(experiments: StudyCopy) -> None:
    commit, found = entries_of(experiments.root, "HEAD")
    assert commit.revision == experiments.git("rev-parse", "HEAD").strip()
    states = {entry.name: entry.state for entry in found}
    done = ("1000-sparse", "1000-sparse-seed44", "longer", "trained-only")
    assert states == {**dict.fromkeys(done, "success"), "lost": "failed"}
    doses = {entry.name: entry.params["dose"] for entry in found}
    assert (doses["1000-sparse"], doses["lost"]) == (1000, 100000)


@pytest.mark.slow
def test_studies_hold_repeats_variants_and_failures(experiments: StudyCopy) -> None:
    plain, variant = collect_studies(experiments.root, ["HEAD"])
    assert plain.status.startswith(
        "incomplete: 2 of 9 cells; result of other parameters: 1000-baseline; missing: 1000-dense, "
        "10000-baseline, 10000-sparse, 100000-baseline, 100000-sparse; failed: 100000-dense"
    )
    repeats = plain.cells[1000, "sparse"]
    assert [run.seed for run in repeats.runs] == [42, 44]
    value = repeats.value("network", PHASE_PSNR)
    assert value is not None
    assert (value.mean, value.n) == (21.0, 2)
    assert repeats.overlap() == 0.25
    assert repeats.first.curves["val/loss"] == [(1.0, 0.9), (2.0, 0.42)]
    assert [run.name for run in plain.cells[10000, "dense"].runs] == ["commit"]
    assert variant.changes == ("train.epochs: 5 → 9",)
    assert [cell.first.name for cell in variant.done] == ["longer"]


@pytest.mark.slow
def test_report_is_written_and_the_working_tree_left_alone(experiments: StudyCopy, tmp_path: Path) -> None:
    before = experiments.changes()
    studies = write_report(experiments.root, tmp_path)
    assert [run.name for study in studies for run in study.runs if run.state == "failed"] == ["lost"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "dose_response.svg",
        "index.html",
        "table.csv",
        "table.md",
    ]
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert html.count('src="data:image/webp') == 3
    assert len(html) < 8_000_000
    assert experiments.changes() == before


@pytest.mark.slow
def test_output_that_is_nowhere_is_reported(experiments: StudyCopy) -> None:
    with (
        pytest.raises(MissingFileError, match=r"reports/none.npz of \w{7}: cannot be had"),
        fetched(experiments.root, experiments.git("rev-parse", "HEAD").strip(), "reports/none.npz"),
    ):
        pass


@pytest.mark.slow
def test_texts_that_are_not_there_are_left_out(experiments: StudyCopy) -> None:
    found = read_texts(experiments.root, "HEAD", "metrics/dose", "no such file")
    assert found == {"metrics/dose/1000.json": '{"test": {"frames": 40}}'}


@pytest.mark.slow
def test_commits_without_results_are_refused(experiments: StudyCopy, tmp_path: Path) -> None:
    study = experiments.clone_to(tmp_path)
    study.git("rm", "--quiet", "metrics/evaluation.json")
    study.commit("no scores")
    with pytest.raises(
        StudyError, match=r"report: no experiment of HEAD has a result; make them: dose-overlap"
    ):
        collect_studies(study.root, ["HEAD"])
    with pytest.raises(StudyError, match=r"revision nonsense: git rev-parse .* ended with status"):
        collect_studies(study.root, ["nonsense"])
