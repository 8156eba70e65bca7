"""What jobs find in the cache is restored before they start, and never made again behind the user's back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fly64_dose_overlap.commands import run_command
from fly64_dose_overlap.config import Params
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.cells import HALVES, REFERENCE, reconstruction_folder
from fly64_dose_overlap.pipeline.matrix.plan import Experiment
from fly64_dose_overlap.pipeline.study import is_measured
from fly64_dose_overlap.yaml_text import at


def restore(experiments: Sequence[Experiment], tree: Params) -> None:
    """Bring into the cache what experiments find made, from remote storage if need be.

    That is their data, and the results of the cell of dvc.lock. Left alone are the data of those
    that do not read the data of the working tree: they have a dose that params.yaml does not
    list, or overrides that change the data, which are then made in the experiment, as was asked
    for. What decides a dataset is what dvc.yaml says.

    Raises
    ------
    StudyError
        If data are out of date, or something is in neither the cache nor the remote.
    """
    from dvc.repo import Repo

    with Repo() as repo:
        shared = [each for each in experiments if shares_data(repo, each, tree)]
        files = sorted({str(each.cell.data(half)) for each in shared for half in HALVES})
        if files and is_measured(tree.base):  # evaluation compares with it
            files.append(str(REFERENCE))
        results = sorted(found for each in experiments for found in recorded_results(repo, each))
        with repo.lock:
            makers = {stage.addressing: stage for file in files for stage in _makers(repo, file)}
            stale = [name for name, stage in makers.items() if stage.changed(allow_missing=True)]
        if stale:
            raise StudyError(
                "datasets",
                f"{', '.join(sorted(stale))} would run in every job: "
                "code or parameters changed since the data were made",
                "make the data once (dvc repro overlap), or undo the change; dvc status tells which it is",
            )
        # DVC keeps its list of what there is to fetch, writes it output by output, and takes
        # it for whole when it finds one, even after a fetch that was killed meanwhile.
        repo.drop_data_index()
    _fetch("datasets", files, "dvc repro overlap")
    _fetch("results of the cell in dvc.lock", results, "dvc repro evaluate")


def _fetch(what: str, paths: Sequence[str], remedy: str) -> None:
    from dvc.repo import Repo

    if not paths:
        return
    advice = f"name the remote storage (make remote STORE=/folder), or make them: {remedy}"
    try:
        run_command("dvc", "fetch", *paths)
    except StudyError as error:
        raise StudyError(what, f"missing, and not restored ({error.problem})", advice) from None
    # Where there is no remote, or it lacks files, DVC warns and calls that a success.
    with Repo() as repo:
        missing = [path for path in paths for out in repo.find_outs_by_path(path) if out.changed_cache()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        reason = f"{missing[0]}{more}: in neither the cache nor remote storage"
        raise StudyError(what, f"missing, and not restored ({reason})", advice)


def recorded_results(repo: Any, experiment: Experiment) -> Iterator[str]:
    """Yield the reconstructions of dvc.lock that are those of an experiment too.

    DVC, told to allow missing files, does not make them, and the scores would lack them.
    """
    own = experiment.params.model_dump()
    for method in (*experiment.params.learned, *experiment.params.iterative):
        path = str(reconstruction_folder(method))
        makers = _makers(repo, path)
        used = [dep.hash_info.value for stage in makers for dep in stage.params if dep.params]
        equal = all(used) and all(at(own, key) == value for each in used for key, value in each.items())
        if makers and equal:
            yield path


def shares_data(repo: Any, experiment: Experiment, tree: Params) -> bool:
    """Tell whether an experiment reads the datasets of the working tree in a DVC repository."""
    makers = _makers(repo, str(experiment.cell.data(HALVES[0])))
    own, theirs = experiment.params.model_dump(), tree.model_dump()
    keys = {key for stage in makers for dep in stage.params for key in dep.params}
    return bool(makers) and all(at(own, key) == at(theirs, key) for key in keys)


def _makers(repo: Any, path: str) -> list[Any]:
    """Return the stage that makes a file and those that make what it reads, as far as DVC keeps that."""
    from dvc.exceptions import OutputNotFoundError

    try:
        (out,) = repo.find_outs_by_path(path)
    except OutputNotFoundError:
        return []
    kept = {each.fs_path for each in repo.index.outs if each.use_cache}
    return [
        out.stage,
        *(made for dep in out.stage.deps if dep.fs_path in kept for made in _makers(repo, dep.fs_path)),
    ]
