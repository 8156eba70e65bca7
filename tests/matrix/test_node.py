"""A cell on a node, whose git may be set to anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from fly64_dose_overlap.pipeline.matrix import node
from fly64_dose_overlap.pipeline.matrix.node import CellJob
from study_copy import StudyCopy


def test_the_clone_pushes_to_origin_whatever_git_calls_a_remote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = StudyCopy(tmp_path / "study")
    study.root.mkdir()
    study.git("init", "--quiet")
    study.commit("start")
    commit = study.git("rev-parse", "HEAD").strip()
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "clone.defaultRemoteName")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "upstream")
    job = CellJob("1000-dense", (), str(study.root), commit, (), str(tmp_path))
    node._clone(job)
    assert StudyCopy(job.study).git("remote") == "origin\n"
