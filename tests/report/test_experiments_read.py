"""What counts as a result, tried on texts by hand and on real experiments of git and DVC."""

from __future__ import annotations

import json
import re
import shutil
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from dvc.exceptions import DvcException

from fly64_dose_overlap.commands import run_command
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.experiments_read import (
    changes,
    columns_of,
    curves_of,
    experiments_of,
    json_of,
    read_studies,
    settings,
    variant_of,
)
from fly64_dose_overlap.pipeline.source import STALE
from fly64_dose_overlap.report.page import write_page
from fly64_dose_overlap.report.study import Study
from fly64_dose_overlap.scores.catalogue import PHASE_PSNR
from report_runs import evaluation, params_of
from report_sources import SCORES, md5_of, source_of, texts_of
from study_copy import StudyCopy


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("1000-sparse", {}, ""),
        ("1000-sparse-seed44", {}, ""),
        ("1000-sparse-ab12cd", {}, "ab12cd"),
        ("1000-sparse-seed44-ab12cd", {}, "ab12cd"),
        ("my-own-name", {"dose": 3000, "view": "sparse"}, ""),
        ("1000-sparse", {"learned": ["network"], "iterative": ["map", "ml"]}, ""),
    ],
)
def test_variant_is_the_digest_in_the_name(name: str, changes: dict[str, Any], expected: str) -> None:
    assert variant_of(source_of(name, **changes), source_of("")) == expected


def test_own_names_with_equal_changes_are_one_variant() -> None:
    first = variant_of(source_of("one", train={"seed": 1, "epochs": 9}), source_of(""))
    second = variant_of(source_of("two", train={"seed": 2, "epochs": 9}), source_of(""))
    assert first == second
    assert len(first) == 6


def test_tables_of_text_become_columns() -> None:
    path = "metrics/train/plots/metrics/val/loss.tsv"
    source = source_of(
        texts={"frc.csv": "a,b\n1,2\n3,\n", path: "step\tloss\n1\t0.5\n", "one.tsv": "step\n1\n"}
    )
    assert columns_of(source, "frc.csv", ",")["a"] == [1.0, 3.0]
    assert columns_of(source, "none.csv", ",") == {}
    assert curves_of(source) == {"val/loss": [(1.0, 0.5)], "one": []}


def test_damaged_scores_and_tables_are_named() -> None:
    source = source_of(texts={"m.json": "{", "m.csv": "a,b\n1,x\n"})
    with pytest.raises(StudyError, match=r"1000-dense aaaaaaa: m.json: is not JSON .*; evaluate it again"):
        json_of(source, "m.json")
    with pytest.raises(StudyError, match=r"1000-dense aaaaaaa: m.csv: is no table of numbers .*'x'"):
        columns_of(source, "m.csv", ",")


def test_values_that_json_does_not_know_tell_variants_apart() -> None:
    odd = [source_of("my-own", note=note) for note in (date(2026, 1, 1), date(2026, 1, 2), float("nan"))]
    assert len({variant_of(source, source_of("")) for source in odd}) == 3


def test_a_commit_with_damaged_parameters_does_not_hinder_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = StudyCopy(tmp_path / "study")
    (study.root / ".dvc").mkdir(parents=True)
    study.git("init", "--quiet")
    commits: list[str] = []
    scores = json.dumps(evaluation())
    for params in (params_of(1000, "dense"), {"dose": 1000, "view": "dense"}):
        texts = {**texts_of(scores=scores), "params.yaml": yaml.safe_dump(params)}
        texts["dvc.lock"] = texts["dvc.lock"].replace(md5_of(SCORES), md5_of(scores))
        for name, text in texts.items():
            (study.root / name).parent.mkdir(exist_ok=True)
            (study.root / name).write_text(text, encoding="utf-8")
        study.commit("another")
        commits.append(study.git("rev-parse", "HEAD").strip())
    good, damaged = commits
    (found,) = read_studies(study.root, [damaged, good, "HEAD~1", good[:9]])
    assert (found.commit, [cell.title for cell in found.done]) == (good, ["1,000 photons per frame, dense"])
    problem = f"commit {damaged[:7]}: params.yaml: doses: key is missing (and 1 more)"
    assert f"left out: {problem}" in capsys.readouterr().err
    with pytest.raises(StudyError, match=re.escape(problem)):
        read_studies(study.root, [damaged])


def test_the_working_tree_belongs_to_the_last_commit_alone(tmp_path: Path) -> None:
    study = StudyCopy(tmp_path / "study")
    (study.root / ".dvc").mkdir(parents=True)
    study.git("init", "--quiet")
    for dose in (1000, 10000, 100000):
        content = evaluation()
        content["limit"]["kappa"] = dose
        scores = json.dumps(content)
        texts = {
            **texts_of(scores=scores, dose=dose),
            "params.yaml": yaml.safe_dump(params_of(dose, "dense")),
        }
        texts["dvc.lock"] = texts["dvc.lock"].replace(md5_of(SCORES), md5_of(scores))
        for name, text in texts.items():
            (study.root / name).parent.mkdir(exist_ok=True)
            (study.root / name).write_text(text, encoding="utf-8")
        if dose < 100000:
            study.commit("another")

    def titles(*revisions: str) -> list[str]:
        return [found.title.split()[0] for found in read_studies(study.root, revisions)]

    assert titles("HEAD") == titles(study.git("rev-parse", "HEAD").strip()) == ["working", "commit"]
    assert titles("HEAD~1") == ["commit"]


def test_a_commit_that_is_not_here_is_named_with_what_to_do(tmp_path: Path) -> None:
    study = StudyCopy(tmp_path)
    study.git("init", "--quiet")
    hint = "fetch it: git fetch --tags, in a shallow clone git fetch --unshallow"
    with pytest.raises(StudyError, match=rf"^revision v9: is no commit of this repository; {hint}$"):
        read_studies(study.root, ["v9"])


def test_a_queue_that_cannot_be_read_hides_no_experiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = StudyCopy(tmp_path)
    study.git("init", "--quiet")
    study.commit("start")
    commit = study.git("rev-parse", "HEAD").strip()
    study.git("update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/mine", commit)

    class Damaged:
        def iter_active(self) -> None:
            raise DvcException("Invalid experiment '1234567'.")

    repository: Any = SimpleNamespace(root=tmp_path, queue=Damaged())
    assert list(experiments_of(repository, commit)) == [("mine", commit, "success")]
    assert "DVC's queue cannot be read (Invalid experiment '1234567'.)" in capsys.readouterr().err


def test_changes_are_written_as_in_params_yaml() -> None:
    before = {"n_groups": 1024, "device": "auto", "halves": [], "seed": 1}
    after = {"n_groups": None, "device": "1", "halves": ["map", "ml"], "step_px": 0.5}
    assert changes(before, after) == (
        "n_groups: 1024 → null",
        "device: auto → '1'",
        "halves: [] → [map, ml]",
        "step_px: absent → 0.5",
    )


def test_settings_leave_out_what_tells_cells_apart() -> None:
    assert settings(params_of(1, "sparse", 7)) == settings(params_of(2, "dense", 8))
    assert settings(params_of(1, "sparse")) != settings(params_of(1, "sparse", epochs=6))


def test_failing_command_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        StudyError, match=r"git: git status ended with status 128: fatal: not a git repository"
    ):
        run_command("git", "status", root=tmp_path)


@pytest.fixture(scope="module")
def studies(experiments: StudyCopy) -> list[Study]:
    return read_studies(experiments.root, ["HEAD"])


@pytest.mark.slow
def test_experiments_are_found_with_their_state(experiments: StudyCopy, studies: list[Study]) -> None:
    assert studies[0].commit == experiments.git("rev-parse", "HEAD").strip()
    found = {run.name: (run.state, run.dose) for study in studies for run in study.runs}
    assert found == {
        "1000-sparse": ("success", 1000),
        "1000-sparse-seed44": ("success", 1000),
        "longer": ("success", 1000),
        "trained-only": (STALE, 1000),
        "lost": ("failed", 100000),
        "commit": ("success", 10000),
    }


@pytest.mark.slow
def test_studies_hold_repeats_variants_and_failures(studies: list[Study]) -> None:
    plain, variant = studies
    assert plain.status.startswith(
        "incomplete: 2 of 9 cells; result of other parameters: 1000-baseline; missing: 1000-dense, "
        "10000-baseline, 10000-sparse, 100000-baseline, 100000-sparse; failed: 100000-dense"
    )
    repeats = plain.cells[1000, "sparse"]
    assert [run.seed for run in repeats.runs] == [42, 44]
    value = repeats.value("network", PHASE_PSNR)
    assert value is not None
    assert (value.mean, value.n) == (21.0, 2)
    assert plain.overlap("sparse") == 0.25
    assert repeats.first.curves["val/loss"] == [(1.0, 0.9), (2.0, 0.42)]
    assert [run.name for run in plain.cells[10000, "dense"].runs] == ["commit"]
    assert plain.title == f"commit {plain.commit[:7]}"
    assert variant.title == f"{plain.title}, variant {variant.variant}"
    assert variant.changes == ("train.epochs: 5 → 9",)
    assert [cell.first.name for cell in variant.done] == ["longer"]
    assert variant.is_trial


@pytest.mark.slow
def test_report_is_written_and_the_working_tree_left_alone(
    experiments: StudyCopy, studies: list[Study], tmp_path: Path
) -> None:
    before = experiments.changes()
    write_page(studies, tmp_path, seconds={})
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert html.count('class="stage"') == 1
    assert len(html) < 6_000_000
    assert experiments.changes() == before


@pytest.mark.slow
def test_reconstructions_are_found_in_the_cache_without_fetching_them(studies: list[Study]) -> None:
    for run in studies[0].cells[1000, "sparse"].runs:
        assert run.reconstruction is not None
        assert run.reconstruction.is_file()


@pytest.mark.slow
def test_results_that_are_not_committed_come_first(experiments: StudyCopy, tmp_path: Path) -> None:
    shutil.copytree(experiments.root, tmp_path / "study")
    study = StudyCopy(tmp_path / "study")
    study.change_params(train__seed=50)
    study.dvc("repro", "--quiet")
    own, *others = read_studies(study.root, ["HEAD"])
    assert (own.title, own.committed) == ("working tree, not committed", False)
    value = own.cells[10000, "dense"].value("network", PHASE_PSNR)
    assert value is not None
    assert value.mean == 28.0
    assert own.done[0].first.reconstruction is not None
    assert [other.committed for other in others] == [True, True]
    study.change_params(train__seed=51)
    assert all(other.committed for other in read_studies(study.root, ["HEAD"])), "no result of its parameters"


@pytest.mark.slow
def test_clone_has_no_reconstructions(experiments: StudyCopy, tmp_path: Path) -> None:
    clone = experiments.clone_to(tmp_path)
    (study,) = read_studies(clone.root, ["HEAD"])
    assert [cell.first.reconstruction for cell in study.done] == [None]


@pytest.mark.slow
def test_commits_without_results_are_refused(experiments: StudyCopy, tmp_path: Path) -> None:
    study = experiments.clone_to(tmp_path)
    study.git("rm", "--quiet", "metrics/evaluation.json")
    study.commit("no scores")
    with pytest.raises(
        StudyError, match=r"report: no experiment of HEAD has a result; make them: dose-overlap"
    ):
        read_studies(study.root, ["HEAD"])
