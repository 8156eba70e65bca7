"""Checkpoints: where training goes on after an interruption.

A file is what `torch.save` makes, a zip archive whose checksums are compared before any of it
is decoded; nothing in it is executed.
"""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any, cast

import torch

from fly64_dose_overlap.errors import StudyError, as_refusal
from fly64_dose_overlap.files.atomic import atomic_path
from fly64_dose_overlap.progress import say


class _DamagedError(Exception):
    """A file is not the one that was written."""


class CheckpointStore:
    """Keep the last two states of a training; the older one serves if the newer is damaged.

    Parameters
    ----------
    folder : Path or None
        Of this training alone; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def save(self, state: dict[str, Any]) -> None:
        """Write a state whole or not at all; the last one becomes the previous one."""
        if self.folder is None:
            return
        last = self.folder / "last.pt"
        with atomic_path(last) as temporary:
            with temporary.open("wb") as file:
                torch.save(state, file)
            if last.exists():
                os.replace(last, self.folder / "previous.pt")

    def load(self) -> dict[str, Any] | None:
        """Return the newest state that is whole, or None.

        A damaged one is reported and put aside, so that it never takes the place of a
        whole one.

        Raises
        ------
        StudyError
            If a file is whole and still no checkpoint: nothing of ours wrote it.
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


def _read(path: Path) -> dict[str, Any]:
    """Return the state in a file whose checksums are right."""
    if not path.is_file():
        raise _DamagedError("it is no regular file")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise _DamagedError(f"it is no whole archive: {error}") from None
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EINVAL):
            raise
        raise _DamagedError(f"it cannot be read: {error.strerror}") from None
    if damaged is not None:
        raise _DamagedError(f"the checksum of {damaged} is wrong")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
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
