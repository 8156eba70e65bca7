"""Checkpoints: where training goes on after an interruption.

A file is a SHA-256 and what `torch.save` makes, which is decoded only if that is its digest;
nothing in it is executed. The checksums of the archive itself leave a good part of it open.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
from pathlib import Path
from typing import Any, cast

import torch

from fly64_dose_overlap.errors import StudyError, as_refusal
from fly64_dose_overlap.files.atomic import atomic_path
from fly64_dose_overlap.progress import say

DIGEST_BYTES = 32


class _DamagedError(Exception):
    """A file is not the one that was written."""


class CheckpointStore:
    """Keep the last two states of a training; the older one serves if the newer is damaged.

    The ``folder`` is of this training alone; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def save(self, state: dict[str, Any]) -> None:
        """Write a state whole or not at all; the last one becomes the previous one."""
        if self.folder is None:
            return
        last = self.folder / "last.pt"
        with atomic_path(last) as temporary:
            temporary.write_bytes(sealed(state))
            if last.exists():
                os.replace(last, self.folder / "previous.pt")

    def load(self) -> dict[str, Any] | None:
        """Return the newest state that is whole, or None.

        A damaged one is reported and put aside, so that it never takes the place of a
        whole one. A file that is whole and still no checkpoint is refused: nothing of ours wrote it.
        """
        if self.folder is None:
            return None
        found = False
        for name in ("last.pt", "previous.pt"):
            path = self.folder / name
            if not path.exists():
                continue
            try:
                state = _read(path)
            except _DamagedError as error:
                found = True
                say(f"train: checkpoint {path.name} is damaged ({error}); trying an older one")
                os.replace(path, path.with_name("damaged.pt"))
                continue
            if found:
                say(f"train: the older checkpoint {path.name} is whole and taken instead")
            return state
        if found:
            say("train: no whole checkpoint is left; training starts anew")
        return None

    def clear(self) -> None:
        """Forget all states."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def sealed(state: Any) -> bytes:
    """Return the content of a checkpoint."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    return hashlib.sha256(content).digest() + content


def _read(path: Path) -> dict[str, Any]:
    """Return the state in a file whose digest is right."""
    if not path.is_file():
        raise _DamagedError("it is no regular file")
    try:
        with path.open("rb") as file:
            digest, content = file.read(DIGEST_BYTES), file.read()
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EINVAL):
            raise
        raise _DamagedError(f"it cannot be read: {error.strerror}") from None
    if hashlib.sha256(content).digest() != digest:
        raise _DamagedError("its SHA-256 is not the one that it begins with")
    try:
        state: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        # These bytes are those that were written: memory has run out, or they were never a checkpoint.
        if as_refusal(error) is not None:
            raise
        raise _foreign(path, str(error).split("\n")[0] or type(error).__name__) from None
    if not isinstance(state, dict):
        raise _foreign(path, f"it holds a {type(state).__name__}")
    return cast(dict[str, Any], state)


def _foreign(path: Path, why: str) -> StudyError:
    return StudyError(str(path), f"is whole, but no checkpoint of this study ({why})", "delete it")
