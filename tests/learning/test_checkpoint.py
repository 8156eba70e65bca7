"""Checkpoints of a training."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.learning.checkpoint import DIGEST_BYTES, CheckpointStore, sealed


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "states")


def folder_of(store: CheckpointStore) -> Path:
    assert store.folder is not None
    return store.folder


def epoch_of(store: CheckpointStore) -> int | None:
    state = store.load()
    return None if state is None else state["epoch"]


def save(store: CheckpointStore, *epochs: int) -> None:
    for epoch in epochs:
        store.save(
            {"epoch": epoch, "weights": {"w": torch.full((3,), float(epoch))}, "history": [{"a": 1.5}]}
        )


def test_the_newest_state_comes_back(store: CheckpointStore) -> None:
    assert store.load() is None
    save(store, 1, 2, 3)
    state = store.load()
    assert state is not None
    assert state["epoch"] == 3
    assert state["history"] == [{"a": 1.5}]
    assert torch.equal(state["weights"]["w"], torch.full((3,), 3.0))
    assert sorted(path.name for path in folder_of(store).iterdir()) == ["last.pt", "previous.pt"]


def cut(content: bytes) -> bytes:
    return content[:-300]


def flipped(content: bytes) -> bytes:
    """Change one bit of a weight."""
    place = content.index(torch.full((3,), 2.0).numpy().tobytes())
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES = {
    "empty": lambda _: b"",
    "cut in the digest": lambda content: content[:20],
    "cut": cut,
    "longer": lambda content: content + b"x",
    "one bit": flipped,
    "zeros": lambda content: bytes(len(content)),
    "without its digest": lambda content: content[DIGEST_BYTES:],
    "another file": lambda _: b"no checkpoint",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_state_gives_way_to_the_previous_one(
    store: CheckpointStore, damage: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    save(store, 1, 2)
    last = folder_of(store) / "last.pt"
    last.write_bytes(damage(last.read_bytes()))
    assert epoch_of(store) == 1
    first, second = capsys.readouterr().err.splitlines()
    why = "its SHA-256 is not the one that it begins with"
    assert first == f"train: checkpoint last.pt is damaged ({why}); trying an older one"
    assert second == "train: the older checkpoint previous.pt is whole and taken instead"


def test_a_damaged_state_never_takes_the_place_of_a_whole_one(store: CheckpointStore) -> None:
    save(store, 1, 2)
    last = folder_of(store) / "last.pt"
    last.write_bytes(cut(last.read_bytes()))
    assert epoch_of(store) == 1
    save(store, 2)
    last.write_bytes(cut(last.read_bytes()))
    assert epoch_of(store) == 1


def test_no_whole_state_starts_anew(store: CheckpointStore, capsys: pytest.CaptureFixture[str]) -> None:
    save(store, 1, 2)
    for path in folder_of(store).iterdir():
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


@pytest.mark.parametrize("write", [sealed, pickle.dumps])
def test_a_pickle_is_never_executed(
    write: Callable[[Any], bytes], store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its digest it is whole and foreign; by itself it is a damaged file."""
    monkeypatch.chdir(tmp_path)
    save(store, 1, 2)
    (folder_of(store) / "last.pt").write_bytes(write({"epoch": 9, "payload": _Payload()}))
    if write is sealed:
        with pytest.raises(StudyError, match=r"last\.pt: is whole, but no checkpoint of this study"):
            store.load()
    else:
        assert epoch_of(store) == 1
    assert not Path("executed").exists()


def test_a_whole_file_that_holds_no_state_is_refused(store: CheckpointStore) -> None:
    save(store, 1)
    (folder_of(store) / "last.pt").write_bytes(sealed([1, 2]))
    with pytest.raises(StudyError, match=r"no checkpoint of this study \(it holds a list\); delete it"):
        store.load()


@pytest.mark.parametrize("flip", [0x01, 0x80])
def test_every_flip_of_a_bit_is_found(store: CheckpointStore, flip: int) -> None:
    save(store, 1, 2)
    last, previous = folder_of(store) / "last.pt", folder_of(store) / "previous.pt"
    whole, older = last.read_bytes(), previous.read_bytes()
    for place in range(0, len(whole), 7):
        last.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
        previous.write_bytes(older)
        assert epoch_of(store) == 1, place


@pytest.mark.parametrize("there", ["folder", "fifo"])
def test_what_is_no_file_is_damaged(store: CheckpointStore, there: str) -> None:
    save(store, 1, 2)
    last = folder_of(store) / "last.pt"
    last.unlink()
    last.mkdir() if there == "folder" else os.mkfifo(last)
    assert epoch_of(store) == 1


def test_without_a_folder_nothing_is_kept() -> None:
    nowhere = CheckpointStore(None)
    save(nowhere, 1)
    assert nowhere.load() is None
    nowhere.clear()


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
    assert not folder_of(store).exists()
    assert store.load() is None
