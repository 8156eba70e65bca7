"""What a newcomer sees: one command, a table and a picture, and nothing left to do."""

from __future__ import annotations

import configparser
import json
import re
from typing import Any

import pytest

from study_copy import CELL_STAGES, RESULTS, stages_run

pytestmark = pytest.mark.slow

DATA = {"base", "reference", "expose@10000", "overlap@10000-dense"}
LIMIT = {"expose@1000", "overlap@1000-dense", "limit@dense"}
"""The limit serves all doses and is found from the first."""


def test_only_what_the_cell_needs_runs(first_run: Any) -> None:
    assert stages_run(first_run.output) == CELL_STAGES | DATA | LIMIT


def test_nothing_is_left_to_run(first_run: Any) -> None:
    again = first_run.study.dvc("repro", "evaluate")
    assert stages_run(again) == set()
    assert "Data and pipelines are up to date." in again.stdout
    assert first_run.study.changes() == []


def test_only_the_lock_file_and_metrics_change_for_git(first_run: Any) -> None:
    assert "dvc.lock" in first_run.changes
    assert "metrics/evaluation.json" in first_run.changes
    assert [path for path in first_run.changes if not path.startswith(RESULTS)] == []


def test_a_table_is_printed_and_the_picture_named(first_run: Any) -> None:
    printed = first_run.output.stdout
    assert "10000 photons per frame, view dense" in printed
    scores = json.loads((first_run.study.root / "metrics/evaluation.json").read_text())["methods"]
    names = "|".join(map(re.escape, scores))
    rows = dict(re.findall(rf"^ *({names}) +│ +(-?\d+\.\d+) │", printed, re.MULTILINE))
    expected = {name: f"{methods['phase']['psnr_db']:.2f}" for name, methods in scores.items()}
    assert rows == expected
    named = re.findall(r"^picture: (.+)$", first_run.output.stderr, re.MULTILINE)
    assert named == ["reports/comparison.png"]
    assert (first_run.study.root / named[0]).read_bytes().startswith(b"\x89PNG\r\n")


def test_the_outputs_of_the_cell_are_there(first_run: Any) -> None:
    root = first_run.study.root
    outs = {out["path"] for stage in first_run.study.lock().values() for out in stage["outs"]}
    assert outs >= {"reconstructions/ml", "reconstructions/refined", "metrics/limit/dense.json"}
    assert outs >= {"models/refined/model.safetensors", "metrics/refined/metrics.json", "metrics/frc.csv"}
    assert [path for path in outs if not (root / path).exists()] == []


def test_usage_analytics_are_off(first_run: Any) -> None:
    config = configparser.ConfigParser()
    text = (first_run.study.root / ".dvc/config").read_text(encoding="utf-8")
    config.read_string(re.sub(r"(?m)^\s+", "", text))
    assert config["core"]["analytics"] == "false"
    assert first_run.study.dvc("config", "core.analytics").stdout == "false\n"
