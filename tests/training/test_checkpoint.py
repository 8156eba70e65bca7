"""Checkpoints of a training."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_scan
from fly64_dose_overlap.training import checkpoint
from fly64_dose_overlap.training.checkpoint import CheckpointStore, checkpoint_folder


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


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no checkpoint\n", None])
def test_a_damaged_newest_state_gives_way_to_the_previous_one(
    store: CheckpointStore, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    save(store, 1, 2)
    last = store.folder / "last.pt"
    last.write_bytes(last.read_bytes()[:-300] if content is None else content)
    assert epoch_of(store) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("train: checkpoint last.pt is damaged (")
    assert told[0].endswith("); trying an older one")


def test_no_readable_state_starts_anew(store: CheckpointStore, capsys: pytest.CaptureFixture[str]) -> None:
    save(store, 1, 2)
    for path in store.folder.iterdir():
        path.write_bytes(b"broken")
    assert store.load() is None
    assert [line.split()[2] for line in capsys.readouterr().err.splitlines()] == ["last.pt", "previous.pt"]


def test_an_interrupted_save_leaves_the_last_state(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, 1, 2)

    def half_written(_: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(KeyboardInterrupt):
        save(store, 3)
    assert epoch_of(store) == 2


class _Payload:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("import pathlib; pathlib.Path('executed').touch()",)


@pytest.mark.parametrize("writer", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state, 2))])
def test_a_pickle_is_never_executed(
    writer: Any, store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(store, 1, 2)
    writer({"epoch": 9, "payload": _Payload()}, store.folder / "last.pt")
    assert epoch_of(store) == 1
    assert not Path("executed").exists()


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
