"""Checkpoints of a training."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_scan
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.learning import checkpoint
from fly64_dose_overlap.learning.checkpoint import HEADER, MAGIC, VERSION, CheckpointStore, checkpoint_folder


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "states")


def epoch_of(store: CheckpointStore) -> int | None:
    state = store.load()
    return None if state is None else state["epoch"]


def save(store: CheckpointStore, *epochs: int) -> None:
    for epoch in epochs:
        store.save(
            {"epoch": epoch, "weights": {"w": torch.full((3,), float(epoch))}, "history": [{"a": 1.5}]}
        )


# The store


def test_the_newest_state_comes_back(store: CheckpointStore) -> None:
    assert store.load() is None
    save(store, 1, 2, 3)
    state = store.load()
    assert state is not None
    assert state["epoch"] == 3
    assert state["history"] == [{"a": 1.5}]
    assert torch.equal(state["weights"]["w"], torch.full((3,), 3.0))
    assert sorted(path.name for path in store.folder.iterdir()) == ["last.pt", "previous.pt"]


def cut(content: bytes) -> bytes:
    return content[:-300]


def flipped(content: bytes) -> bytes:
    return content[:-50] + bytes([content[-50] ^ 1]) + content[-49:]


def of_another_version(content: bytes) -> bytes:
    return content[:8] + b"\x02" + content[9:]


DAMAGES = {
    "empty": (lambda _: b"", "it ends within its header"),
    "cut in the header": (lambda content: content[:20], "it ends within its header"),
    "cut": (cut, r"it has \d+ bytes, expected \d+"),
    "longer": (lambda content: content + b"x", r"it has \d+ bytes, expected \d+"),
    "one bit": (flipped, "its SHA-256 differs from the one it carries"),
    "zeros": (lambda content: bytes(len(content)), "it has no header of version 1"),
    "version": (of_another_version, "it has no header of version 1"),
    "without header": (lambda content: content[HEADER.size :], "it has no header of version 1"),
}


@pytest.mark.parametrize(("damage", "why"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_state_gives_way_to_the_previous_one(
    store: CheckpointStore, damage: Callable[[bytes], bytes], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(store, 1, 2)
    last = store.folder / "last.pt"
    last.write_bytes(damage(last.read_bytes()))
    assert epoch_of(store) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"train: checkpoint last\.pt is damaged \({why}\); trying an older one", first)
    assert second == "train: the older checkpoint previous.pt is whole and taken instead"


def test_a_damaged_state_never_takes_the_place_of_a_whole_one(store: CheckpointStore) -> None:
    save(store, 1, 2)
    last = store.folder / "last.pt"
    last.write_bytes(cut(last.read_bytes()))
    assert epoch_of(store) == 1
    save(store, 2)
    last.write_bytes(cut(last.read_bytes()))
    assert epoch_of(store) == 1


def test_no_whole_state_starts_anew(store: CheckpointStore, capsys: pytest.CaptureFixture[str]) -> None:
    save(store, 1, 2)
    for path in store.folder.iterdir():
        path.write_bytes(b"broken")
    assert store.load() is None
    *damaged, end = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in damaged] == ["last.pt", "previous.pt"]
    assert end == "train: no whole checkpoint is left; training starts anew"


@pytest.mark.parametrize("step", ["replace", "fsync"])
@pytest.mark.parametrize("call", [1, 2])
def test_an_interrupted_save_leaves_a_whole_state(
    store: CheckpointStore, step: str, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, 1, 2)
    calls = 0
    work = getattr(os, step)

    def interrupted(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        work(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            save(store, 3)
    assert epoch_of(store) == (3 if (step, call) == ("fsync", 2) else 2)
    save(store, 4)
    assert epoch_of(store) == 4


class _Payload:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("import pathlib; pathlib.Path('executed').touch()",)


def pickled_by_torch(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("write", [pickled_by_torch, pickle.dumps])
@pytest.mark.parametrize("headed", [False, True])
def test_a_pickle_is_never_executed(
    write: Callable[[Any], bytes],
    headed: bool,
    store: CheckpointStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    save(store, 1, 2)
    content = write({"epoch": 9, "payload": _Payload()})
    header = HEADER.pack(MAGIC, VERSION, len(content), hashlib.sha256(content).digest())
    (store.folder / "last.pt").write_bytes(header + content if headed else content)
    if headed:
        with pytest.raises(StudyError, match=r"last\.pt: is whole, but no checkpoint of this study"):
            store.load()
    else:
        assert epoch_of(store) == 1
    assert not Path("executed").exists()


def test_a_whole_file_that_holds_no_state_is_refused(store: CheckpointStore) -> None:
    save(store, 1)
    content = pickled_by_torch([1, 2])
    header = HEADER.pack(MAGIC, VERSION, len(content), hashlib.sha256(content).digest())
    (store.folder / "last.pt").write_bytes(header + content)
    with pytest.raises(StudyError, match=r"no checkpoint of this study \(it holds a list\); delete it"):
        store.load()


def test_a_lack_of_memory_is_not_taken_for_damage(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, 1, 2)

    def exhausted(*_: Any, **__: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", exhausted)
        with pytest.raises(MemoryError):
            store.load()
    assert epoch_of(store) == 2


def test_clear_forgets_all_states(store: CheckpointStore) -> None:
    store.clear()
    save(store, 1, 2)
    store.clear()
    assert not store.folder.exists()
    assert store.load() is None


# Where checkpoints lie


def test_the_folder_depends_on_arm_settings_data_and_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    first.write_bytes(b"one dose")
    second.write_bytes(b"another dose")
    settings = tiny_scan.train_params().model_dump()
    folders = [
        checkpoint_folder("train", settings, first),
        checkpoint_folder("train", settings, second),
        checkpoint_folder("supervise", settings, first),
        checkpoint_folder("train", {**settings, "epochs": 7}, first),
    ]
    assert checkpoint_folder("train", settings, first) == folders[0]
    monkeypatch.setattr(checkpoint, "CODE", ("physics",))
    folders.append(checkpoint_folder("train", settings, first))
    assert len(set(folders)) == 5
    assert {folder.parent for folder in folders} == {tmp_path / ".dvc/tmp/checkpoints"}
