"""A few of each fault; `make faults` injects them all."""

from __future__ import annotations

import importlib
import random
import resource
import sys
from pathlib import Path

import pytest

from faults import kills, limits, storage
from faults.__main__ import PARTS, describe
from faults.command import Ended, Lost, Running, Tally, mend_lock
from faults.outcome import Outcome
from faults.table import BEGIN, DOCUMENT, END, with_rows
from faults.victim import require_whole_objects
from study_copy import StudyCopy

SLEEP = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)"]
HARNESS = [name for name in PARTS if name not in ("fuzz", "wrong", "load")]
"""The parts that no other test runs."""


@pytest.mark.slow
@pytest.mark.parametrize("name", HARNESS)
def test_nothing_is_lost(name: str) -> None:
    outcomes = list(importlib.import_module(f"faults.{name}").run(quick=True))
    assert outcomes
    assert [line for outcome in outcomes for line in outcome.lost] == []
    assert all(outcome.tried == outcome.survived for outcome in outcomes)


@pytest.fixture
def study(tmp_path: Path) -> StudyCopy:
    root = tmp_path / "study"
    root.mkdir()
    return StudyCopy(root)


def test_a_killed_command_is_measured(study: StudyCopy) -> None:
    running = Running(SLEEP, study)
    assert running.runs_when(lambda: "ready" in running.printed)
    ended = running.kill()
    assert ended.returncode == -9
    assert ended.seconds < 60
    assert ended.mib > 1
    assert ended.last_line == "ready"


def test_an_unreadable_list_of_locks_is_deleted_as_the_message_says(study: StudyCopy) -> None:
    lock = study.root / ".dvc/tmp/rwlock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    message = "ERROR: Unable to read RWLock-file '.dvc/tmp/rwlock'. JSON structure is corrupted"
    assert not mend_lock(Ended(1, 0.0, 0.0, "ERROR: other"), study)
    assert lock.exists()
    assert mend_lock(Ended(1, 0.0, 0.0, message), study)
    assert not lock.exists()
    for name, message in (
        (".git/index.lock", "ERROR: unexpected error - the index is locked; this might be"),
        (".git/HEAD.lock", "ERROR: unexpected error - failed to lock file '/x/.git/HEAD.lock' for writing: "),
    ):
        lock = study.root / name
        lock.parent.mkdir(exist_ok=True)
        lock.touch()
        assert mend_lock(Ended(255, 0.0, 0.0, message), study)
        assert not lock.exists()
        assert not mend_lock(Ended(255, 0.0, 0.0, message), study)


def test_a_command_without_end_is_lost(study: StudyCopy) -> None:
    running = Running(SLEEP, study)
    with pytest.raises(Lost, match=r"no end within 0 s"):
        running.end(0.1)
    assert not running.runs()


def test_a_tally_counts_what_was_lost() -> None:
    tally = Tally("kills")
    with tally.trial("first"):
        pass
    with tally.trial("chain", 3):
        raise Lost("two\nlines")
    assert tally.outcome() == Outcome("kills", 4, 3, 0.0, 0.0, ("chain: two lines",))


def test_an_exception_that_is_no_loss_is_a_bug_of_the_harness() -> None:
    with pytest.raises(KeyError), Tally("kills").trial("first"):
        raise KeyError("bug")


def test_a_limit_on_files_makes_one_line_the_answer(study: StudyCopy) -> None:
    line = [sys.executable, "-c", "import pathlib; pathlib.Path('file').write_bytes(bytes(1000))"]
    with pytest.raises(Lost, match="a traceback, OSError"):
        limits.require_one_line(Running(line, study, limits.limited(resource.RLIMIT_FSIZE, 100)).end())
    line = [sys.executable, "-c", "print('error: file: no room'); raise SystemExit(1)"]
    limits.require_one_line(Running(line, study).end())


@pytest.mark.parametrize("seed", range(6))
def test_rot_in_an_object_is_found(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "09" / "8f6bcd4621d373cade4e832627b4f6"
    path.parent.mkdir()
    path.write_bytes(b"test")
    path.rename(path := path.with_name("8f6bcd4621d373cade4e832627b4f6"))
    require_whole_objects(tmp_path)
    before = path.stat().st_mtime_ns
    storage.damage(path, random.Random(seed))
    assert path.stat().st_mtime_ns == before
    with pytest.raises(Lost, match="other content than its name says"):
        require_whole_objects(tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "good"),
    [
        ("", "", True),
        (" epoch 1/4: train/loss 2", "resumed from the checkpoint of epoch 1/4", True),
        (" epoch 1/4: train/loss 2", "resumed from the checkpoint of epoch 2/4", True),
        (" epoch 2/4: train/loss 2", "resumed from the checkpoint of epoch 1/4", False),
        (" epoch 1/4: train/loss 2", "", False),
        (" epoch 4/4: train/loss 2", "", True),
    ],
)
def test_training_must_go_on_where_it_was(before: str, after: str, good: bool) -> None:
    if good:
        kills.require_resumed(before, after)
        return
    with pytest.raises(Lost, match="it went on after epoch"):
        kills.require_resumed(before, after)


def test_rows_of_the_table_replace_those_of_the_same_kind() -> None:
    text = f"before\n{BEGIN}\n{END}\nafter\n"
    once = with_rows(text, [Outcome("a", 2, 2, 1.0, 10.0), Outcome("b", 1, 1, 1.0, 10.0)])
    twice = with_rows(once, [Outcome("a", 1200, 1199, 2.5, 20.4, ("one",))])
    rows = [line for line in twice.splitlines() if line.startswith("| ")]
    assert rows[1:] == ["| a | 1,200 | 1,199 | 1 | 2.5 | 20 |", "| b | 1 | 1 | 0 | 1.0 | 10 |"]
    assert twice.startswith("before\n")
    assert twice.endswith("\nafter\n")
    with pytest.raises(ValueError, match="once each"):
        with_rows("no marks", [])


def test_the_document_has_a_place_for_the_table() -> None:
    assert BEGIN in with_rows(DOCUMENT.read_text(encoding="utf-8"), [])


def test_an_outcome_is_one_line() -> None:
    shown = describe(Outcome("kills", 4, 3, 1.25, 99.6, ("chain: two lines",)))
    assert shown == "kills: 4 tried, 3 survived, 1 lost, 1.2 s, 100 MiB at most"
