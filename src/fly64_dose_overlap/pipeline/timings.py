"""How long results took to make, kept outside the pipeline's outputs.

Outputs have the same bytes every time; a time would give each another hash. Timings lie
under ``.dvc/tmp`` of the repository, by the SHA-256 of what was made. They stay on the
machine: a result that was pulled has none.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from fly64_dose_overlap.config import Section, first_problem
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.atomic import read_json, write_json_atomic
from fly64_dose_overlap.timing import Timing

FOLDER = Path(".dvc/tmp/timings")


class _Record(Section):
    """What a file of a time holds."""

    seconds: Annotated[float, Field(ge=0)]
    cpu_seconds: Annotated[float, Field(ge=0)]


def record_timing(root: Path, digest: str, timing: Timing) -> Path:
    """Write how long it took to make the file of a SHA-256; an earlier record gives way.

    ``root`` is that of the repository, from `repository_root`; the record's path is returned.
    """
    path = root / FOLDER / f"{digest}.json"
    write_json_atomic(path, asdict(timing))
    return path


def read_timing(root: Path, digest: str) -> Timing | None:
    """Return how long it took to make a file, or None if it was not made here.

    Raises
    ------
    StudyError
        If the record is damaged.
    """
    path = root / FOLDER / f"{digest}.json"
    try:
        record = _Record.model_validate(read_json(path, damaged="delete it"))
    except MissingFileError:
        return None
    except ValidationError as error:
        raise StudyError(str(path), f"is no record of a time ({first_problem(error)})", "delete it") from None
    return Timing(record.seconds, record.cpu_seconds)


def cpu_seconds(root: Path) -> dict[str, float]:
    """Return the time on the processor of everything that was made here, by SHA-256."""
    found = ((path.stem, read_timing(root, path.stem)) for path in sorted((root / FOLDER).glob("*.json")))
    return {digest: timing.cpu_seconds for digest, timing in found if timing}
