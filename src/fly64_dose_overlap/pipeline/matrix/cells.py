"""Which experiments the matrix consists of, and what they are called."""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fly64_dose_overlap.config import MAX_SHOWN, PARAMS_FILE, Params, ViewName, load_params
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.provenance import dumps

TARGET = "evaluate"
"""The last stage of a cell, named so that DVC leaves the data of other cells alone."""

DIGEST_DIGITS = 6


@dataclass(frozen=True)
class Cell:
    """One dose with one view and one seed: an experiment of its own.

    Attributes
    ----------
    name : str
        Name of the experiment: ``1000-sparse``, ``1000-sparse-seed43``; a digest follows
        where parameters or code differ from the commit's.
    params : Params
        All parameters of the experiment.
    overrides : tuple of str
        What makes them from params.yaml, in the form of ``dvc exp run -S``.
    """

    name: str
    params: Params
    overrides: tuple[str, ...]

    @property
    def views(self) -> tuple[Path, ...]:
        """Datasets that the cell reads."""
        folder = Path("data/views") / str(self.params.dose) / self.params.view
        return tuple(folder / f"{half}.npz" for half in ("train", "test"))

    def command(self, *flags: str) -> tuple[str, ...]:
        """Return the arguments of ``dvc exp run``; ``flags`` say how it comes by its data."""
        settings = (part for override in self.overrides for part in ("-S", override))
        return (*flags, "--name", self.name, *settings, TARGET)


@dataclass(frozen=True)
class Selection:
    """What the user asked for; what is None or empty means all of params.yaml.

    Attributes
    ----------
    doses : sequence of int
        Photons per frame; those that params.yaml does not list are added to its list.
    views, gridsizes : sequence
        Only cells of these views and with these group sides.
    seeds : int
        Repeats of each cell, with ``train.seed`` counted up from its value.
    overrides : sequence of str
        Further changes of parameters for every cell.
    """

    doses: Sequence[int] = ()
    views: Sequence[str] = ()
    gridsizes: Sequence[int] = ()
    seeds: int = 1
    overrides: Sequence[str] = ()


def parse_dose(text: str) -> int:
    """Return a dose in photons per frame, written 1000, 1000.0 or 1e3.

    Raises
    ------
    StudyError
        If it is no positive whole number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and value.is_integer()):
        raise StudyError("--dose", f"must be a positive whole number of photons per frame, got {text!r}")
    return int(text) if text.isdecimal() else int(value)


def plan_cells(
    selection: Selection, *, committed: Params, params_file: Path = PARAMS_FILE, code_change: str = ""
) -> list[Cell]:
    """Return the cells of the matrix, validated, doses outermost.

    Parameters
    ----------
    selection : Selection
    committed : Params
        Parameters of the commit that the experiments start from.
    params_file : Path
        Parameters in the working tree, with edits.
    code_change : str
        Any text that names how code or data differ from that commit; empty if they do not.

    Raises
    ------
    StudyError
        If an override, a dose or a view is not valid, or no cell is left.
    """
    _refuse_cell_keys(selection.overrides)
    common = _overridden(params_file, selection.overrides)
    for view in selection.views:
        if view not in common.overlap.views:
            raise StudyError("--view", f"{view!r} is not among {', '.join(common.overlap.views)}")
    doses = list(dict.fromkeys(selection.doses or common.doses))
    listed = [*common.doses, *(dose for dose in doses if dose not in common.doses)]
    cells: list[Cell] = []
    for dose in doses:
        for view in _views(common, selection):
            for seed in range(common.train.seed, common.train.seed + selection.seeds):
                own = (f"dose={dose}", f"view={view}")
                if dose not in common.doses:
                    own = (f"doses=[{','.join(map(str, listed))}]", *own)
                if seed != common.train.seed:
                    own = (*own, f"train.seed={seed}")
                overrides = (*selection.overrides, *own)
                params = _overridden(params_file, overrides)
                name = _name(params, common.train.seed, committed, code_change)
                cells.append(Cell(name, params, overrides))
    if not cells:
        raise StudyError("matrix", "no cell matches all filters", "leave out --view or --gridsize")
    return cells


def _views(params: Params, selection: Selection) -> list[ViewName]:
    return [
        name
        for name, view in params.overlap.views.items()
        if (not selection.views or name in selection.views)
        and (not selection.gridsizes or view.gridsize in selection.gridsizes)
    ]


def _refuse_cell_keys(overrides: Sequence[str]) -> None:
    options = {"dose": "--dose", "doses": "--dose", "view": "--view"}
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key in options:
            raise StudyError(f"-S {override}", f"{key} makes the cells of the matrix", f"use {options[key]}")


def _overridden(params_file: Path, overrides: Sequence[str]) -> Params:
    """Return the parameters that DVC would give to an experiment."""
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides, to_hydra_overrides
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if not overrides:
        return load_params(params_file)
    load_params(params_file)
    where = f"-S {' '.join(overrides)}"
    where = where if len(where) <= MAX_SHOWN else f"{where[:MAX_SHOWN]}..."
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / params_file.name
        shutil.copyfile(params_file, copy)
        try:
            if any(override.is_sweep_override() for override in to_hydra_overrides(list(overrides))):
                given = where.removeprefix("-S ")
                raise StudyError("-S", f"one value each, got {given}", "run the matrix twice")
            apply_overrides(copy, list(overrides))
        except (DvcException, HydraException, OmegaConfBaseException) as error:
            reason = str(error.__cause__ or error).partition("\n")[0]
            raise StudyError(where, f"cannot be applied ({reason})") from None
        try:
            return load_params(copy)
        except StudyError as error:
            raise StudyError(where, error.problem, error.hint) from None


def _name(params: Params, first_seed: int, committed: Params, code_change: str) -> str:
    repeat = "" if params.train.seed == first_seed else f"-seed{params.train.seed}"
    name = f"{params.dose}-{params.view}{repeat}"
    settings = _settings(params, first_seed)
    if settings == _settings(committed, committed.train.seed) and not code_change:
        return name
    digest = hashlib.sha256((settings + code_change).encode()).hexdigest()
    return f"{name}-{digest[:DIGEST_DIGITS]}"


def _settings(params: Params, first_seed: int) -> str:
    """Return the parameters without those that tell cells of one matrix apart."""
    content = params.model_dump(exclude={"dose", "doses", "view"})
    content["train"]["seed"] = first_seed
    return dumps(content)
