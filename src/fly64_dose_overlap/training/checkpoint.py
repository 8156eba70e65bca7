"""Checkpoints: where training goes on after an interruption.

They lie outside the pipeline's outputs, under ``.dvc/tmp`` of the repository, in a
folder named by everything that training depends on. A checkpoint can therefore never
leak into the training of another dose, and an experiment in a temporary copy of the
repository finds its own again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fly64_dose_overlap.data.atomic import atomic_path, sha256_of
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.results.repository import repository_root, work_key

CODE = ("data", "physics", "networks", "scoring", "training", "seeding.py")
"""Parts of the package whose change makes a checkpoint worthless."""


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

    def save(self, state: dict[str, Any]) -> None:
        """Write a state whole or not at all; the last one becomes the previous one."""
        with atomic_path(self._last) as temporary:
            torch.save(state, temporary)
            if self._last.exists():
                shutil.copyfile(self._last, self._previous)

    def load(self) -> dict[str, Any] | None:
        """Return the newest readable state, or None; a damaged one is reported."""
        for path in (self._last, self._previous):
            if not path.exists():
                continue
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:
                # Damaged bytes can make the unpickler raise anything, even IndexError.
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                say(f"train: checkpoint {path.name} is damaged ({reason}); trying an older one")
                continue
            if isinstance(state, dict):
                return state
        return None

    def clear(self) -> None:
        """Forget all states."""
        shutil.rmtree(self.folder, ignore_errors=True)
