"""YAML means the same to the stages as to DVC, which records it and writes it anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import ParseError, dump_yaml
from dvc.utils.serialize import parse_yaml as dvc_yaml

import factories
from fly64_dose_overlap.config import load_params
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.yaml_text import parse_yaml


@pytest.mark.parametrize("start", ["%YAML 1.1\n---\n", "# mine\n%YAML 1.2\n---\n"])
def test_a_version_of_yaml_is_refused_since_values_depend_on_it(start: str) -> None:
    with pytest.raises(StudyError, match=r"^here: names a version of YAML.*; delete %YAML$"):
        parse_yaml(f"{start}seed: 042", where="here")


SCALARS = """
    42 042 -042 +42 08 0o17 -0o17 017 0x1F 0b101 1_000 0_17 1__0 1:30 1:30.5 -1:30 0x 0b 0o8
    1e3 1E3 2e-05 -2e-05 1.5e-3 1.5E+3 .5 -.5 +.5 5. 1_0.5 .5e3 .5e+3 1.e3 1e 1.2.3 .inf -.Inf +.INF .Inf.
    yes no on off Yes NO On OFF y n Y N true True TRUE false False FALSE tRUE "yes" '042'
    ~ null Null NULL nUll 2026-11-30 2026-1-3 12:30:45 = 1,000 1- --1 _1 -_1 10000-dense a1e3
"""


@pytest.mark.parametrize("spelling", SCALARS.split())
def test_yaml_means_what_it_means_to_dvc(spelling: str) -> None:
    readings: list[Any] = []
    for read in (lambda text: parse_yaml(text, where="here"), lambda text: dvc_yaml(text, "here")):
        try:
            value = read(f"a: {spelling}")["a"]
            readings.append((type(value), value))
        except (StudyError, ParseError, ValueError, IndexError):
            readings.append("refused")
    assert readings[0] == readings[1]


@pytest.mark.parametrize(
    ("spelling", "value"),
    [("042", 42), ("1:30", "1:30"), ("on", "on"), ("2e-05", 2e-5), ("1_000", 1000), ("0o17", 15)],
)
def test_numbers_are_those_of_yaml_1_2(spelling: str, value: Any) -> None:
    assert parse_yaml(f"a: {spelling}", where="here") == {"a": value}


def test_a_number_that_dvc_writes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    content = dvc_yaml((factories.ROOT / "params.yaml").read_text(encoding="utf-8"), "params.yaml")
    content["methods"]["refined"]["learning_rate"] = 2e-5
    dump_yaml(path, content)
    assert "learning_rate: 2e-05" in path.read_text()
    assert load_params(path).model_dump() == content
