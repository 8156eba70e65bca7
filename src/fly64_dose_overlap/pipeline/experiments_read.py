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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fly64_dose_overlap.commands import run_command
from fly64_dose_overlap.config import PARAMS_FILE, parse_yaml
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.lock import LOCK_NAME, LockedStage, parse_lock
from fly64_dose_overlap.progress import say, track
from fly64_dose_overlap.provenance import dumps
from fly64_dose_overlap.report.study import FAILED, SUCCESS, Bounds, Curve, Run, Study, make_study
from fly64_dose_overlap.scores.evaluation import limit_at
from fly64_dose_overlap.scores.limit import read_limit

COMMIT, TREE = "commit", "working tree"
"""Names of the runs that are no experiments."""
NO_RESULT = "without result"
STALE = "result of other parameters"
ABSENT = "absent"

SEEDS = ("seed", "train.seed")
"""Parameter in which the repeats of a cell differ: now, and in commits of before."""
CELL_KEYS = ("dose", "doses", "view", *SEEDS)
"""Parameters that tell the cells of one study apart, and change no other result."""
EVALUATION = "metrics/evaluation.json"
RECONSTRUCTION = "reports/reconstruction.npz"
LAST_STAGE = "evaluate"
DIGEST_DIGITS = 6
_NAME_WITH_DIGEST = re.compile(r"\d+-[a-z0-9_]+(?:-seed\d+)?-([0-9a-f]{6})")

Texts = dict[str, str]
"""Small files of a revision by path."""


@dataclass(frozen=True)
class Source:
    """A commit, an experiment of one, or the working tree.

    Attributes
    ----------
    name : str
        Name of the experiment.
    revision : str
        Full git revision; that of a queued, running or failed experiment holds its
        parameters, but the results of the commit.
    state : {"success", "queued", "running", "failed"}
        What DVC says of it.
    texts : dict of str
    """

    name: str
    revision: str
    state: str
    texts: Texts

    @cached_property
    def params(self) -> dict[str, Any]:
        """Content of params.yaml."""
        found = parse_yaml(self.texts.get(PARAMS_FILE.name, ""), where=f"{self.name}: {PARAMS_FILE}")
        return found if isinstance(found, dict) else {}

    @cached_property
    def lock(self) -> dict[str, LockedStage]:
        """Content of dvc.lock by stage."""
        return parse_lock(self.texts.get(LOCK_NAME, ""), where=f"{self.name}: {LOCK_NAME}")


@dataclass(frozen=True)
class _Repository:
    """What is open in git and DVC at the same time."""

    root: Path
    read: Callable[[str], Texts]
    """Small files of a git revision."""
    queue: Any
    """DVC's."""
    cache: Path
    here: dict[str, Path] = field(default_factory=dict[str, Path])
    """Files of the working tree by checksum."""

    def find(self, checksum: str | None) -> Path | None:
        """Return where an output lies on this machine."""
        if not checksum:
            return None
        places = [self.cache / checksum[:2] / checksum[2:], *filter(None, [self.here.get(checksum)])]
        return next((path for path in places if path.is_file()), None)


def read_studies(root: Path, revisions: Sequence[str]) -> list[Study]:
    """Return the working tree's own cell if it is not committed, then the studies of some commits.

    The plain study of each commit stands first, then its variants. An experiment belongs to
    the variant whose digest its name carries, as the matrix gives them; one that a user named
    belongs to a digest of its changed parameters. The commit itself stands last, so that an
    experiment of the same cell and seed replaces it.

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
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    commits = {revision: _commit_of(root, revision) for revision in revisions}
    try:
        with Repo(str(root)) as repo:
            tree = _read_tree(root)
            outs = [out for stage in tree.lock.values() for out in stage.outs]
            here = {out.md5: root / out.path for out in outs if out.md5}
            repository = _Repository(
                root, _reader(repo, root), repo.experiments.celery_queue, Path(repo.cache.local.path), here
            )
            studies = [*_tree_study(repository, tree)]
            for revision, commit in commits.items():
                studies += _studies_of(repository, revision, commit)
    except DvcException as error:
        raise StudyError(str(root), f"DVC cannot read the repository ({error})") from None
    if not any(study.done for study in studies):
        shown = ", ".join(revisions)
        raise StudyError("report", f"no experiment of {shown} has a result", "make them: dose-overlap matrix")
    return studies


def _commit_of(root: Path, revision: str) -> str:
    where = f"revision {revision}"
    line = ("git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    return run_command(*line, root=root, where=where).strip()


def _reader(repo: Any, root: Path) -> Callable[[str], Texts]:
    """Return a function that reads the small files of a git revision."""
    prefix = root.resolve().relative_to(Path(repo.scm.root_dir).resolve()).as_posix()
    base = "" if prefix == "." else f"{prefix}/"

    def read(revision: str) -> Texts:
        files = repo.scm.get_fs(revision)
        names = [base + name for name in (PARAMS_FILE.name, LOCK_NAME) if files.isfile(base + name)]
        names += files.find(f"{base}metrics") if files.isdir(f"{base}metrics") else []
        return {name.removeprefix(base): files.cat_file(name).decode("utf-8", "replace") for name in names}

    return read


def _read_tree(root: Path) -> Source:
    paths = [root / PARAMS_FILE, root / LOCK_NAME, *sorted((root / "metrics").rglob("*.*"))]
    texts = {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8", errors="replace")
        for path in paths
        if path.is_file()
    }
    return Source(TREE, "", SUCCESS, texts)


def _tree_study(repository: _Repository, tree: Source) -> Iterator[Study]:
    """Yield the cell of the working tree, if it has scores that the last commit has not."""
    head = repository.read(_commit_of(repository.root, "HEAD"))
    own = tree.texts.get(EVALUATION)
    if not tree.params or own is None or own == head.get(EVALUATION):
        return
    run = run_of(tree, repository.find)
    if run.state != SUCCESS:
        say(f"{TREE}: {EVALUATION} is left out: {run.state}; bring it up to date: dvc repro")
        return
    before = Source(COMMIT, "", SUCCESS, head).params
    title = f"{TREE}, not committed"
    yield make_study(title, "", [run], changes=_changes(before, tree.params), committed=False)


def _studies_of(repository: _Repository, revision: str, commit: str) -> list[Study]:
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
    folder = f"refs/exps/{commit[:2]}/{commit[2:]}/"
    listing = run_command(
        "git", "for-each-ref", "--format=%(objectname) %(refname)", folder, root=repository.root
    )
    done = [line.split(" ", 1) for line in listing.splitlines()]
    names = {name.removeprefix(folder) for _, name in done}
    yield from ((name.removeprefix(folder), revision, SUCCESS) for revision, name in done)
    queue = repository.queue
    waiting = [(entry, "running") for entry in queue.iter_active()]
    waiting += [(entry, "queued") for entry in queue.iter_queued()]
    waiting += [(entry, FAILED) for entry, _ in queue.iter_failed()]
    for entry, state in waiting:
        if entry.baseline_rev == commit and entry.name not in names:
            yield entry.name or entry.stash_rev[:7], entry.stash_rev, state


def variant_of(source: Source, commit: Source) -> str:
    """Return what tells the study of an experiment from the plain one, empty for that."""
    named = _NAME_WITH_DIGEST.fullmatch(source.name)
    if named:
        return named[1]
    own = settings(source.params)
    if own == settings(commit.params):
        return ""
    return hashlib.sha256(dumps(own).encode()).hexdigest()[:DIGEST_DIGITS]


def run_of(source: Source, find: Callable[[str | None], Path | None]) -> Run:
    """Return a source as a run; an unfinished experiment holds results of the commit, which are left out."""
    params, texts = source.params, source.texts
    dose, view = int(params["dose"]), str(params["view"])
    state = state_of(source) if source.state == SUCCESS else source.state
    seed = next((int(found) for key in SEEDS if (found := _at(params, key)) is not None), 0)
    plain = (source.name, source.revision, state, dose, view, seed, params)
    if state != SUCCESS:
        return Run(*plain)
    outs = {out.path: out.md5 or "" for stage in source.lock.values() for out in stage.outs}
    return Run(
        *plain,
        evaluation=json_of(source, EVALUATION),
        frc=columns_of(texts.get("metrics/frc.csv", ""), ","),
        curves=curves_of(texts),
        measured_dose=json_of(source, f"metrics/dose/{dose}.json"),
        measured_overlap=json_of(source, f"metrics/overlap/{dose}-{view}.json"),
        data={path: md5 for path, md5 in outs.items() if path.startswith("data/")},
        reconstruction=find(outs.get(RECONSTRUCTION)),
    )


def state_of(source: Source) -> str:
    """Say whether the scores of a revision are those of its own parameters.

    An experiment that ran the training alone, and a commit whose parameters were edited
    after the run, hold the scores of another cell.
    """
    texts, lock = source.texts, source.lock
    if EVALUATION not in texts or LAST_STAGE not in lock:
        return NO_RESULT
    recorded = {out.path: out.md5 for out in lock[LAST_STAGE].outs}
    if recorded.get(EVALUATION) != hashlib.md5(texts[EVALUATION].encode(), usedforsecurity=False).hexdigest():
        return STALE
    return SUCCESS if _of_parameters(lock, LAST_STAGE, source.params) else STALE


def _of_parameters(lock: dict[str, LockedStage], last: str, params: dict[str, Any]) -> bool:
    """Whether a stage and those before it ran with these parameters."""
    used = [item for stage in _upstream(lock, last) for item in _used(lock[stage]).items()]
    return all(_at(params, key) == value for key, value in used if key != "doses")


def _upstream(lock: dict[str, LockedStage], last: str) -> set[str]:
    """Return a stage and those that made what it read."""
    makers = {out.path: name for name, stage in lock.items() for out in stage.outs}
    found: set[str] = set()
    waiting = {last}
    while waiting:
        stage = waiting.pop()
        found.add(stage)
        read = {dependency.path for dependency in lock[stage].deps}
        waiting |= {makers[path] for path in read & makers.keys()} - found
    return found


def _used(stage: LockedStage) -> dict[str, Any]:
    return stage.params.get(PARAMS_FILE.name, {})


def _limits(sources: Sequence[Source], doses: Sequence[int]) -> dict[tuple[int, str], Bounds]:
    """Return the limits that are known at all doses, of views that were not run too."""
    found: dict[tuple[int, str], Bounds] = {}
    for source in sources:
        if source.state != SUCCESS:
            continue
        lock = source.lock
        for stage, view in ((name, name.partition("@")[2]) for name in lock if name.startswith("limit@")):
            text = source.texts.get(f"metrics/limit/{view}.json")
            if text is None or (doses[0], view) in found or not _is_current(lock, stage, source.params):
                continue
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"{view}.json"
                path.write_text(text, encoding="utf-8")
                limit = read_limit(path)
            found |= {(dose, view): limit_at(limit, dose) for dose in doses}
    return found


def _is_current(lock: dict[str, LockedStage], last: str, params: dict[str, Any]) -> bool:
    """Whether a stage read what the stages before it make now: an experiment runs those of one cell only."""
    made = {out.path: out.md5 for stage in lock.values() for out in stage.outs}
    read = [dependency for stage in _upstream(lock, last) for dependency in lock[stage].deps]
    return _of_parameters(lock, last, params) and all(made.get(d.path, d.md5) == d.md5 for d in read)


def settings(params: dict[str, Any]) -> dict[str, Any]:
    """Return all parameters by dotted name, without those that tell the cells of one study apart."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            flat[prefix] = value

    walk("", params)
    return {key: value for key, value in flat.items() if key not in CELL_KEYS}


def _changes(baseline: dict[str, Any], params: dict[str, Any]) -> tuple[str, ...]:
    before, after = settings(baseline), settings(params)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return tuple(f"{key}: {before.get(key, ABSENT)} → {after.get(key, ABSENT)}" for key in keys)


def _at(params: dict[str, Any], dotted: str) -> Any:
    value: Any = params
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def json_of(source: Source, path: str) -> dict[str, Any]:
    """Return the content of a JSON file, empty if there is none."""
    if path not in source.texts:
        return {}
    where = f"{source.name}: {path}"
    try:
        content = json.loads(source.texts[path])
    except (ValueError, RecursionError) as error:
        raise StudyError(where, f"is not JSON ({error})", "evaluate it again") from None
    if not isinstance(content, dict):
        raise StudyError(where, f"must be a mapping, got {type(content).__name__}", "evaluate it again")
    return content


def columns_of(text: str, delimiter: str) -> dict[str, list[float]]:
    """Return the columns of a table with a header; an empty field is NaN."""
    head, *rows = [*csv.reader(io.StringIO(text), delimiter=delimiter)] or [[]]
    return {key: [float(row[i] or "nan") for row in rows] for i, key in enumerate(head)}


def curves_of(texts: Texts) -> dict[str, Curve]:
    """Return the training curves by name, ``val/loss``."""
    found: dict[str, Curve] = {}
    for path, text in texts.items():
        if path.endswith(".tsv"):
            name = path.removeprefix("metrics/").replace("plots/metrics/", "").removesuffix(".tsv")
            steps, values = list(columns_of(text, "\t").values())[:2]
            found[name.removeprefix("train/")] = list(zip(steps, values, strict=True))
    return found
