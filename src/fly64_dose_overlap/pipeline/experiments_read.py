"""What git and DVC keep of a study, as cells for the report; the working tree is only read.

Experiments are git references of DVC's and are read as such: DVC's own listing of them
takes most of a second each, and has been seen to hang while a queue of them runs.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from fly64_dose_overlap.commands import run_command
from fly64_dose_overlap.config import PARAMS_FILE, first_problem
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline import cells
from fly64_dose_overlap.pipeline.lock import LOCK_NAME, object_path
from fly64_dose_overlap.pipeline.matrix.history import existing
from fly64_dose_overlap.pipeline.matrix.plan import DIGEST_DIGITS
from fly64_dose_overlap.pipeline.source import (
    EVALUATION,
    Source,
    Texts,
    data_of,
    is_current,
    state_of,
)
from fly64_dose_overlap.progress import say, track
from fly64_dose_overlap.report.study import FAILED, SUCCESS, Bounds, Curve, Run, Study, make_study
from fly64_dose_overlap.scores.evaluation import limit_at
from fly64_dose_overlap.scores.limit import read_limit
from fly64_dose_overlap.yaml_text import at

COMMIT, TREE = "commit", "working tree"
"""Names of the runs that are no experiments."""
ABSENT = "absent"

SEEDS = ("seed", "train.seed")
"""Parameter in which the repeats of a cell differ: now, and in commits of before."""
CELL_KEYS = ("dose", "doses", "view", "learned", "iterative", *SEEDS)
"""Parameters that may differ among the cells of one study: which there are, and what runs in each."""
RECONSTRUCTION = "reports/reconstruction.npz"
_MAPPING = TypeAdapter(dict[str, Any])
_NAME_WITH_DIGEST = re.compile(r"\d+-[a-z0-9_]+(?:-seed\d+)?-([0-9a-f]{6})")


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

    The working tree is read where HEAD is among those: what was run since does not belong to others.
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
            readers: list[Callable[[], Iterable[Study]]] = []
            if _commit_of(root, "HEAD") in commits:
                readers.append(partial(_tree_study, repository))
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
    yield make_study(title, "", [run], changes=changes(before, tree.params), committed=False)


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
            changes=changes(own.params, sources[0].params) if variant else (),
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
        data=data_of(source),
        reconstruction=find(outs.get(RECONSTRUCTION)),
    )


def _limits(sources: Sequence[Source], doses: Sequence[int]) -> dict[tuple[int, str], Bounds]:
    """Return the limits that are known at all doses, of views that were not run too."""
    found: dict[tuple[int, str], Bounds] = {}
    for source in sources:
        if source.state != SUCCESS:
            continue
        for stage in source.lock:
            kind, _, view = stage.partition("@")
            text = source.texts.get(cells.limit_file(view).as_posix()) if kind == "limit" else None
            if text is None or (doses[0], view) in found or not is_current(source, stage):
                continue
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"{view}.json"
                path.write_text(text, encoding="utf-8")
                limit = read_limit(path)
            found |= {(dose, view): limit_at(limit, dose) for dose in doses}
    return found


def settings(params: dict[str, Any]) -> dict[str, Any]:
    """Return all parameters by dotted name, without those that tell the cells of one study apart."""
    from dvc.utils.flatten import flatten

    return {key: value for key, value in flatten(params).items() if key not in CELL_KEYS}


def changes(baseline: dict[str, Any], params: dict[str, Any]) -> tuple[str, ...]:
    """Return the settings in which parameters differ from those of a baseline, in words."""
    before, after = settings(baseline), settings(params)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return tuple(f"{key}: {_written(before, key)} → {_written(after, key)}" for key in keys)


def _written(values: dict[str, Any], key: str) -> str:
    """Return a value as params.yaml has it."""
    if key not in values:
        return ABSENT
    text = yaml.safe_dump(values[key], default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.removesuffix("...\n").strip()


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
