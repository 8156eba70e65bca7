"""Which results of a revision are of its own parameters and of the present base set."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.source import NO_RESULT, STALE, Source, data_of, state_of
from fly64_dose_overlap.yaml_text import at
from report_sources import SCORES, md5_of, source_of, texts_of
from study_copy import ROOT


def test_scores_of_the_own_parameters_count() -> None:
    assert state_of(source_of(texts=texts_of())) == "success"


@pytest.mark.parametrize(
    "texts", [texts_of(dose=10000), texts_of(seed=43), texts_of(scores='{"methods": {"other": {}}}')]
)
def test_scores_of_another_cell_do_not_count(texts: dict[str, str]) -> None:
    assert state_of(source_of(texts=texts)) == STALE


def test_a_longer_list_of_doses_changes_no_result() -> None:
    assert state_of(source_of(texts=texts_of(), doses=[1000, 3000])) == "success"


@pytest.mark.parametrize("lost", ["metrics/evaluation.json", "dvc.lock"])
def test_revision_without_scores_has_no_result(lost: str) -> None:
    texts = texts_of()
    del texts[lost]
    assert state_of(source_of(texts=texts)) == NO_RESULT


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
        _ = source_of("commit", **changes).params
    assert str(caught.value).startswith(f"commit aaaaaaa: params.yaml: {problem}")
    assert "leave this revision out" in str(caught.value)


@pytest.mark.parametrize("text", ["", "dose: [", "- 1000", "view: dense"])
def test_a_damaged_file_of_parameters_is_named_with_its_commit(text: str) -> None:
    with pytest.raises(StudyError, match=r"^commit bbbbbbb: params\.yaml: "):
        _ = Source("commit", "b" * 40, "success", {"params.yaml": text}).params


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
            "outs": [{"path": path, "md5": md5_of(SCORES)} for path in outs],
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


def _chain(base: str, read: str) -> dict[str, Any]:
    """Return a base set, what was made of a base set for two doses, and the evaluation of the first."""

    def stage(deps: dict[str, str], outs: dict[str, str]) -> dict[str, Any]:
        return {
            key: [{"path": path, "md5": digit * 32} for path, digit in files.items()]
            for key, files in (("deps", deps), ("outs", outs))
        }

    base_file, dose_file, test = "data/base/base.npz", "data/dose/{}/test.npz", "data/views/{}/dense/test.npz"
    stages = {
        "simulate@1000": stage({}, {dose_file.format(1000): "9"}),
        "base": stage({}, {base_file: base}),
    }
    for dose, parent in ((1000, read), (10000, "0")):
        counts, view = dose_file.format(dose), test.format(dose)
        stages[f"expose@{dose}"] = stage({base_file: parent}, {counts: "3"})
        stages[f"overlap@{dose}-dense"] = stage({counts: "3"}, {view: "4"})
    return {**stages, "evaluate": stage({test.format(1000): "4"}, {"metrics/evaluation.json": "5"})}


def test_data_of_a_cell_are_what_it_depends_on_of_the_present_base_set() -> None:
    def found(**chain: str) -> dict[str, str]:
        return data_of(
            source_of(texts={"dvc.lock": yaml.safe_dump({"stages": _chain(**chain)}, sort_keys=False)})
        )

    base = {"data/base/base.npz": "1" * 32}
    made = {"data/dose/1000/test.npz": "3" * 32, "data/views/1000/dense/test.npz": "4" * 32}
    assert found(base="1", read="1") == {**base, **made}
    assert found(base="1", read="0") == base, "what was made of an earlier base set is left out"
