"""``dvc.lock``: what each stage read and made, as DVC recorded it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fly64_dose_overlap.config import first_problem
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import read_text
from fly64_dose_overlap.yaml_text import parse_yaml

LOCK_NAME = "dvc.lock"
MAX_LOCK_BYTES = 4 * 2**20
"""Thirty times that of the study."""
REMAKE = "git restore dvc.lock brings back that of the last commit"
CONFLICT_MARKS = ("<<<<<<<", "=======", ">>>>>>>")

Checksum = Annotated[str, Field(pattern=r"^[0-9a-f]{32}(\.dir)?$")]


class _Entry(BaseModel):
    # DVC adds keys of its own, such as sizes, which nothing here needs.
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class LockedFile(_Entry):
    """A file or folder with its MD5; that of a folder ends in ``.dir``."""

    path: Annotated[str, Field(min_length=1)]
    md5: Checksum | None = None


class LockedStage(_Entry):
    """What one stage read and made, and the parameters that it used, by file."""

    deps: list[LockedFile] = []
    outs: list[LockedFile] = []
    params: dict[str, dict[str, Any]] = {}


class _Lock(_Entry):
    stages: dict[str, LockedStage] = {}


def object_path(cache: Path, checksum: str) -> Path:
    """Return where DVC's cache keeps an object."""
    return cache / checksum[:2] / checksum[2:]


def read_lock(path: Path) -> str:
    """Return the text of a ``dvc.lock``.

    Raises
    ------
    MissingFileError
        If there is no such file.
    StudyError
        If it is no file, or not one that DVC wrote.
    """
    return read_text(path, MAX_LOCK_BYTES, missing="make the data first: dvc repro overlap", damaged=REMAKE)


def parse_lock(text: str, *, where: str = LOCK_NAME) -> dict[str, LockedStage]:
    """Return the stages of a ``dvc.lock`` by name; ``where`` names it in errors.

    Raises
    ------
    StudyError
        If it is damaged, or holds the marks of a conflict that git could not settle.
    """
    if any(line.startswith(CONFLICT_MARKS) for line in text.splitlines()):
        raise StudyError(where, "holds marks of a merge conflict", "settle it, then: dvc repro")
    content = parse_yaml(text, where=where)
    try:
        return _Lock.model_validate(content).stages
    except ValidationError as error:
        raise StudyError(where, f"is damaged ({first_problem(error)})", REMAKE) from None
