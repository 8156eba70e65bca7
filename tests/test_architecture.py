"""Rules that hold for the source as a whole."""

from __future__ import annotations

import ast
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
import yaml

import fly64_dose_overlap
from fly64_dose_overlap.physics.likelihood import poisson_deviance

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
MAX_LINES = 400
UNSAFE = {("allow_pickle", True), ("weights_only", False)}


def _texts(*folders: str) -> dict[str, str]:
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert SOURCE / "fly64_dose_overlap" / "__init__.py" in paths
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def _run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def _unsafe_calls(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.keyword) or not isinstance(node.value, ast.Constant):
            continue
        if (node.arg, node.value.value) in UNSAFE:
            yield f"line {node.value.lineno}: {node.arg}={node.value.value}"


def test_import_layers_hold() -> None:
    run = "from importlinter.cli import lint_imports_command as main; main()"
    result = _run_python("-c", run, "--no-cache", "--no-logo")
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_file_is_longer_than_one_can_hold_in_mind() -> None:
    lengths = {name: len(text.splitlines()) for name, text in _texts("src", "tests", "benchmarks").items()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_nothing_unpickles_foreign_data() -> None:
    found = {name: list(_unsafe_calls(text)) for name, text in _texts("src", "benchmarks").items()}
    assert {name: calls for name, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    ("call", "count"),
    [
        ("np.load(path, allow_pickle=True)", 1),
        ("torch.load(path, weights_only=False)", 1),
        ("np.load(path, allow_pickle=False); torch.load(path, weights_only=True)", 0),
    ],
)
def test_the_search_for_unpickling_finds_it(call: str, count: int) -> None:
    assert len(list(_unsafe_calls(call))) == count


PACKAGE = "fly64_dose_overlap"
MAY_READ_THE_TRUTH = (
    # Scores and bounds compare with it by definition, and the supervised network learns from it.
    f"{PACKAGE}.scores.",
    f"{PACKAGE}.pipeline.training",
    f"{PACKAGE}.pipeline.stages.overlap",
    f"{PACKAGE}.pipeline.stages.limit",
    f"{PACKAGE}.pipeline.stages.evaluate",
)
FACE = (PACKAGE, f"{PACKAGE}.face")
"""The front door, which hands the truth to a user of a simulation."""


def _readers_of_the_truth(sources: dict[str, str]) -> set[str]:
    """Return the modules that name `read_truth`, as import, call, attribute or text."""
    found: set[str] = set()
    for module, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            names = {getattr(node, key, None) for key in ("id", "attr", "name")}
            if "read_truth" in names or (isinstance(node, ast.Constant) and node.value == "read_truth"):
                found.add(module)
    return found


def _modules() -> dict[str, str]:
    """Return the source of every module of the package by its name."""
    texts = _texts("src")
    names = {name: name.removeprefix("src/").removesuffix(".py").replace("/", ".") for name in texts}
    return {names[name].removesuffix(".__init__"): text for name, text in texts.items()}


def test_the_truth_is_read_by_scores_the_stages_that_hand_it_on_and_the_front_door_alone() -> None:
    readers = _readers_of_the_truth(_modules()) - {f"{PACKAGE}.files.dataset"}
    strangers = {name for name in readers if not name.startswith(MAY_READ_THE_TRUTH) and name not in FACE}
    assert strangers == set()
    assert f"{PACKAGE}.pipeline.stages.evaluate" in readers


@pytest.mark.parametrize(
    "source",
    [
        "from fly64_dose_overlap.files.dataset import read_truth",
        "from fly64_dose_overlap.files import dataset\ntruth = dataset.read_truth(path)",
        "truth = getattr(dataset, 'read_truth')(path)",
        "from fly64_dose_overlap.files.dataset import read_truth as harmless",
    ],
)
def test_the_search_for_readers_of_the_truth_finds_them(source: str) -> None:
    assert _readers_of_the_truth({"module": source}) == {"module"}


def test_no_method_reaches_the_truth_through_what_it_imports() -> None:
    """By the graph of imports: neither methods and learning nor anything below them read files with it."""
    modules = _modules()
    reached: set[str] = set()
    pending = [name for name in modules if name.startswith((f"{PACKAGE}.methods.", f"{PACKAGE}.learning."))]
    while pending:
        name = pending.pop()
        if name not in modules or name in reached:
            continue
        reached.add(name)
        for node in ast.walk(ast.parse(modules[name])):
            if isinstance(node, ast.Import):
                pending.extend(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                pending.extend([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    assert f"{PACKAGE}.physics.model" in reached
    assert _readers_of_the_truth({name: modules[name] for name in reached}) <= {f"{PACKAGE}.files.dataset"}


def test_signatures_are_checked_while_testing() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="counts"):
        poisson_deviance(torch.ones(2, 3), torch.ones(4, 5))


def _draw_random() -> None:
    random.random()


def _draw_numpy() -> None:
    np.random.random()  # noqa: NPY002 - the misuse under test


def _draw_torch() -> None:
    torch.rand(1)


@pytest.mark.parametrize(
    ("draw", "name"), [(_draw_random, "random"), (_draw_numpy, "numpy.random"), (_draw_torch, "torch")]
)
def test_global_random_state_is_guarded(
    draw: Callable[[], None],
    name: str,
    random_state_guard: Callable[[], AbstractContextManager[None]],
) -> None:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        with pytest.raises(AssertionError, match=f"state of {name} was changed"), random_state_guard():
            draw()
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


def test_citation_names_the_current_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == fly64_dose_overlap.__version__
