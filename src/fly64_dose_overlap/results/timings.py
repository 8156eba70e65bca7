"""How long results took to make, kept outside the pipeline's outputs.

Outputs have the same bytes every time; a time would give each another hash. Timings lie
under ``.dvc/tmp`` of the repository, by the SHA-256 of what was made. They stay on the
machine: a result that was pulled has none.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fly64_dose_overlap.config import first_problem
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.atomic import read_json, write_json_atomic

FOLDER = Path(".dvc/tmp/timings")


class _Record(BaseModel):
    """What a file of a time holds."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    seconds: Annotated[float, Field(ge=0)]
    cpu_seconds: Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Timing:
    """Time on the clock, and of all cores of the process."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __add__(self, other: Timing) -> Timing:
        """Return the time of both."""
        return Timing(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)

    def scaled(self, part: float) -> Timing:
        """Return the time of a part of the work."""
        return Timing(self.seconds * part, self.cpu_seconds * part)


class Stopwatch:
    """Measure from now on."""

    def __init__(self) -> None:
        self._seconds = time.monotonic()
        self._cpu_seconds = time.process_time()

    def read(self) -> Timing:
        """Return the time spent so far."""
        return Timing(time.monotonic() - self._seconds, time.process_time() - self._cpu_seconds)

    def add(self, before: Timing) -> None:
        """Count in what an earlier, interrupted process spent on the same work."""
        self._seconds -= before.seconds
        self._cpu_seconds -= before.cpu_seconds


def record_timing(root: Path, digest: str, timing: Timing) -> Path:
    """Write how long it took to make a file; an earlier record gives way.

    Parameters
    ----------
    root : Path
        Of the repository, from `repository_root`.
    digest : str
        SHA-256 of the file that was made.
    timing : Timing

    Returns
    -------
    path : Path
        The record.
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
