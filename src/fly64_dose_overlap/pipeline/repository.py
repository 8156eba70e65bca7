"""The repository around the work, and names for work by all that it depends on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

KEY_DIGITS = 20
CHECKPOINTS = Path(".dvc/tmp/checkpoints")
"""Of trainings, a folder each that is named by `work_key`, below the repository's root."""


def repository_root(start: Path) -> Path:
    """Return the DVC repository around ``start``; of a temporary copy, the repository it was made from.

    Without a repository it is ``start`` itself.
    """
    start = start.resolve()
    root = next((folder for folder in (start, *start.parents) if (folder / ".dvc").is_dir()), start)
    return Path(str(root).partition("/.dvc/tmp/exps/")[0])


def work_key(*parts: Any) -> str:
    """Return a short name for work that changes with anything its result depends on.

    Parts are JSON-able: settings, digests of code, and the SHA-256 of each input file.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:KEY_DIGITS]
