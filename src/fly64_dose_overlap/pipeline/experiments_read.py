"""What git and DVC keep of a study, as cells for the report; the working tree is only read.

Experiments are git references of DVC's and are read as such: DVC's own listing of them
takes most of a second each, and has been seen to hang while a queue of them runs.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictInt, TypeAdapter, ValidationError

from fly64_dose_overlap.commands import run_command
from fly64_dose_overlap.config import PARAMS_FILE, at, first_problem
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline import cells
from fly64_dose_overlap.pipeline.lock import LOCK_NAME, LockedStage, object_path, parse_lock
from fly64_dose_overlap.pipeline.matrix.history import existing
from fly64_dose_overlap.pipeline.matrix.plan import DIGEST_DIGITS, TARGET
from fly64_dose_overlap.progress import say, track
from fly64_dose_overlap.report.study import FAILED, SUCCESS, Bounds, Curve, Run, Study, make_study
from fly64_dose_overlap.scores.evaluation import limit_at
from fly64_dose_overlap.scores.limit import read_limit
from fly64_dose_overlap.yaml_text import parse_yaml

COMMIT, TREE = "commit", "working tree"
"""Names of the runs that are no experiments."""
NO_RESULT = "without result"
STALE = "result of other parameters"
ABSENT = "absent"

SEEDS = ("seed", "train.seed")
"""Parameter in which the repeats of a cell differ: now, and in commits of before."""
CELL_KEYS = ("dose", "doses", "view", "learned", "iterative", *SEEDS)
"""Parameters that may differ among the cells of one study: which there are, and what runs in each."""
EVALUATION = cells.EVALUATION.as_posix()
RECONSTRUCTION = "reports/reconstruction.npz"
_MAPPING = TypeAdapter(dict[str, Any])
_NAME_WITH_DIGEST = re.compile(r"\d+-[a-z0-9_]+(?:-seed\d+)?-([0-9a-f]{6})")

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


class _Repository:
    """What git and DVC have of a study, open at the same time, and its working tree."""

    def __init__(self, repo: Any, root: Path) -> None:
        self.root = root
        self.queue = repo.experiments.celery_queue
        self._scm = repo.scm
        self._folder = root.resolve().relative_to(Path(repo.scm.root_dir).resolve())
        self._cache = Path(repo.cache.local.path)
        self.tree = Source(TREE, "", SUCCESS, _texts(repo.fs, root.resolve()))
        outs = [out for stage in self.tree.lock.values() for out in stage.outs]
        self._here = {out.md5: root / out.path for out in outs if out.md5}

    def read(self, revision: str) -> Texts:
        """Return the small files of a git revision."""
        return _texts(self._scm.get_fs(revision), self._folder)

    def find(self, checksum: str | None) -> Path | None:
        """Return where an output lies on this machine: in the cache, or in the working tree."""
        if not checksum:
            return None
        places = [object_path(self._cache, checksum), *filter(None, [self._here.get(checksum)])]
        return next((path for path in places if path.is_file()), None)


def _texts(files: Any, folder: Path) -> Texts:
    """Return the small files below a folder of a file system, a commit's or this machine's."""
    params, lock, metrics = ((folder / name).as_posix() for name in (PARAMS_FILE.name, LOCK_NAME, "metrics"))
    names = [params, lock, *(files.find(metrics) if files.isdir(metrics) else [])]
    texts = {name: files.cat_file(name).decode("utf-8", "replace") for name in names if files.isfile(name)}
    return {Path(name).relative_to(folder).as_posix(): text for name, text in texts.items()}


def read_studies(root: Path, revisions: Sequence[str]) -> list[Study]:
    """Return the working tree's own cell if it is not committed, then the studies of some commits.

    The plain study of each commit stands first, then its variants. An experiment belongs to
    the variant whose digest its name carries, as the matrix gives them; one that a user named
    belongs to a digest of its changed parameters. The commit itself stands last, so that an
    experiment of the same cell and seed replaces it.

    ``root`` is the folder of params.yaml and dvc.lock, ``revisions`` are commits that experiments
    started from, in any spelling git knows. What has a damaged file is left out with a line, as
    long as others have results.

    Raises
    ------
    StudyError
        If a revision is unknown, or there is no result at all.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from scmrepo.exceptions import SCMError

    commits = {_commit_of(root, revision): revision for revision in revisions}
    studies: list[Study] = []
    damaged: list[StudyError] = []
    try:
        with Repo(str(root)) as repo:
            repository = _Repository(repo, root)
            readers: list[Callable[[], Iterable[Study]]] = [partial(_tree_study, repository)]
            readers += [partial(_studies_of, repository, *each) for each in commits.items()]
            for read in readers:
                try:
                    studies += read()
                except StudyError as error:
                    damaged.append(error)
    except (DvcException, SCMError) as error:
        raise StudyError(str(root), f"DVC cannot read the repository ({error})") from None
    if not any(study.done for study in studies):
        shown, hint = ", ".join(revisions), "make them: dose-overlap matrix"
        raise damaged[0] if damaged else StudyError("report", f"no experiment of {shown} has a result", hint)
    for error in damaged:
        say(f"left out: {error}")
    return studies


def _commit_of(root: Path, revision: str) -> str:
    line = ("git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    try:
        return run_command(*line, root=root, where=revision).strip()
    except StudyError as error:
        if error.where != revision:
            raise  # git is not here
        hint = "fetch it: git fetch --tags, in a shallow clone git fetch --unshallow"
        raise StudyError(f"revision {revision}", "is no commit of this repository", hint) from None


def _tree_study(repository: _Repository) -> Iterator[Study]:
    """Yield the cell of the working tree, if it has scores that the last commit has not."""
    tree, commit = repository.tree, _commit_of(repository.root, "HEAD")
    head = repository.read(commit)
    own = tree.texts.get(EVALUATION)
    if own is None or own == head.get(EVALUATION) or not tree.params:
        return
    run = run_of(tree, repository.find)
    if run.state != SUCCESS:
        say(f"{TREE}: {EVALUATION} is left out: {run.state}; bring it up to date: dvc repro")
        return
    before = Source(COMMIT, commit, SUCCESS, head).params
    title = f"{TREE}, not committed"
    yield make_study(title, "", [run], changes=_changes(before, tree.params), committed=False)


def _studies_of(repository: _Repository, commit: str, revision: str) -> list[Study]:
    own = Source(COMMIT, commit, SUCCESS, repository.read(commit))
    if not own.params:
        raise StudyError(f"revision {revision}", "has no params.yaml", "name a commit of the study")
    found = sorted(experiments_of(repository, commit), key=lambda entry: entry[0])
    groups: dict[str, list[Source]] = {"": []}
    for name, tip, state in track(found, total=len(found), label="read", unit="experiment"):
        source = Source(name, tip, state, repository.read(tip))
        if source.params:
            groups.setdefault(variant_of(source, own), []).append(source)
    groups[""].append(own)
    plain = f"commit {commit[:7]}"
    return [
        make_study(
            f"{plain}, variant {variant}" if variant else plain,
            commit,
            [run_of(source, repository.find) for source in sources],
            doses=own.params["doses"],
            views=list(own.params["overlap"]["views"]),
            variant=variant,
            changes=_changes(own.params, sources[0].params) if variant else (),
            limits=_limits(sources, own.params["doses"]),
        )
        for variant, sources in groups.items()
    ]


def experiments_of(repository: _Repository, commit: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, revision and state of the experiments of a commit, whatever became of them."""
    from dvc.exceptions import DvcException

    done = existing(commit, repository.root)
    yield from ((name, revision, SUCCESS) for name, revision in done.items())
    queue = repository.queue
    waiting: list[tuple[Any, str]] = []
    try:
        waiting += [(entry, "running") for entry in queue.iter_active()]
        waiting += [(entry, "queued") for entry in queue.iter_queued()]
        waiting += [(entry, FAILED) for entry, _ in queue.iter_failed()]
    except DvcException as error:
        say(f"DVC's queue cannot be read ({error}); experiments without a result are left out")
    for entry, state in waiting:
        if entry.baseline_rev == commit and entry.name not in done:
            yield entry.name or entry.stash_rev[:7], entry.stash_rev, state


def variant_of(source: Source, commit: Source) -> str:
    """Return what tells the study of an experiment from the plain one, empty for that."""
    if named := _NAME_WITH_DIGEST.fullmatch(source.name):
        return named[1]
    own = settings(source.params)
    if own == settings(commit.params):
        return ""
    text = json.dumps(own, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]


def run_of(source: Source, find: Callable[[str | None], Path | None]) -> Run:
    """Return a source as a run; an unfinished experiment holds results of the commit, which are left out."""
    params = source.params
    dose, view = params["dose"], params["view"]
    state = state_of(source) if source.state == SUCCESS else source.state
    seed = next((found for key in SEEDS if (found := at(params, key)) is not None), 0)
    plain = (source.name, source.revision, state, dose, view, seed, params)
    if state != SUCCESS:
        return Run(*plain)
    outs = {out.path: out.md5 or "" for stage in source.lock.values() for out in stage.outs}
    return Run(
        *plain,
        evaluation=json_of(source, EVALUATION),
        frc=columns_of(source, "metrics/frc.csv", ","),
        curves=curves_of(source),
        measured_dose=json_of(source, cells.dose_metrics(dose).as_posix()),
        measured_overlap=json_of(source, cells.overlap_metrics(dose, view).as_posix()),
        data={path: md5 for path, md5 in outs.items() if path.startswith("data/")},
        reconstruction=find(outs.get(RECONSTRUCTION)),
    )


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
    used = (stage.params.get(PARAMS_FILE.name, {}) for stage in _upstream(source, last))
    items = (item for each in used for item in each.items())
    return all(at(source.params, key) == value for key, value in items if key != "doses")


def _upstream(source: Source, last: str) -> list[LockedStage]:
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
    return [lock[stage] for stage in found]


def _limits(sources: Sequence[Source], doses: Sequence[int]) -> dict[tuple[int, str], Bounds]:
    """Return the limits that are known at all doses, of views that were not run too."""
    found: dict[tuple[int, str], Bounds] = {}
    for source in sources:
        if source.state != SUCCESS:
            continue
        for stage in source.lock:
            kind, _, view = stage.partition("@")
            text = source.texts.get(cells.limit_file(view).as_posix()) if kind == "limit" else None
            if text is None or (doses[0], view) in found or not _is_current(source, stage):
                continue
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"{view}.json"
                path.write_text(text, encoding="utf-8")
                limit = read_limit(path)
            found |= {(dose, view): limit_at(limit, dose) for dose in doses}
    return found


def _is_current(source: Source, last: str) -> bool:
    """Whether a stage read what the stages before it make now: an experiment runs those of one cell only."""
    made = {out.path: out.md5 for stage in source.lock.values() for out in stage.outs}
    read = [dependency for stage in _upstream(source, last) for dependency in stage.deps]
    return _of_parameters(source, last) and all(made.get(d.path, d.md5) == d.md5 for d in read)


def settings(params: dict[str, Any]) -> dict[str, Any]:
    """Return all parameters by dotted name, without those that tell the cells of one study apart."""
    from dvc.utils.flatten import flatten

    return {key: value for key, value in flatten(params).items() if key not in CELL_KEYS}


def _changes(baseline: dict[str, Any], params: dict[str, Any]) -> tuple[str, ...]:
    before, after = settings(baseline), settings(params)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return tuple(f"{key}: {before.get(key, ABSENT)} → {after.get(key, ABSENT)}" for key in keys)


def json_of(source: Source, path: str) -> dict[str, Any]:
    """Return the content of a JSON file, empty if there is none."""
    try:
        return _MAPPING.validate_json(source.texts.get(path, "{}"))
    except ValidationError as error:
        problem = f"is not JSON of a mapping ({first_problem(error)})"
        raise StudyError(source.where(path), problem, "evaluate it again") from None


def columns_of(source: Source, path: str, delimiter: str) -> dict[str, list[float]]:
    """Return the columns of a table with a header, none if it is not there; an empty field is NaN."""
    table = csv.DictReader(io.StringIO(source.texts.get(path, "")), delimiter=delimiter)
    try:
        rows = list(table)
        return {key: [float(row[key] or "nan") for row in rows] for key in table.fieldnames or ()}
    except (ValueError, csv.Error) as error:
        problem = f"is no table of numbers ({error})"
        raise StudyError(source.where(path), problem, "evaluate it again") from None


def curves_of(source: Source) -> dict[str, Curve]:
    """Return the training curves by name, ``val/loss``."""
    found: dict[str, Curve] = {}
    for path in source.texts:
        if path.endswith(".tsv"):
            name = path.removeprefix("metrics/").replace("plots/metrics/", "").removesuffix(".tsv")
            steps, values, *_ = [*columns_of(source, path, "\t").values(), [], []]
            found[name.removeprefix("train/")] = list(zip(steps, values, strict=False))
    return found
