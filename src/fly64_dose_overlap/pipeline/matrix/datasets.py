"""Datasets are restored before a job starts, and never made again behind the user's back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fly64_dose_overlap.commands import run_command
from fly64_dose_overlap.config import Params
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.matrix.cells import Cell
from fly64_dose_overlap.pipeline.matrix.experiments import RAN
from fly64_dose_overlap.results.lock import LOCK_NAME, parse_lock

LOCK = Path(LOCK_NAME)


def shares_data(cell: Cell, tree: Params) -> bool:
    """Tell whether a cell reads the datasets of the working tree.

    The others have a dose that params.yaml does not list, or overrides that change the
    data: theirs are made in the experiment, as was asked for.
    """
    own = cell.params
    return (
        own.dose in tree.doses
        and own.base == tree.base
        and own.simulate == tree.simulate
        and own.overlap.model_dump(exclude={"views"}) == tree.overlap.model_dump(exclude={"views"})
        and own.overlap.views[own.view] == tree.overlap.views[own.view]
    )


def restore(cells: Sequence[Cell]) -> None:
    """Bring the views that the cells read into the cache, from remote storage if need be.

    Raises
    ------
    StudyError
        If they are out of date, or in neither the cache nor the remote.
    """
    if not cells:
        return
    stages = sorted({f"overlap@{cell.params.dose}-{cell.params.view}" for cell in cells})
    _refuse_stale(stages)
    files = sorted({str(path) for cell in cells for path in cell.views})
    _forget_collected()
    try:
        run_command("dvc", "fetch", *files)
    except StudyError as error:
        raise _unavailable(error.problem) from None
    # Where there is no remote, or it lacks files, DVC warns and calls that a success.
    missing = _not_in_cache(files)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise _unavailable(f"{missing[0]}{more}: in neither the cache nor remote storage")


def _forget_collected() -> None:
    """Have DVC collect anew what there is to fetch.

    It keeps the list, writes it output by output, and takes it for whole when it finds one:
    after a fetch that was killed meanwhile, the files that the list lacks would never come.
    """
    from dvc.repo import Repo

    with Repo() as repo:
        repo.drop_data_index()


def _unavailable(reason: str) -> StudyError:
    return StudyError(
        "datasets",
        f"missing, and not restored ({reason})",
        "name the remote storage (make remote STORE=/folder), or make the data: dvc repro overlap",
    )


def _not_in_cache(files: Sequence[str]) -> list[str]:
    from dvc.repo import Repo

    with Repo() as repo:
        return [file for file in files for out in repo.find_outs_by_path(file) if out.changed_cache()]


def _refuse_stale(stages: Sequence[str]) -> None:
    listing = run_command("dvc", "repro", "--dry", "--allow-missing", *stages)
    stale = [line.removeprefix(RAN).split("'")[0] for line in listing.splitlines() if line.startswith(RAN)]
    if stale:
        raise StudyError(
            "datasets",
            f"{', '.join(stale)} would run in every job: code or parameters changed since the data were made",
            "make the data once (dvc repro overlap), or undo the change; dvc status tells which it is",
        )


def base_checksum(text: str) -> str:
    """Return the checksum that a dvc.lock gives for the base set, or an empty string."""
    base = parse_lock(text).get("base")
    return base.outs[0].md5 or "" if base and base.outs else ""
