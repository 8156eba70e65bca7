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


@pytest.mark.parametrize("stage", ["base", "overlap"])
def test_stage_without_torch_does_not_import_it(stage: str) -> None:
    code = f"import sys, fly64_dose_overlap.pipeline.stages.{stage}; sys.exit('torch' in sys.modules)"
    result = _run_python("-c", code)
    assert result.returncode == 0, result.stderr or f"stage {stage} imports torch"


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
