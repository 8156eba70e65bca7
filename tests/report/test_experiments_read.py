"""What counts as a result, tried on texts by hand and on real experiments of git and DVC."""

from __future__ import annotations

import hashlib
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
from fly64_dose_overlap.config import at
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.experiments_read import (
    NO_RESULT,
    STALE,
    Source,
    columns_of,
    curves_of,
    experiments_of,
    json_of,
    read_studies,
    settings,
    state_of,
    variant_of,
)
from fly64_dose_overlap.report.page import write_page
from fly64_dose_overlap.report.study import Study
from fly64_dose_overlap.scores.catalogue import PHASE_PSNR
from report_runs import evaluation, params_of
from study_copy import ROOT, StudyCopy

SCORES = '{"methods": {}}'


def _source(name: str = "1000-dense", texts: dict[str, str] | None = None, **changes: Any) -> Source:
    params = yaml.safe_dump({**params_of(1000, "dense"), **changes})
    return Source(name, "a" * 40, "success", {"params.yaml": params, **(texts or {})})


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def _texts(*, scores: str = SCORES, dose: int = 1000, seed: int = 42) -> dict[str, str]:
    """Return scores and a dvc.lock that records them for a dose and a seed."""
    train = {"seed": seed, "epochs": 5}
    stages = {
        "train": {"outs": [{"path": "model", "md5": "0" * 32}], "params": {"params.yaml": {"train": train}}},
        "evaluate": {
            "deps": [{"path": "model"}],
            "outs": [{"path": "metrics/evaluation.json", "md5": _md5(SCORES)}],
            "params": {"params.yaml": {"dose": dose, "view": "dense"}},
        },
        "beside": {"params": {"params.yaml": {"dose": 7}}},
    }
    return {"metrics/evaluation.json": scores, "dvc.lock": yaml.safe_dump({"stages": stages})}


def test_scores_of_the_own_parameters_count() -> None:
    assert state_of(_source(texts=_texts())) == "success"


@pytest.mark.parametrize(
    "texts", [_texts(dose=10000), _texts(seed=43), _texts(scores='{"methods": {"other": {}}}')]
)
def test_scores_of_another_cell_do_not_count(texts: dict[str, str]) -> None:
    assert state_of(_source(texts=texts)) == STALE


def test_a_longer_list_of_doses_changes_no_result() -> None:
    assert state_of(_source(texts=_texts(), doses=[1000, 3000])) == "success"


@pytest.mark.parametrize("lost", ["metrics/evaluation.json", "dvc.lock"])
def test_revision_without_scores_has_no_result(lost: str) -> None:
    texts = _texts()
    del texts[lost]
    assert state_of(_source(texts=texts)) == NO_RESULT


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
    assert variant_of(_source(name, **changes), _source("")) == expected


def test_own_names_with_equal_changes_are_one_variant() -> None:
    first = variant_of(_source("one", train={"seed": 1, "epochs": 9}), _source(""))
    second = variant_of(_source("two", train={"seed": 2, "epochs": 9}), _source(""))
    assert first == second
    assert len(first) == 6


def test_tables_of_text_become_columns() -> None:
    path = "metrics/train/plots/metrics/val/loss.tsv"
    source = _source(
        texts={"frc.csv": "a,b\n1,2\n3,\n", path: "step\tloss\n1\t0.5\n", "one.tsv": "step\n1\n"}
    )
    assert columns_of(source, "frc.csv", ",")["a"] == [1.0, 3.0]
    assert columns_of(source, "none.csv", ",") == {}
    assert curves_of(source) == {"val/loss": [(1.0, 0.5)], "one": []}


def test_damaged_scores_and_tables_are_named() -> None:
    source = _source(texts={"m.json": "{", "m.csv": "a,b\n1,x\n"})
    with pytest.raises(StudyError, match=r"1000-dense aaaaaaa: m.json: is not JSON .*; evaluate it again"):
        json_of(source, "m.json")
    with pytest.raises(StudyError, match=r"1000-dense aaaaaaa: m.csv: is no table of numbers .*'x'"):
        columns_of(source, "m.csv", ",")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"doses": None}, "doses: input should be a valid list, got None"),
        ({"doses": []}, "doses: list should have at least 1 item"),
        ({"doses": [1000, "many"]}, "doses.1: input should be a valid integer, got 'many'"),
        ({"dose": 1e3}, "dose: input should be a valid integer, got 1000.0"),
        ({"view": 7}, "view: input should be a valid string, got 7"),
        ({"overlap": {}}, "overlap.views: key is missing"),
        ({"overlap": {"views": 3}}, "overlap.views: input should be a valid dictionary, got 3"),
        ({"seed": "x"}, "seed: input should be a valid integer, got 'x'"),
        ({"train": {"seed": 1.5}}, "train.seed: input should be a valid integer, got 1.5"),
    ],
)
def test_a_damaged_parameter_is_named_with_its_commit(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(StudyError) as caught:
        _ = _source("commit", **changes).params
    assert str(caught.value).startswith(f"commit aaaaaaa: params.yaml: {problem}")
    assert "leave this revision out" in str(caught.value)


@pytest.mark.parametrize("text", ["", "dose: [", "- 1000", "view: dense"])
def test_a_damaged_file_of_parameters_is_named_with_its_commit(text: str) -> None:
    with pytest.raises(StudyError, match=r"^commit bbbbbbb: params\.yaml: "):
        _ = Source("commit", "b" * 40, "success", {"params.yaml": text}).params


def test_values_that_json_does_not_know_tell_variants_apart() -> None:
    odd = [_source("my-own", note=note) for note in (date(2026, 1, 1), date(2026, 1, 2), float("nan"))]
    assert len({variant_of(source, _source("")) for source in odd}) == 3


def test_a_commit_with_damaged_parameters_does_not_hinder_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = StudyCopy(tmp_path / "study")
    (study.root / ".dvc").mkdir(parents=True)
    study.git("init", "--quiet")
    commits: list[str] = []
    scores = json.dumps(evaluation())
    for params in (params_of(1000, "dense"), {"dose": 1000, "view": "dense"}):
        texts = {**_texts(scores=scores), "params.yaml": yaml.safe_dump(params)}
        texts["dvc.lock"] = texts["dvc.lock"].replace(_md5(SCORES), _md5(scores))
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


def _locked_cell(params: dict[str, Any]) -> str:
    """Return the dvc.lock that the stages of dvc.yaml leave for the cell of some parameters."""
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    runs = [(name, method) for name in ("train", "infer") for method in params["learned"]]
    runs += [("reconstruct", method) for method in params["iterative"]]
    stages: dict[str, Any] = {}
    for name, method in [*runs, ("evaluate", "")]:
        values = {"dose": params["dose"], "view": params["view"], "method": method}
        text = re.sub(
            r"\$\{(?:item\.)?(dose|view|method)\}",
            lambda m, v=values: str(v[m[1]]),
            yaml.safe_dump(declared[name]),
        )
        stage = yaml.safe_load(text)
        made = [*stage["outs"], *stage.get("metrics", [])]
        outs = [next(iter(out)) if isinstance(out, dict) else out for out in made]
        stages[f"{name}@{method}" if method else name] = {
            "deps": [{"path": path} for path in stage["deps"]],
            "outs": [{"path": path, "md5": _md5(SCORES)} for path in outs],
            "params": {"params.yaml": {key: at(params, key) for key in stage["params"]}},
        }
    return yaml.safe_dump({"stages": stages})


@pytest.mark.parametrize(
    ("key", "value", "state"),
    [
        ("seed", 99, STALE),
        ("methods.refined.epochs", 77, STALE),
        ("methods.map.epochs", 77, STALE),
        ("stops.patience", 77, STALE),
        ("dose", 1000, STALE),
        ("methods.epie.epochs", 77, "success"),
        ("seed", 42, "success"),
    ],
)
def test_scores_of_other_settings_or_another_seed_of_a_method_do_not_count(
    key: str, value: Any, state: str
) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params |= {"learned": ["refined"], "iterative": ["map"], "seed": 42}
    # Of another run: the folder of reconstructions has its results no more.
    before = {**params, "iterative": ["map", "epie"]}
    lock = yaml.safe_load(_locked_cell(before))["stages"]
    lock |= yaml.safe_load(_locked_cell(params))["stages"]
    *sections, last = key.split(".")
    (at(params, ".".join(sections)) if sections else params)[last] = value
    texts = {"params.yaml": yaml.safe_dump(params), "dvc.lock": yaml.safe_dump({"stages": lock})}
    assert state_of(Source("", "a" * 40, "success", {**texts, "metrics/evaluation.json": SCORES})) == state


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
