"""The repository around the work, and names for work by all that it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

KEY_DIGITS = 20
PACKAGE = Path(__file__).parents[1]


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


def work_key(*parts: Any, code: Sequence[str]) -> str:
    """Return a short name for work that changes with anything its result depends on.

    Torch's version always counts; it is read without importing torch.

    Parameters
    ----------
    *parts : JSON-able
        Settings, and the SHA-256 of each input file.
    code : sequence of str
        Folders and files of the package, such as ``"physics"`` or ``"seeding.py"``.
    """
    digest = hashlib.sha256(json.dumps([*parts, version("torch")], sort_keys=True).encode())
    for part in code:
        path = PACKAGE / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(PACKAGE).as_posix().encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:KEY_DIGITS]
