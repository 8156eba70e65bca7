"""What the lines of running jobs say: what the stage that runs now has written, and nothing older."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fly64_dose_overlap.pipeline.matrix import watch
from fly64_dose_overlap.pipeline.matrix.dvc_queue import Job
from fly64_dose_overlap.pipeline.matrix.watch import DONE, FAILED, KEPT, QUEUED, RUNNING, Display, Line
from fly64_dose_overlap.progress import STATE_FILE, State

EPOCH = {"label": "train epoch 1/5", "done": 120, "total": 320, "unit": "step", "seconds": 12.0}
TRAINING = "train, train epoch 1/5: 120/320 steps, 20 s left, loss 0.7984, PSNR 11.13 dB, "


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("1000-sparse", tmp_path / "copy", tmp_path / "job.out", pid=1, returncode=None)


def write_state(job: Job, **changes: Any) -> None:
    state = replace(State("train", "", 0, 0, "", 0.0, os.getpid(), began=1000.0), **changes)
    path = job.folder / STATE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(state)))


def write_curves(job: Job, method: str, values: dict[str, Any], modified: float) -> None:
    path = job.folder / "metrics" / method / "metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(values))
    os.utime(path, (modified, modified))


def updated(job: Job) -> Line:
    line = Line(job.name, RUNNING)
    line.update(job)
    line.seconds = 31.0
    return line


@pytest.fixture
def training(job: Job) -> Line:
    write_state(job, **EPOCH)
    write_curves(job, "network", {"train": {"loss": 0.79841}, "val": {"psnr": 11.1335}, "step": 1}, 2000.0)
    return updated(job)


def test_a_job_that_has_written_nothing_has_no_stage(job: Job) -> None:
    line = updated(job)
    assert line.work == ""
    assert line.log == job.log
    assert line.describe() == "31 s"


def test_a_training_shows_work_time_left_loss_and_psnr(training: Line) -> None:
    assert training.describe() == f"{TRAINING}31 s"


def test_a_message_names_the_stage_alone(job: Job) -> None:
    write_state(job, label="kept the network of epoch 4")
    assert updated(job).describe() == "train, 31 s"


def test_what_an_earlier_stage_wrote_is_not_shown(job: Job) -> None:
    write_curves(job, "network", {"train": {"loss": 0.5}}, 999.0)
    write_state(job, **EPOCH)
    assert "loss" not in updated(job).work
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    write_state(job, **EPOCH, pid=ended.pid)
    assert updated(job).describe() == "31 s"


def test_of_several_trainings_the_last_is_shown(job: Job) -> None:
    write_state(job, **EPOCH)
    write_curves(job, "network", {"train": {"loss": 0.5}}, 2000.0)
    write_curves(job, "refined", {"train": {"loss": 0.25}}, 2001.0)
    assert updated(job).work.endswith(" left, loss 0.2500")


@pytest.mark.parametrize("content", ["", "{", '{"stage": "train"}', "[]"])
def test_a_damaged_state_is_no_state(job: Job, content: str) -> None:
    write_state(job)
    (job.folder / STATE_FILE).write_text(content)
    assert updated(job).work == ""


def test_changes_are_plain_lines_where_there_is_no_terminal(
    training: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = Line("1000-dense")
    display = Display([training, waiting])
    with display.shown():
        display.refresh()
        first = capsys.readouterr()
        assert first.out == ""
        assert first.err.splitlines() == [f"1000-sparse: running: {TRAINING}31 s", "1000-dense: queued"]
        display.refresh()
        assert capsys.readouterr().err == ""
        training.state, waiting.state = DONE, FAILED
        display.refresh()
    assert capsys.readouterr().err.splitlines() == ["1000-sparse: done: 31 s", "1000-dense: failed"]


def test_a_pulse_tells_of_running_jobs(
    training: Line, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PLAIN_INTERVAL_S", 0.0)
    display = Display([training, Line("1000-dense", KEPT)])
    display.refresh()
    capsys.readouterr()
    display.refresh()
    running, total = capsys.readouterr().err.splitlines()
    assert running.startswith("1000-sparse: running: train")
    assert re.fullmatch(r"total: 1/2 cells, \d+ s", total)


def test_the_live_table_has_a_row_per_cell_and_a_total(
    training: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", stream)
    lines = [training, Line("1000-dense", DONE), Line("1000-baseline", QUEUED)]
    display = Display(lines)
    with display.shown():
        time.sleep(0.01)
        display.refresh()
    console = Console(file=io.StringIO(), width=120)
    console.print(watch._table(lines, display._total()))
    assert isinstance(console.file, io.StringIO)
    header, *rows, total = console.file.getvalue().splitlines()
    assert header.split() == ["cell", "state"]
    assert " ".join(rows[0].split()) == f"1000-sparse running {TRAINING}31 s"
    assert rows[1].split() == ["1000-dense", "done"]
    assert rows[2].split() == ["1000-baseline", "queued"]
    assert re.fullmatch(r"total: 1/3 cells, \d+ s, about \d+ s left *", total)
