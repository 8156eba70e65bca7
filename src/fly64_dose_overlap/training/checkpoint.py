"""Checkpoints: where training goes on after an interruption.

They lie outside the pipeline's outputs, under ``.dvc/tmp`` of the repository, in a
folder named by everything that training depends on. A checkpoint can therefore never
leak into the training of another dose, and an experiment in a temporary copy of the
repository finds its own again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

import fly64_dose_overlap
from fly64_dose_overlap.config import TrainParams
from fly64_dose_overlap.data.atomic import atomic_path, sha256_of
from fly64_dose_overlap.progress import say

CODE = ("data", "physics", "networks", "scoring", "training", "seeding.py")
"""Parts of the package whose change makes a checkpoint worthless."""
KEY_DIGITS = 20


def checkpoint_folder(config: TrainParams, train_path: Path) -> Path:
    """Return the folder of the checkpoints of one training."""
    return repository_root(Path.cwd()) / ".dvc" / "tmp" / "checkpoints" / _key(config, train_path)


def repository_root(start: Path) -> Path:
    """Return the DVC repository around ``start``; of a temporary copy, the repository it was made from.

    Without a repository it is ``start`` itself.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / ".dvc").is_dir():
            parts = folder.parts
            for index in range(1, len(parts) - 2):
                if parts[index : index + 3] == (".dvc", "tmp", "exps"):
                    return Path(*parts[:index])
            return folder
    return start


def _key(config: TrainParams, train_path: Path) -> str:
    digest = hashlib.sha256(json.dumps(config.model_dump(), sort_keys=True).encode())
    digest.update(sha256_of(train_path).encode())
    package = Path(fly64_dose_overlap.__file__).parent
    for part in CODE:
        path = package / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    digest.update(torch.__version__.encode())
    return digest.hexdigest()[:KEY_DIGITS]


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
