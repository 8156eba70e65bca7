"""Stage check: bad parameters are refused before anything runs, and each method's code is taken down."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import factories
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.methods.ml import MaximumLikelihood
from fly64_dose_overlap.methods.registry import method_class, method_names
from fly64_dose_overlap.pipeline import code
from fly64_dose_overlap.pipeline.code import PACKAGE, code_of_method
from fly64_dose_overlap.pipeline.stages import check
from fly64_dose_overlap.pipeline.stages._cli import command
from tiny_study import write_params

CODE = Path("metrics/check")
METHODS = method_names()
SOURCE = factories.ROOT / "src" / PACKAGE


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def checked(**changes: Any) -> Result:
    write_params(Path(), **changes)
    return CliRunner().invoke(command(check.main), [])


def test_the_code_of_every_method_of_the_cell_is_taken_down() -> None:
    chosen = {"learned": ["refined"], "iterative": ["map", "lsqml"]}
    assert checked(**chosen).exit_code == 0
    assert sorted(path.name for path in CODE.iterdir()) == ["lsqml.json", "map.json", "refined.json"]
    assert json.loads((CODE / "map.json").read_text()) == code_of_method("map")
    first = (CODE / "map.json").read_bytes()
    assert checked(**chosen, seed=7).exit_code == 0
    assert (CODE / "map.json").read_bytes() == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dose": 70}, "error: params.yaml: dose 70 is not among doses"),
        ({"methods": {"ml": {"epoch": 3}}}, "error: params.yaml: methods.ml: epoch: "),
        ({"methods": {"nothing": {}}}, "error: method: there is no 'nothing'; there are ad_poisson, epie"),
        ({"iterative": ["mpa"]}, "error: params.yaml: methods has no settings of mpa"),
        ({"iterative": ["network"]}, "error: params.yaml: iterative: network has to be trained; name it in"),
        ({"learned": ["ml"], "iterative": []}, "error: params.yaml: learned: ml has no training; name it in"),
    ],
)
def test_what_no_stage_could_work_with_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    ended = checked(**changes)
    assert ended.exit_code == 1
    assert ended.stderr.startswith(message)
    assert ended.stderr.count("\n") == 1
    assert not CODE.exists()


def test_a_setting_that_is_missing_is_refused() -> None:
    text = write_params(Path()).read_text()
    Path("params.yaml").write_text(text.replace("  ml:\n    epochs: 60\n", "  ml: {}\n"))
    ended = CliRunner().invoke(command(check.main), [])
    assert ended.stderr == "error: params.yaml: methods.ml: epochs: key is missing\n"


# The code of a method


def look_into(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make digests of the files below a folder."""

    def file_in_copy(found: type) -> str:
        return str(root.joinpath(*found.__module__.split(".")[1:]).with_suffix(".py"))

    monkeypatch.setattr(code, "ROOT", root)
    monkeypatch.setattr(code, "getfile", file_in_copy)


def digests() -> dict[str, dict[str, str]]:
    return {name: code_of_method(name) for name in METHODS}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the source; what is edited is put back."""
    root = tmp_path_factory.mktemp("src") / PACKAGE
    shutil.copytree(SOURCE, root, ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture(scope="module")
def before(source: Path) -> dict[str, dict[str, str]]:
    """Return the digests of the copy before any edit."""
    with pytest.MonkeyPatch.context() as patch:
        look_into(source, patch)
        return digests()


@pytest.fixture
def changed_by_an_edit(
    source: Path, before: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., set[str]]:
    """Return what tells the methods whose digests change when a line is added to files."""
    look_into(source, monkeypatch)

    def changed(*names: str) -> set[str]:
        texts = {source / name: (source / name).read_text(encoding="utf-8") for name in names}
        for file, text in texts.items():
            file.write_text(text + "\nEDITED = True\n", encoding="utf-8")
        after = digests()
        for file, text in texts.items():
            file.write_text(text, encoding="utf-8")
        return {name for name in METHODS if before[name] != after[name]}

    return changed


PTYCHI = {"lsqml", "lsqml_compact", "rpie", "epie", "ad_poisson"}
CORRECTED = {"network", "refined"}
LEARNED = {*CORRECTED, "supervised"}


@pytest.mark.parametrize("name", METHODS)
def test_an_edit_of_a_methods_file_changes_its_digest_and_no_other(
    name: str, changed_by_an_edit: Callable[..., set[str]]
) -> None:
    assert changed_by_an_edit(f"methods/{name}.py") == {name}


def test_an_edit_that_is_taken_back_changes_none(changed_by_an_edit: Callable[..., set[str]]) -> None:
    assert changed_by_an_edit("methods/base.py") == set(METHODS)
    assert changed_by_an_edit() == set()


@pytest.mark.parametrize(
    ("file", "methods"),
    [
        ("methods/ptychi.py", PTYCHI),
        ("methods/corrected.py", CORRECTED),
        ("methods/base.py", set(METHODS)),
        ("methods/__init__.py", set(METHODS)),
        ("methods/posterior.py", set(METHODS)),
        ("learning/trainer.py", LEARNED),
        ("learning/examples.py", CORRECTED),
        ("learning/mosaic.py", {"network"}),
        ("physics/sweep.py", set(METHODS)),
        ("scan.py", set(METHODS)),
    ],
)
def test_an_edit_of_what_methods_share_changes_those_that_use_it(
    file: str, methods: set[str], changed_by_an_edit: Callable[..., set[str]]
) -> None:
    assert changed_by_an_edit(file) == methods


@pytest.mark.parametrize("folder", ["report", "scores", "study", "pipeline"])
def test_an_edit_of_what_no_method_imports_changes_none(
    folder: str, source: Path, changed_by_an_edit: Callable[..., set[str]]
) -> None:
    files = sorted(file.relative_to(source).as_posix() for file in (source / folder).rglob("*.py"))
    assert len(files) > 3
    assert changed_by_an_edit(*files) == set()


@pytest.mark.parametrize("name", ["errors.py", "progress.py", "timing.py", "config.py", "__init__.py"])
def test_what_a_user_reads_is_no_part_of_a_method(
    name: str, changed_by_an_edit: Callable[..., set[str]]
) -> None:
    """Settings are checked against types of config.py; their values are parameters."""
    assert changed_by_an_edit(name) == set()


def test_versions_of_libraries_are_part_of_it() -> None:
    assert {"numpy", "scipy", "torch"} <= code_of_method("map").keys()
    assert "ptychi" not in code_of_method("map")
    assert all("ptychi" in code_of_method(name) for name in PTYCHI)


def test_modules_that_are_imported_relatively_are_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from . import raar\nfrom .map import Weight\nfrom ..physics.sweep import sweep\n"
    )
    found = code.imported_files(f"{PACKAGE}.methods.mine", tmp_path / "mine.py")
    assert {f"{PACKAGE}.{name}" for name in ("methods.raar", "methods.map", "physics.sweep")} < found.keys()


def test_a_result_of_anothers_name_or_label_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for label, other in (("MAP", "map"), ("MAP held-out", "map"), ("group start", "network")):
        monkeypatch.setattr(MaximumLikelihood, "label", label)
        problem = f"has a result called {label!r}, as {other} has; give it another name or label"
        assert checked().stderr == f"error: params.yaml: methods.ml: {problem}\n"
    monkeypatch.setattr(MaximumLikelihood, "label", "flat object")
    assert "as the flat object has" in checked().stderr


def test_of_another_packages_method_its_module_and_version_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere.py").write_text(
        "from fly64_dose_overlap.methods.base import Method\n"
        "from fly64_dose_overlap.physics import fisher\n"
        "class Flat(Method):\n    name = 'flat'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import elsewhere  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr(code, "method_class", lambda _: elsewhere.Flat)
    monkeypatch.setattr(code, "packages_distributions", lambda: {"elsewhere": ["numpy", "pydantic"]})
    found = code_of_method("flat")
    assert {"elsewhere", "pydantic", f"{PACKAGE}.physics.fisher", f"{PACKAGE}.methods.base"} <= found.keys()
    (tmp_path / "elsewhere.py").write_text("changed = True")
    assert code_of_method("flat")["elsewhere"] != found["elsewhere"]


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(StudyError, match="there is no 'mpa'"):
        method_class("mpa")


def test_memory_that_is_missing_while_python_clears_up_prints_no_traceback() -> None:
    class Careless:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def __del__(self) -> None:
            raise self.error

    def main(kind: str) -> None:
        Careless(MemoryError() if kind == "memory" else KeyError("a bug"))
        raise MemoryError

    seen: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, seen.append
    try:
        for kind, bugs in (("memory", 0), ("other", 1)):
            found = CliRunner().invoke(command(main), [kind])
            assert found.exit_code == 1
            assert found.stderr.startswith("error: memory: none is left; ")
            assert len(seen) == bugs
    finally:
        sys.unraisablehook = before
