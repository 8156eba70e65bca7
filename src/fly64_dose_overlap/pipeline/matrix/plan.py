"""The experiments of the matrix: a cell each, with a name and the overrides that make it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fly64_dose_overlap.config import PARAMS_FILE, Params, whole_number
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.cells import Cell, cells, choose
from fly64_dose_overlap.pipeline.study import load_study
from fly64_dose_overlap.provenance import dumps
from fly64_dose_overlap.yaml_text import MAX_SHOWN

TARGET = "evaluate"
"""The last stage of a cell, named so that DVC leaves the data of other cells alone."""
DIGEST_DIGITS = 6
OPTIONS = {"dose": "--dose", "doses": "--dose", "view": "--view"}
"""Parameters that make the cells, and what sets them."""
Methods = Mapping[str, Sequence[str]]
"""Values of the lists ``learned`` and ``iterative``, which say what methods a cell runs."""


@dataclass(frozen=True)
class Experiment:
    """A cell to be run."""

    name: str
    """``1000-sparse``, ``1000-sparse-seed43``; a digest follows where parameters or code differ
    from the commit's."""
    cell: Cell
    params: Params
    overrides: tuple[str, ...]
    """What makes the parameters from params.yaml, in the form of ``dvc exp run -S``."""

    @property
    def command(self) -> tuple[str, ...]:
        """The last arguments of ``dvc exp run``."""
        settings = (part for override in self.overrides for part in ("--set-param", override))
        return ("--name", self.name, *settings, TARGET)


@dataclass(frozen=True)
class Selection:
    """What the user asked for; what is empty means all of params.yaml."""

    doses: Sequence[int] = ()
    """Photons per frame; those that params.yaml does not list are added to its list."""
    views: Sequence[str] = ()
    gridsizes: Sequence[int] = ()
    """Only views with these group sides."""
    seeds: int = 1
    """Trainings of each cell; those of other seeds run learned methods only."""
    overrides: Sequence[str] = ()
    """Further changes of parameters for every cell."""


def parse_dose(text: str) -> int:
    """Return a dose in photons per frame, written 1000, 1000.0 or 1e3.

    Raises
    ------
    StudyError
        If it is no positive whole number.
    """
    dose = whole_number(text)
    if dose is None:
        raise StudyError("--dose", f"must be a positive whole number of photons per frame, got {text!r}")
    return dose


def plan(
    selection: Selection,
    *,
    committed: Params,
    params_file: Path = PARAMS_FILE,
    code_change: str = "",
    methods: Methods | None = None,
) -> list[Experiment]:
    """Return the experiments of the matrix, validated, doses outermost and ascending.

    Parameters
    ----------
    committed : Params
        Of the commit that the experiments start from; ``params_file`` may have edits.
    code_change : str
        Any text that names how code or data differ from that commit; empty if they do not.
    methods : mapping, optional
        From `all_methods`: what each cell runs unless an override says otherwise.

    Raises
    ------
    StudyError
        If an override, a dose or a view is not valid, or no cell is left.
    """
    own = list(dict.fromkeys(selection.overrides))
    for override in own:
        key = override.partition("=")[0].lstrip("+~")
        if key in OPTIONS:
            raise StudyError(f"-S {override}", f"{key} makes the cells of the matrix", f"use {OPTIONS[key]}")
    lists = [f"{key}=[{','.join(names)}]" for key, names in (methods or {}).items()]
    common = (*lists, *own)
    params = overridden(params_file, common)
    candidates = cells(params, doses=selection.doses, seeds=selection.seeds)
    chosen = choose(candidates, dose=selection.doses, view=selection.views, gridsize=selection.gridsizes)
    usual = _settings(committed, methods or {})
    experiments: list[Experiment] = []
    for cell in chosen:
        overrides = (*common, *_own(cell, params, selection.doses))
        found = overridden(params_file, overrides)
        settings = _settings(found, {"seed": params.seed, "iterative": params.iterative})
        changed = code_change or settings != usual
        repeat = "" if cell.seed == params.seed else f"-seed{cell.seed}"
        digest = hashlib.sha256((settings + code_change).encode()).hexdigest()[:DIGEST_DIGITS]
        name = f"{cell.dose}-{cell.view}{repeat}" + (f"-{digest}" if changed else "")
        experiments.append(Experiment(name, cell, found, overrides))
    return experiments


def _own(cell: Cell, params: Params, doses: Sequence[int]) -> list[str]:
    """Return the overrides that make one cell from the parameters of all."""
    own = [f"dose={cell.dose}", f"view={cell.view}"]
    if cell.dose not in params.doses:
        listed = [*params.doses, *sorted({*doses}.difference(params.doses))]
        own.insert(0, f"doses=[{','.join(map(str, listed))}]")
    if cell.seed != params.seed:
        own.append(f"seed={cell.seed}")
        if params.learned:  # the others do not depend on it
            own.append("iterative=[]")
    return own


def _settings(params: Params, changes: Mapping[str, Any]) -> str:
    """Return the parameters, with changes, without those that tell cells of one matrix apart."""
    return dumps({**params.model_dump(exclude=set(OPTIONS)), **changes})


def overridden(params_file: Path, overrides: Sequence[str]) -> Params:
    """Return the parameters that DVC would give to an experiment.

    Raises
    ------
    StudyError
        If DVC cannot apply an override, or the parameters are then not valid.
    """
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides, to_hydra_overrides
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    params = load_study(params_file)
    if not overrides:
        return params
    given = " ".join(overrides)
    where = "-S " + (given if len(given) <= MAX_SHOWN else f"{given[:MAX_SHOWN]}...")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / params_file.name
        shutil.copyfile(params_file, copy)
        try:
            if any(override.is_sweep_override() for override in to_hydra_overrides(list(overrides))):
                raise StudyError("-S", f"one value each, got {where[3:]}", "run the matrix twice")
            apply_overrides(copy, list(overrides))
        except (DvcException, HydraException, OmegaConfBaseException) as error:
            reason = str(error.__cause__ or error).partition("\n")[0]
            raise StudyError(where, f"cannot be applied ({reason})") from None
        try:
            return load_study(copy)
        except StudyError as error:
            told = error.problem
            section = error.where.partition(": ")[2]
            raise StudyError(where, f"{section}.{told}" if section else told, error.hint) from None
