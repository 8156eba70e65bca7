"""What names code that differs from the last commit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fly64_dose_overlap.pipeline.matrix.history import code_change
from study_copy import StudyCopy

CODE = Path("src/code.py")
USERS_SETTINGS = {
    "diff.noprefix": "true",
    "color.ui": "always",
    "diff.context": "10",
    "diff.external": "/bin/true",
    "diff.renames": "copies",
    "diff.mnemonicPrefix": "true",
}


@pytest.fixture(autouse=True)
def _in_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    CODE.parent.mkdir()
    CODE.write_text("a = 1\n")
    for name in ("dvc.yaml", "dvc.lock"):
        Path(name).write_text("stages: {}\n")
    study = StudyCopy(tmp_path)
    study.git("init", "--quiet")
    study.commit("start")


def test_code_is_changed_when_its_content_is() -> None:
    assert code_change() == ""
    os.utime(CODE, (0, 0))
    assert code_change() == ""
    found: list[str] = []
    for text in ("a = 2\n", "a = 3\n"):
        CODE.write_text(text)
        found.append(code_change())
    CODE.unlink()
    found.append(code_change())
    assert len({"", *found}) == 4


def test_changed_code_has_one_name_whatever_gits_settings_are(monkeypatch: pytest.MonkeyPatch) -> None:
    CODE.write_bytes(b"a = 2  # caf\xe9\n")
    found = {code_change()}
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    for key, value in USERS_SETTINGS.items():
        monkeypatch.setenv("GIT_CONFIG_KEY_0", key)
        monkeypatch.setenv("GIT_CONFIG_VALUE_0", value)
        found.add(code_change())
    assert len(found) == 1
    assert found != {""}
