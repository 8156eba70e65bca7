"""What the lines of running jobs say."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console, Group

from fly64_dose_overlap.pipeline.matrix import watch
from fly64_dose_overlap.pipeline.matrix.experiments import Job
from fly64_dose_overlap.pipeline.matrix.watch import DONE, FAILED, KEPT, QUEUED, RUNNING, Display, Line

START = """\
Reproducing experiment '1000-sparse'
Stage 'base' didn't change, skipping
Stage 'overlap@1000-sparse' didn't change, skipping
"""
CHECK = """\
Running stage 'check':
> env PYTHONPATH=src python -m fly64_dose_overlap.pipeline.stages.check
check: the cell is 1000 photons per frame, view sparse
Updating lock file 'dvc.lock'

"""
TRAIN = """\
Running stage 'train':
> env PYTHONPATH=src python -m fly64_dose_overlap.pipeline.stages.train
Using bfloat16 Automatic Mixed Precision (AMP)
validation set: 40 groups in 0.1 s
thin and stitch for epoch 1: 40 groups in 0.0 s
train epoch 1/5: 120/320 steps, 11.8/s, 17 s left
train epoch 1/5: 320 steps in 27.1 s
"""
EPOCH_1 = (
    "train sparse/dose=1000: epoch 1/5: train/loss 0.7984, val/loss 0.7524, "
    "val/psnr 11.1335, val/ssim 0.2659, 108 s left\n"
)
EPOCH_2 = (
    "train sparse/dose=1000: epoch 2/5: train/loss 0.7938, val/loss 0.7501, "
    "val/psnr -1.5000, val/ssim 0.2671, 81 s left\n"
)
WITHOUT_PICTURE = "train sparse/dose=1000: epoch 3/5: train/loss 0.7901, val/loss 0.7488, 54 s left\n"
EVALUATE = """\
Running stage 'evaluate':
> env PYTHONPATH=src python -m fly64_dose_overlap.pipeline.stages.evaluate
score: 3 methods in 0.2 s
"""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("1000-sparse", tmp_path / "job.out", pid=1, returncode=None)


def updated(job: Job, *texts: str) -> Line:
    job.log.write_text("".join(texts), encoding="utf-8")
    line = Line(job.name, RUNNING)
    line.update(job)
    return line


def test_a_job_without_a_log_gets_its_data(job: Job) -> None:
    line = Line(job.name)
    line.update(job)
    assert (line.stage, line.epoch, line.loss, line.psnr) == ("data", "", "", "")
    assert line.log == job.log


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((START,), ("data", "", "", "")),
        ((START, CHECK), ("check", "", "", "")),
        ((START, CHECK, TRAIN), ("train", "", "", "")),
        ((START, CHECK, TRAIN, EPOCH_1), ("train", "1/5", "0.7984", "11.1335")),
        ((START, CHECK, TRAIN, EPOCH_1, EPOCH_2), ("train", "2/5", "0.7938", "-1.5000")),
        ((START, CHECK, TRAIN, EPOCH_2, WITHOUT_PICTURE), ("train", "3/5", "0.7901", "")),
        ((START, CHECK, TRAIN, EPOCH_2, TRAIN, EVALUATE), ("evaluate", "2/5", "0.7938", "-1.5000")),
        ((START, CHECK, TRAIN, EPOCH_1, EPOCH_2[:60]), ("train", "1/5", "0.7984", "11.1335")),
    ],
)
def test_a_line_follows_the_log(job: Job, texts: tuple[str, ...], expected: tuple[str, ...]) -> None:
    line = updated(job, *texts)
    assert (line.stage, line.epoch, line.loss, line.psnr) == expected


def test_the_stage_is_found_in_a_long_log(job: Job) -> None:
    steps = "thin and stitch for epoch 1: 40 groups in 0.0 s\n" * 1000
    line = updated(job, START, CHECK, TRAIN, EPOCH_1, steps, EPOCH_2)
    assert (line.stage, line.epoch) == ("train", "2/5")


def test_the_time_left_is_known_after_an_epoch(job: Job) -> None:
    assert updated(job, START, CHECK, TRAIN).time_left() == ""
    line = updated(job, START, CHECK, TRAIN, EPOCH_1)
    assert re.fullmatch(r"\d+ s", line.time_left())
    assert 0 < int(line.time_left().split()[0]) <= 108
    line.state = DONE
    assert line.time_left() == ""


def test_changes_are_plain_lines_where_there_is_no_terminal(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    running = updated(job, START, CHECK, TRAIN, EPOCH_1)
    running.seconds = 31.0
    waiting = Line("1000-dense")
    display = Display([running, waiting])
    with display.shown():
        display.refresh()
        first = capsys.readouterr()
        assert first.out == ""
        told, queued = first.err.splitlines()
        assert queued == "1000-dense: queued"
        assert told.startswith("1000-sparse: running: train, epoch 1/5, loss 0.7984, PSNR 11.1335 dB, ")
        assert told.endswith(", 31 s")
        display.refresh()
        assert capsys.readouterr().err == ""
        running.state, waiting.state = DONE, FAILED
        display.refresh()
        changed = capsys.readouterr().err.splitlines()
    assert changed[0].startswith("1000-sparse: done: ")
    assert changed[1] == "1000-dense: failed"


def test_a_pulse_tells_of_running_jobs(
    job: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PLAIN_INTERVAL_S", 0.0)
    display = Display([updated(job, START, CHECK, TRAIN), Line("1000-dense", KEPT)])
    display.refresh()
    capsys.readouterr()
    display.refresh()
    running, total = capsys.readouterr().err.splitlines()
    assert running.startswith("1000-sparse: running: train")
    assert re.fullmatch(r"total: 1/2 cells, \d+ s", total)


def test_the_live_table_has_a_row_per_cell_and_a_total(job: Job) -> None:
    running = updated(job, START, CHECK, TRAIN, EPOCH_1)
    lines = [running, Line("1000-dense", DONE), Line("1000-baseline", QUEUED)]
    display = Display(lines)
    console = Console(file=io.StringIO(), width=120)
    console.print(Group(watch._table(lines), display._bar))
    assert isinstance(console.file, io.StringIO)
    header, *rows, total = console.file.getvalue().splitlines()
    assert header.split()[:5] == ["cell", "state", "stage", "epoch", "loss"]
    assert rows[0].split()[:6] == ["1000-sparse", "running", "train", "1/5", "0.7984", "11.1335"]
    assert rows[1].split() == ["1000-dense", "done"]
    assert rows[2].split() == ["1000-baseline", "queued"]
    assert total.startswith("total")


def test_the_live_display_counts_settled_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", stream)
    lines = [Line("1000-dense", DONE), Line("1000-sparse", RUNNING)]
    display = Display(lines)
    with display.shown():
        display.refresh()
        console = Console(file=io.StringIO(), width=120)
        console.print(display._bar)
    assert isinstance(console.file, io.StringIO)
    assert re.search(r"1/2 cells, \d+ s, about \d+ s left", console.file.getvalue())
