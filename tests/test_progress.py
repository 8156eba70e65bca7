"""Progress of long work."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from fly64_dose_overlap import progress
from fly64_dose_overlap.progress import say, track


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
