"""Checkpoints: where training goes on after an interruption.

They lie outside the pipeline's outputs, under ``.dvc/tmp`` of the repository, in a
folder named by everything that training depends on. A checkpoint can therefore never
leak into the training of another dose, and an experiment in a temporary copy of the
repository finds its own again.

A file is a header and what `torch.save` makes. The header holds the length and the SHA-256
of the rest, which are compared before any of it is decoded.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from fly64_dose_overlap.errors import StudyError, as_refusal
from fly64_dose_overlap.files.atomic import atomic_path, sha256_of
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.results.repository import repository_root, work_key

CODE = ("files", "physics", "learning", "scores", "seeding.py")
"""Parts of the package whose change makes a checkpoint worthless."""

MAGIC = b"FLY64CKP"
VERSION = 1
HEADER = struct.Struct("<8sIQ32s")
"""Magic, version, bytes that follow, their SHA-256."""


class _DamagedError(Exception):
    """A file is not the one that was written."""


def checkpoint_folder(arm: str, settings: Mapping[str, Any], train_path: Path) -> Path:
    """Return the folder of the checkpoints of one training.

    Parameters
    ----------
    arm : str
        Name of the way of training.
    settings : mapping
        JSON-able; all parameters that the training reads.
    train_path : Path
        Training data.
    """
    key = work_key(arm, dict(settings), sha256_of(train_path), code=CODE)
    return repository_root(Path.cwd()) / ".dvc" / "tmp" / "checkpoints" / key


class CheckpointStore:
    """Keep the last two states of a training; the older one serves if the newer is damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last = folder / "last.pt"
        self._previous = folder / "previous.pt"
        self._damaged = folder / "damaged.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Write a state whole or not at all; the last one becomes the previous one."""
        content = io.BytesIO()
        torch.save(state, content)
        with atomic_path(self._last) as temporary:
            temporary.write_bytes(_with_header(content.getbuffer()))
            if self._last.exists():
                os.replace(self._last, self._previous)

    def load(self) -> dict[str, Any] | None:
        """Return the newest state that is whole, or None.

        A damaged one is reported and put aside, so that it never takes the place of a
        whole one.

        Raises
        ------
        StudyError
            If a file is whole and still no checkpoint: nothing of ours wrote it.
        """
        found = False
        for path in (self._last, self._previous):
            if not path.exists():
                continue
            try:
                state = _read(path)
            except _DamagedError as error:
                found = True
                say(f"train: checkpoint {path.name} is damaged ({error}); trying an older one")
                os.replace(path, self._damaged)
                continue
            if found:
                say(f"train: the older checkpoint {path.name} is whole and taken instead")
            return state
        if found:
            say("train: no whole checkpoint is left; training starts anew")
        return None

    def clear(self) -> None:
        """Forget all states."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _with_header(payload: memoryview) -> bytes:
    return HEADER.pack(MAGIC, VERSION, len(payload), hashlib.sha256(payload).digest()) + payload


def _read(path: Path) -> dict[str, Any]:
    """Return the state in a file whose length and SHA-256 are right."""
    if not path.is_file():
        raise _DamagedError("it is no regular file")
    try:
        with path.open("rb") as file:
            payload = _checked_payload(file.read(HEADER.size), path.stat().st_size, file)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise _DamagedError(f"it cannot be read: {error.strerror}") from None
    try:
        state: Any = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:
        # These bytes are those that were written: memory has run out, or they were never a checkpoint.
        if as_refusal(error) is not None:
            raise
        raise _foreign(path, str(error).split("\n")[0] or type(error).__name__) from None
    if not isinstance(state, dict):
        raise _foreign(path, f"it holds a {type(state).__name__}")
    return cast(dict[str, Any], state)


def _checked_payload(header: bytes, size: int, file: BinaryIO) -> bytes:
    if len(header) < HEADER.size:
        raise _DamagedError("it ends within its header")
    magic, version, length, digest = HEADER.unpack(header)
    if magic != MAGIC or version != VERSION:
        raise _DamagedError(f"it has no header of version {VERSION}")
    if size != HEADER.size + length:
        raise _DamagedError(f"it has {size} bytes, expected {HEADER.size + length}")
    payload = file.read()
    if hashlib.sha256(payload).digest() != digest:
        raise _DamagedError("its SHA-256 differs from the one it carries")
    return payload


def _foreign(path: Path, why: str) -> StudyError:
    return StudyError(str(path), f"is whole, but no checkpoint of this study ({why})", "delete it")
