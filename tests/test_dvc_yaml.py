"""dvc.yaml says what the stages really run, import, read and write."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

import tiny_scan
from fly64_dose_overlap.config import Params, load_params
from fly64_dose_overlap.files.dataset import write_scan
from fly64_dose_overlap.methods.base import Learned
from fly64_dose_overlap.methods.registry import method_class, method_names
from fly64_dose_overlap.pipeline.cells import model_file, reconstruction_folder
from fly64_dose_overlap.pipeline.code import code_of_method, imported_files
from fly64_dose_overlap.pipeline.stages import (
    base,
    check,
    diagnose,
    expose,
    overlap,
    reconstruct,
    reference,
    train,
)
from recording import Recording, covers, files_in
from tiny_study import ROOT, write_params

PACKAGE = "fly64_dose_overlap"
SOURCE = ROOT / "src"
TEXT = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
STAGES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["stages"]

METHODS = {name: method_class(name) for name in method_names()}
"""Found here, since libraries that come with them draw random numbers when they are imported."""

CHECKED_ONLY = {"doses"}
"""Read to refuse a dose that is not listed; nothing written depends on it, and a dose more
must not simulate the others again."""

NO_DEPS = {
    SOURCE / PACKAGE / name
    for name in (
        "errors.py",
        "progress.py",
        "methods/__init__.py",
        "pipeline/__init__.py",
        "pipeline/code.py",
        "pipeline/cells.py",
        "pipeline/stages/__init__.py",
        "blas.py",
        "pipeline/stages/_cli.py",
        "pipeline/stages/_interrupts.py",
        "pipeline/stages/_method.py",
        "timing.py",
        "section.py",
        "yaml_text.py",
    )
}
"""What a user reads, where things lie, how long they took and how a stage ends, which nothing
written depends on."""
CONFIG = SOURCE / PACKAGE / "config.py"
"""Without defaults, so that all values that it gives are parameters; `check` alone has more from it."""
REGISTRY = SOURCE / PACKAGE / "methods/registry.py"
"""Finds the method, whose own code counts."""
BY_METHOD = ("train", "infer", "reconstruct", "halves")
"""Stages of one method each, whose code `check` takes down."""
LOGGED = SOURCE / PACKAGE / "scores"
"""Of the training's images, to be looked at; they change no byte of a model."""


def module_of(stage: str) -> str:
    """Return the module of ``pipeline.stages`` that a stage runs."""
    return "reconstruct" if stage == "infer" else stage


def paths(entries: list[Any]) -> list[str]:
    """Return the paths of outputs with or without options."""
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def resolved(text: str, *, dose: int = 1000, view: str = "dense", method: str = "map") -> str:
    values = {"dose": dose, "view": view, "method": method}
    return re.sub(r"\$\{(?:item\.)?(dose|view|method)\}", lambda match: str(values[match[1]]), text)


def module_file(module: str) -> Path | None:
    """Return the file of a module of the package, or None if it is no module."""
    stem = SOURCE.joinpath(*module.split("."))
    return next((path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file()), None)


def code_of(stage: str) -> dict[str, Path]:
    """Return the modules that a stage may import, with their files; the package itself for its version."""
    module = f"{PACKAGE}.pipeline.stages.{module_of(stage)}"
    file = module_file(module)
    assert file, f"there is no {module}"
    return {PACKAGE: SOURCE / PACKAGE / "__init__.py", **imported_files(module, file)}


def taken_down(stage: str) -> set[Path]:
    """Return the files whose digests `check` gives a stage with every method that it may run."""
    if stage not in BY_METHOD:
        return set()
    learned = stage != "reconstruct"
    names = [name for name, found in METHODS.items() if issubclass(found, Learned) == learned]
    files = [{module_file(module) for module in code_of_method(name)} for name in names]
    return {file for file in set.intersection(*files) if file is not None}


def uncovered(stage: str, files: list[Path]) -> list[str]:
    deps = [ROOT / dep for dep in STAGES[stage]["deps"]]
    left_out = {*NO_DEPS} if stage == "check" else {*NO_DEPS, CONFIG}
    if stage in BY_METHOD:
        # Its version is in the record of the data, which it hands on.
        left_out |= {REGISTRY, SOURCE / PACKAGE / "__init__.py", SOURCE / PACKAGE / "study/__init__.py"}
        left_out |= taken_down(stage)
    if stage == "train":
        left_out |= {*LOGGED.glob("*.py")}
    files = [file for file in files if file not in left_out]
    return [str(file) for file in files if not any(dep == file or dep in file.parents for dep in deps)]


def test_every_stage_is_described_and_runs_its_own_module() -> None:
    data = ["base", "reference", "expose", "overlap", "limit", "diagnose"]
    assert list(STAGES) == ["check", *data, "train", "infer", "reconstruct", "halves", "evaluate"]
    for name, stage in STAGES.items():
        assert stage["desc"].strip()
        assert f"-m {PACKAGE}.pipeline.stages.{module_of(name)}" in stage["cmd"]


def test_lists_are_written_in_block_style() -> None:
    def flow_style(node: yaml.Node) -> Iterator[int]:
        if isinstance(node, yaml.CollectionNode) and node.flow_style:
            yield node.start_mark.line + 1
        for child in node.value if isinstance(node, yaml.CollectionNode) else []:
            for part in child if isinstance(child, tuple) else (child,):
                yield from flow_style(part)

    assert list(flow_style(yaml.compose("a: [1]\nb:\n  - {c: 1}\n"))) == [1, 3]
    assert list(flow_style(yaml.compose(TEXT))) == []


def test_the_run_cache_gives_no_base_set_back_since_a_file_may_have_other_content() -> None:
    """DVC keeps no run in it of which an output, but no metric, is left to git."""
    assert {"metrics/base.json": {"cache": False}} in STAGES["base"]["outs"]


def test_the_matrix_is_that_of_the_parameters() -> None:
    assert STAGES["expose"]["matrix"] == {"dose": "${doses}"}
    assert STAGES["overlap"]["matrix"] == {"dose": "${doses}", "view": "${overlap.views}"}
    assert STAGES["limit"]["matrix"] == {"view": "${overlap.views}"}
    assert STAGES["train"]["matrix"] == STAGES["infer"]["matrix"] == {"method": "${learned}"}
    assert STAGES["reconstruct"]["matrix"] == {"method": "${iterative}"}
    assert STAGES["halves"]["matrix"] == {"method": "${halves}"}


def test_all_parameters_together_are_one_of_check() -> None:
    assert [name for name, stage in STAGES.items() if {"params.yaml": None} in stage["params"]] == ["check"]


def test_training_sees_the_training_half_only_and_reconstruction_the_other() -> None:
    data = {name: [dep for dep in STAGES[name]["deps"] if dep.startswith("data/")] for name in STAGES}
    assert data["train"] == ["data/views/${dose}/${view}/train.npz"]
    for name in ("infer", "reconstruct", "halves"):
        assert data[name] == ["data/views/${dose}/${view}/test.npz"]
    # Photons that no method saw are for scores alone.
    assert data["evaluate"] == ["data/reference", "data/views/${dose}/${view}/test.npz"]


def test_methods_are_parted_by_their_paths() -> None:
    for name in BY_METHOD:
        stage = STAGES[name]
        assert "metrics/check/${item.method}.json" in stage["deps"]
        assert "methods.${item.method}" in stage["params"]
        made = [*paths(stage["outs"]), *paths(stage.get("metrics", [])), *paths(stage.get("plots", []))]
        assert all("${item.method}" in path for path in made)
    model = resolved("models/${item.method}/model.safetensors")
    assert model == model_file("map").as_posix()
    assert model in map(resolved, paths(STAGES["train"]["outs"]))
    assert model in map(resolved, STAGES["infer"]["deps"])
    assert resolved(STAGES["infer"]["outs"][0]) == reconstruction_folder("map").as_posix()


def test_dvc_knows_the_stages_by_dose_view_and_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dvc.yaml").write_text(TEXT)
    write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))

    def stages_known() -> list[str]:
        with Repo(str(tmp_path)) as repo:
            return [stage.addressing for stage in repo.index.stages]

    Repo.init(str(tmp_path), no_scm=True).close()
    names = stages_known()
    wanted = {"check", "base", "reference", "expose@1000", "overlap@10000-dense", "limit@sparse", "evaluate"}
    params = load_params(ROOT / "params.yaml")
    wanted |= {f"{stage}@{name}" for stage in ("train", "infer") for name in params.learned}
    wanted |= {f"reconstruct@{name}" for name in params.iterative}
    assert wanted <= set(names)
    assert len(names) == 3 + 3 + 3 * 3 + 3 + 2 * len(params.learned) + len(params.iterative) + 2
    content = yaml.safe_load((tmp_path / "params.yaml").read_text())
    content["overlap"]["views"]["fourth"] = {"s_img": 0.3, "n_groups": None, "gridsize": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    more = set(stages_known()) - set(names)
    assert more == {"limit@fourth", *(f"overlap@{dose}-fourth" for dose in params.doses)}


@pytest.mark.parametrize("stage", list(STAGES))
def test_deps_cover_what_a_stage_may_import(stage: str) -> None:
    assert uncovered(stage, list(code_of(stage).values())) == []


@pytest.mark.parametrize("stage", list(STAGES))
def test_code_among_the_deps_exists_and_is_imported(stage: str) -> None:
    files = list(code_of(stage).values())
    for dep in STAGES[stage]["deps"]:
        if dep.startswith("src/"):
            path = ROOT / dep
            assert path.exists(), f"{dep} does not exist"
            assert any(path == file or path in file.parents for file in files), f"{dep} is never imported"


@pytest.mark.slow
def test_deps_cover_what_is_really_imported() -> None:
    # Whatever a module brings in by other ways than an import statement shows here.
    code = (
        "import importlib, json, sys\n"
        "found = {}\n"
        "for stage, modules in json.load(sys.stdin).items():\n"
        f"    for name in [name for name in sys.modules if name.startswith({PACKAGE!r})]:\n"
        "        del sys.modules[name]\n"
        "    for name in modules:\n"
        "        importlib.import_module(name)\n"
        f"    loaded = [m for name, m in sys.modules.items() if name.startswith({PACKAGE!r})]\n"
        "    found[stage] = [m.__file__ for m in loaded]\n"
        "print(json.dumps(found))\n"
    )
    modules = {stage: list(code_of(stage)) for stage in STAGES}
    result = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(modules),
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    loaded: dict[str, list[str]] = json.loads(result.stdout.splitlines()[-1])
    for stage, files in loaded.items():
        assert len(files) >= len(modules[stage])
        assert uncovered(stage, [Path(file) for file in files]) == []


def test_a_copy_runs_its_own_code(tmp_path: Path) -> None:
    stages = tmp_path / "src" / PACKAGE / "pipeline" / "stages"
    stages.mkdir(parents=True)
    for file in (stages.parents[1] / "__init__.py", stages.parent / "__init__.py", stages / "__init__.py"):
        file.touch()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    for name, stage in STAGES.items():
        (stages / f"{module_of(name)}.py").write_text("print(__file__)")
        output = subprocess.run(
            resolved(stage["cmd"]),
            shell=True,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert Path(output.strip()) == stages / f"{module_of(name)}.py"


def test_stages_read_the_parameters_and_write_the_files_that_are_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    few = {**tiny_scan.SETTINGS["refined"], "epochs": 1, "steps_per_epoch": 1}
    methods = {"refined": few, "map": {"epochs": 2}, "ml": {"epochs": 2}}
    chosen = {"learned": ["refined"], "iterative": ["map", "ml"]}
    params = write_params(tmp_path, dose=10000, view="dense", methods=methods, **chosen)
    write_scans(tmp_path / "data/views/10000/dense")
    runs: list[tuple[Any, Callable[[], None], dict[str, Any]]] = [
        (base, lambda: base.main(params), {}),
        (reference, lambda: reference.main(params), {}),
        (expose, lambda: expose.main(1000, params), {}),
        (overlap, lambda: overlap.main(1000, "dense", params), {"view": "dense"}),
        (overlap, lambda: overlap.main(1000, "baseline", params), {"view": "baseline"}),
        (diagnose, lambda: diagnose.main(params), {}),
        (check, lambda: check.main(params), {}),
        (train, lambda: train.main("refined", params), {"method": "refined"}),
        (reconstruct, lambda: reconstruct.main("refined", params), {"method": "refined"}),
        (reconstruct, lambda: reconstruct.main("map", params), {"method": "map"}),
        (reconstruct, lambda: reconstruct.main("ml", params), {"method": "ml"}),
    ]
    for module, run, cell in runs:
        seen: set[str] = set()

        def load(path: Path, seen: set[str] = seen) -> Params:
            return typing.cast(Params, Recording(load_params(path), seen))

        if module is not check:
            monkeypatch.setattr(module, "load_params", load)
        before = files_in(tmp_path)
        run()
        name = "infer" if cell == {"method": "refined"} and module is reconstruct else module.__name__
        stage = STAGES[name.rpartition(".")[2]]
        if module is not check:
            declared = [resolved(key, **cell) for key in stage["params"]]
            unseen = [key for key in declared if not any(covers(key, read) for read in seen)]
            # These are simulated, and have no reference to be made.
            unseen = [] if module is reference else unseen
            untracked = [
                key for key in seen - CHECKED_ONLY if not any(covers(each, key) for each in declared)
            ]
            assert (unseen, untracked) == ([], [])
        outputs = [*stage["outs"], *stage.get("metrics", []), *stage.get("plots", [])]
        made = {path for path in files_in(tmp_path) - before if not path.startswith(".dvc/tmp/")}
        wanted = [resolved(path, **cell) for path in paths(outputs)]
        assert [path for path in made if not any(Path(path).is_relative_to(each) for each in wanted)] == []
        assert all(any(Path(path).is_relative_to(each) for path in made) for each in wanted)


def write_scans(folder: Path) -> None:
    for half in ("train", "test"):
        write_scan(folder / f"{half}.npz", tiny_scan.scan(), tiny_scan.truth())


LOADERS = ("load_params(", "load_study(")


def sections_read(source: str) -> set[str]:
    """Return the keys that functions read of what `load_params` gave them; "" for the whole."""
    found: set[str] = set()
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            found.update(_sections_read_by(function))
    return found


def _sections_read_by(function: ast.FunctionDef) -> Iterator[str]:
    nodes = list(ast.walk(function))
    names = {
        ast.unparse(node.targets[0])
        for node in nodes
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith(LOADERS)
    }
    inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
        if isinstance(node, ast.Name | ast.Attribute) and id(node) not in inner:
            name, _, key = ast.unparse(node).partition(".")
            if name in names and isinstance(node.ctx, ast.Load):
                yield key


def test_the_search_for_parameters_finds_them() -> None:
    source = "def main():\n p = load_params(f)\n q = p.a.b[p.c]\n use(p)\n other.d\ndef use(p): p.e\n"
    assert sections_read(source) == {"a.b", "c", ""}


@pytest.mark.parametrize("stage", list(STAGES))
def test_params_cover_the_sections_that_a_stage_reads(stage: str) -> None:
    file = module_file(f"{PACKAGE}.pipeline.stages.{module_of(stage)}")
    assert file, f"there is no pipeline/stages/{module_of(stage)}.py"
    read = sections_read(file.read_text(encoding="utf-8")) - CHECKED_ONLY
    assert read, "the stage reads no parameter, or this search misses how"
    assert "" not in read, "the stage hands on all parameters: give away its sections only"
    declared = STAGES[stage]["params"]
    if declared == [{"params.yaml": None}]:
        return
    read = {key.partition("[")[0] for key in read}
    assert [key for key in read if not any(covers(each, key) or covers(key, each) for each in declared)] == []
