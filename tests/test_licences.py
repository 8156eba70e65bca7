"""docs/licences.md lists what is installed, in the versions of the lock."""

from __future__ import annotations

import importlib.util
import re
from email.message import Message
from types import ModuleType
from typing import Any

import pytest

from tiny_study import ROOT

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("licences", ROOT / "docs" / "licences.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()


def test_names_and_versions_are_those_of_the_lock() -> None:
    wanted = {name: version for name, (version, _) in script.locked(LOCK, PROJECT).items()}
    assert script.listed((ROOT / "docs/licences.md").read_text(encoding="utf-8")) == wanted
    assert {"torch", "numpy", "dvc", "ptychi"} <= wanted.keys()


def test_the_lock_is_read_whole_and_every_package_is_pinned_by_hashes() -> None:
    blocks = re.split(r"\n(?=[A-Za-z0-9])", LOCK)[1:]
    assert len(blocks) == len(script.locked(LOCK, PROJECT)) - 1
    assert all("--hash=sha256:" in block for block in blocks)


def test_every_package_says_what_its_licence_is() -> None:
    text = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
    assert "see its files" not in text
    assert not re.search(r"\| *(UNKNOWN|OSI Approved)? *\|$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ([("License-Expression", "MIT"), ("License", "other")], "MIT"),
        ([("License", "BSD"), ("Classifier", "License :: OSI Approved")], "BSD"),
        (
            [("License", "Copyright\nlong text"), ("Classifier", "License :: OSI Approved :: BSD License")],
            "BSD License",
        ),
        ([("License", "Apache License\n Version 2.0")], "Apache-2.0"),
        ([("License", "UNKNOWN")], "see its files"),
        ([], "see its files"),
    ],
)
def test_a_licence_is_read_from_what_there_is(fields: list[tuple[str, str]], licence: str) -> None:
    found = Message()
    for name, value in fields:
        found[name] = value
    assert script.licence_of(found) == licence
