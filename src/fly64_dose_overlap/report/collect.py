"""Every experiment of the study, read from git by its revision."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.provenance import dumps
from fly64_dose_overlap.report.revisions import Entry, entries_of, read_texts
from fly64_dose_overlap.report.study import SUCCESS, Curve, Run, Study, make_study, settings
from fly64_dose_overlap.results.lock import LOCK_NAME, LockedStage, parse_lock

COMMIT = "commit"
"""Name of the run that is the commit itself and no experiment."""
NO_RESULT = "without result"
STALE = "result of other parameters"

EVALUATION = "metrics/evaluation.json"
LAST_STAGE = "evaluate"
DIGEST_DIGITS = 6
_NAME_WITH_DIGEST = re.compile(r"\d+-[a-z]+(?:-seed\d+)?-([0-9a-f]{6})")


def collect_studies(root: Path, revisions: Sequence[str]) -> list[Study]:
    """Return the studies of some commits: the plain one of each first, then its variants.

    An experiment belongs to the variant whose digest its name carries, as the matrix gives
    them; one that a user named belongs to a digest of its changed parameters. The commit
    itself stands last, so that an experiment of the same cell and seed replaces it.

    Parameters
    ----------
    root : Path
        Folder of params.yaml and dvc.lock.
    revisions : sequence of str
        Commits that experiments started from, in any spelling git knows.

    Raises
    ------
    StudyError
        If a revision is unknown, a file is damaged, or there is no result at all.
    """
    studies: list[Study] = []
    for revision in revisions:
        commit, experiments = entries_of(root, revision)
        own = read_run(root, commit) if commit.params else None
        if own is None:
            raise StudyError(f"revision {revision}", "has no params.yaml", "name a commit of the study")
        groups: dict[str, list[Run]] = {"": []}
        for entry in sorted(experiments, key=lambda entry: entry.name):
            run = read_run(root, entry)
            if run.params:
                groups.setdefault(_variant(entry, commit), []).append(run)
        groups[""].append(own)
        studies += [
            make_study(commit.revision, variant, runs, baseline=commit.params)
            for variant, runs in groups.items()
        ]
    if not any(study.done for study in studies):
        shown = ", ".join(revisions)
        raise StudyError("report", f"no experiment of {shown} has a result", "make them: dose-overlap matrix")
    return studies


def read_run(root: Path, entry: Entry) -> Run:
    """Read the small files of one revision; those of an unfinished experiment are the commit's and unread."""
    name = entry.name or COMMIT
    if entry.state != SUCCESS:
        return Run(name, entry.revision, entry.state, entry.params)
    texts = read_texts(root, entry.revision, "metrics", LOCK_NAME)
    state = _state(entry, texts)
    if state != SUCCESS:
        return Run(name, entry.revision, state, entry.params)
    dose, view = entry.params["dose"], entry.params["view"]
    return Run(
        name=name,
        revision=entry.revision,
        state=SUCCESS,
        params=entry.params,
        evaluation=_json(name, EVALUATION, texts),
        frc=_columns(texts.get("metrics/frc.csv", ""), ","),
        curves=_curves(texts),
        measured_dose=_json(name, f"metrics/dose/{dose}.json", texts),
        measured_overlap=_json(name, f"metrics/overlap/{dose}-{view}.json", texts),
        outputs=entry.outputs,
    )


def _variant(entry: Entry, commit: Entry) -> str:
    named = _NAME_WITH_DIGEST.fullmatch(entry.name)
    if named:
        return named[1]
    own = settings(entry.params)
    if own == settings(commit.params):
        return ""
    return hashlib.sha256(dumps(own).encode()).hexdigest()[:DIGEST_DIGITS]


def _state(entry: Entry, texts: dict[str, str]) -> str:
    """Say whether the scores of a revision are those of its own parameters.

    An experiment that ran the training alone, and a commit whose parameters were edited
    after the run, hold the scores of another cell.
    """
    if EVALUATION not in texts or LOCK_NAME not in texts:
        return NO_RESULT
    lock = parse_lock(texts[LOCK_NAME], where=f"{entry.name or COMMIT}: {LOCK_NAME}")
    if LAST_STAGE not in lock:
        return NO_RESULT
    recorded = {out.path: out.md5 for out in lock[LAST_STAGE].outs}
    if recorded.get(EVALUATION) != hashlib.md5(texts[EVALUATION].encode(), usedforsecurity=False).hexdigest():
        return STALE
    used = [item for stage in _upstream(lock) for item in _used(lock[stage]).items()]
    same = all(_at(entry.params, key) == value for key, value in used if key != "doses")
    return SUCCESS if same else STALE


def _upstream(lock: dict[str, LockedStage]) -> set[str]:
    """Return the last stage and those that made what it read."""
    makers = {out.path: name for name, stage in lock.items() for out in stage.outs}
    found: set[str] = set()
    waiting = {LAST_STAGE}
    while waiting:
        stage = waiting.pop()
        found.add(stage)
        read = {dependency.path for dependency in lock[stage].deps}
        waiting |= {makers[path] for path in read & makers.keys()} - found
    return found


def _used(stage: LockedStage) -> dict[str, Any]:
    return stage.params.get("params.yaml", {})


def _at(params: dict[str, Any], dotted: str) -> Any:
    value: Any = params
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _json(name: str, path: str, texts: dict[str, str]) -> dict[str, Any]:
    if path not in texts:
        return {}
    where = f"{name}: {path}"
    try:
        content = json.loads(texts[path])
    except (ValueError, RecursionError) as error:
        raise StudyError(where, f"is not JSON ({error})", "evaluate it again") from None
    if not isinstance(content, dict):
        raise StudyError(where, f"must be a mapping, got {type(content).__name__}", "evaluate it again")
    return content


def _columns(text: str, delimiter: str) -> dict[str, list[float]]:
    """Return the columns of a table with a header; an empty field is NaN."""
    head, *rows = [*csv.reader(io.StringIO(text), delimiter=delimiter)] or [[]]
    return {key: [float(row[i] or "nan") for row in rows] for i, key in enumerate(head)}


def _curves(texts: dict[str, str]) -> dict[str, Curve]:
    """Return the training curves by name, ``val/loss``."""
    found: dict[str, Curve] = {}
    for path, text in texts.items():
        if path.endswith(".tsv"):
            name = path.removeprefix("metrics/").replace("plots/metrics/", "").removesuffix(".tsv")
            steps, values = list(_columns(text, "\t").values())[:2]
            found[name.removeprefix("train/")] = list(zip(steps, values, strict=True))
    return found
