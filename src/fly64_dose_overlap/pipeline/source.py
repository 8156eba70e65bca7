"""One revision of a study: its small files, and which results of dvc.lock are of its own parameters."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictInt, ValidationError

from fly64_dose_overlap.config import PARAMS_FILE, first_problem
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline import cells
from fly64_dose_overlap.pipeline.lock import LOCK_NAME, LockedStage, parse_lock
from fly64_dose_overlap.pipeline.matrix.plan import TARGET
from fly64_dose_overlap.report.study import SUCCESS
from fly64_dose_overlap.yaml_text import at, parse_yaml

NO_RESULT = "without result"
STALE = "result of other parameters"
EVALUATION = cells.EVALUATION.as_posix()

Texts = dict[str, str]
"""Small files of a revision by path."""


class _Overlap(BaseModel):
    views: dict[str, Any]


class _Training(BaseModel):
    seed: StrictInt | None = None


class _Cell(BaseModel):
    """What the report needs of a params.yaml, of whatever commit."""

    dose: StrictInt
    doses: Annotated[list[StrictInt], Field(min_length=1)]
    view: str
    learned: list[str] = []
    iterative: list[str] = []
    overlap: _Overlap
    seed: StrictInt | None = None
    train: _Training = _Training()


@dataclass(frozen=True)
class Source:
    """A commit, an experiment of one, or the working tree."""

    name: str
    revision: str
    """Full git revision; that of a queued, running or failed experiment holds its parameters,
    but the results of the commit."""
    state: str
    """What DVC says of it: success, queued, running or failed."""
    texts: Texts

    def where(self, path: Path | str) -> str:
        """Return the name of one of its files for an error."""
        return f"{f'{self.name} {self.revision[:7]}'.strip()}: {path}"

    @cached_property
    def params(self) -> dict[str, Any]:
        """Content of params.yaml, with what tells a cell; empty if there is no such file."""
        if PARAMS_FILE.name not in self.texts:
            return {}
        where = self.where(PARAMS_FILE)
        found = parse_yaml(self.texts[PARAMS_FILE.name], where=where)
        try:
            _Cell.model_validate(found)
        except ValidationError as error:
            raise StudyError(where, first_problem(error), "mend it, or leave this revision out") from None
        return found

    @cached_property
    def lock(self) -> dict[str, LockedStage]:
        """Content of dvc.lock by stage."""
        return parse_lock(self.texts.get(LOCK_NAME, "stages: {}"), where=self.where(LOCK_NAME))


def state_of(source: Source) -> str:
    """Say whether the scores of a revision are those of its own parameters.

    An experiment that ran the training alone, and a commit whose parameters were edited
    after the run, hold the scores of another cell.
    """
    texts, lock = source.texts, source.lock
    if EVALUATION not in texts or TARGET not in lock:
        return NO_RESULT
    recorded = {out.path: out.md5 for out in lock[TARGET].outs}
    if recorded.get(EVALUATION) != hashlib.md5(texts[EVALUATION].encode(), usedforsecurity=False).hexdigest():
        return STALE
    return SUCCESS if _of_parameters(source, TARGET) else STALE


def _of_parameters(source: Source, last: str) -> bool:
    """Whether a stage and those before it ran with the source's own parameters."""
    used = (stage.params.get(PARAMS_FILE.name, {}) for stage in _upstream(source, last).values())
    items = (item for each in used for item in each.items())
    return all(at(source.params, key) == value for key, value in items if key != "doses")


def _upstream(source: Source, last: str) -> dict[str, LockedStage]:
    """Return a stage and those that made what it read, of a folder the results of the cell's methods."""
    lock, params = source.lock, source.params
    makers = {out.path: name for name, stage in lock.items() for out in stage.outs}
    methods = {*params.get("learned", ()), *params.get("iterative", ())}
    inside = {path: Path(path).parent.as_posix() for path in makers if Path(path).name in methods}
    found: set[str] = set()
    waiting = {last}
    while waiting:
        stage = waiting.pop()
        found.add(stage)
        read = {dependency.path for dependency in lock[stage].deps}
        waiting |= {name for path, name in makers.items() if {path, inside.get(path)} & read} - found
    return {stage: lock[stage] for stage in found}


def is_current(source: Source, last: str) -> bool:
    """Whether a stage read what the stages before it make now: an experiment runs those of one cell only."""
    made = {out.path: out.md5 for stage in source.lock.values() for out in stage.outs}
    read = [dependency for stage in _upstream(source, last).values() for dependency in stage.deps]
    return _of_parameters(source, last) and all(made.get(d.path, d.md5) == d.md5 for d in read)


def data_of(source: Source) -> dict[str, str]:
    """Return the MD5 of each dataset that the evaluated cell depends on and that is up to date.

    dvc.lock keeps those of other cells too, which may be of an earlier base set.
    """
    used = {name: stage for name, stage in _upstream(source, TARGET).items() if is_current(source, name)}
    outs = [out for stage in used.values() for out in stage.outs if out.path.startswith("data/")]
    return {out.path: out.md5 or "" for out in outs}
