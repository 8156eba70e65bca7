"""What is queued, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import factories
from fly64_dose_overlap.pipeline.cells import Cell
from fly64_dose_overlap.pipeline.matrix import dvc_queue, run
from fly64_dose_overlap.pipeline.matrix.plan import Experiment
from fly64_dose_overlap.pipeline.matrix.watch import Line


@pytest.mark.parametrize(("others", "said"), [({"mine": "Queued", "old": "Failed"}, 1), ({}, 0)])
def test_experiments_that_others_queued_are_named(
    others: dict[str, str],
    said: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    params = factories.study_params()
    cells = {
        f"1000-{view}": Experiment(f"1000-{view}", Cell(1000, view, 42, 2), params, ())
        for view in ("dense", "sparse")
    }
    added: list[str] = []

    def add(experiment: Experiment, flags: Sequence[str]) -> None:
        added.append(experiment.name)

    monkeypatch.setattr(dvc_queue, "WORKERS", tmp_path)
    monkeypatch.setattr(dvc_queue, "queued_states", lambda: {**others, "1000-dense": "Queued"})
    monkeypatch.setattr(dvc_queue, "worker_pids", lambda: [1])
    monkeypatch.setattr(dvc_queue, "job_folders", set)
    monkeypatch.setattr(dvc_queue, "clear", lambda names, states: None)
    monkeypatch.setattr(dvc_queue, "add", add)
    run._Queue(cells, {name: Line(name) for name in cells}, "commit").fill(())
    assert added == ["1000-sparse"]
    line = "other experiments are in DVC's queue and run first: mine"
    assert capsys.readouterr().err.count(line) == said
