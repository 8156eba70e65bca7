"""Progress of long work."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fly64_dose_overlap import progress
from fly64_dose_overlap.progress import STATE_FILE, State, read_state, say, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_items_pass_and_the_end_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track("abc", total=25, label="work", step=10)) == ["a", "b", "c"]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "work: 25 frames in 0.0 s\n"


def test_a_log_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    list(track(range(5), total=10, label="work", unit="group", step=2))
    assert capsys.readouterr().err.splitlines() == [
        "work: 6/10 groups, 0.5/s, 8 s left",
        "work: 10 groups in 24.0 s",
    ]


def test_work_begins_only_when_asked_for() -> None:
    begun: list[int] = []

    def work() -> Iterator[int]:
        for number in range(3):
            begun.append(number)
            yield number

    items = track(work(), total=3, label="work")
    assert begun == []
    next(items)
    assert begun == [0]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "BAR_DELAY_S", 0.0)
    assert list(track(range(3), total=25, label="work", step=10)) == [0, 1, 2]
    assert "work: 100%" in terminal.getvalue()
    assert "25/25" in terminal.getvalue()


def test_status_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    say("one line")
    assert capsys.readouterr() == ("", "one line\n")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a study in which DVC runs a stage."""
    (tmp_path / STATE_FILE).parent.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "expose@1000")
    return tmp_path


def test_a_stage_leaves_its_state_in_a_file(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "STATE_INTERVAL_S", 0.0)
    assert read_state(stage) is None
    items = track(range(3), total=30, label="work", unit="group", step=10)
    next(items)
    state = read_state(stage)
    assert state == State("expose@1000", "work", 0, 30, "group", 0.0, os.getpid(), progress._BEGAN)
    assert state is not None
    assert state.seconds_left is None
    next(items)
    state = read_state(stage)
    assert state is not None
    assert state.done == 10
    assert state.seconds_left == pytest.approx(2 * state.seconds)
    say("half of it")
    state = read_state(stage)
    assert state is not None
    assert (state.label, state.total, state.seconds_left) == ("half of it", 0, None)
    assert [path.name for path in (stage / STATE_FILE).parent.iterdir()] == [STATE_FILE.name]


def test_without_a_stage_or_a_repository_no_file_is_written(
    stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stage / STATE_FILE).parent.rmdir()
    say("no repository")
    monkeypatch.delenv("DVC_STAGE")
    (stage / STATE_FILE).parent.mkdir()
    say("no stage")
    assert read_state(stage) is None


def test_no_thread_watches_a_bar() -> None:
    before = {*threading.enumerate()}
    for _ in track(range(2), total=2, label="work"):
        assert {*threading.enumerate()} <= before
