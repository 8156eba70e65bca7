"""Parameters that note which of their keys are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel


class Recording:
    """Stand in for parameters and note which keys are read."""

    def __init__(self, target: Any, seen: set[str], prefix: str = "") -> None:
        self.__dict__.update(_target=target, _seen=seen, _prefix=prefix)

    def _give(self, key: str, value: Any) -> Any:
        if isinstance(value, BaseModel | dict):
            return Recording(value, self._seen, f"{self._prefix}{key}.")
        self._seen.add(f"{self._prefix}{key}")
        return value

    def __getattr__(self, name: str) -> Any:
        described = getattr(type(self._target), name, None)
        if isinstance(described, property) and described.fget:
            return described.fget(self)
        return self._give(name, getattr(self._target, name))

    def __contains__(self, key: str) -> bool:
        return key in self._target

    def __getitem__(self, key: str) -> Any:
        if self._prefix == "methods.":
            self._seen.add(f"methods.{key}")
            return self._target[key]
        return self._give(key, self._target[key])


def covers(declared: str, key: str) -> bool:
    """Return whether a declared parameter is a key or holds it."""
    return key == declared or key.startswith(f"{declared}.")


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
