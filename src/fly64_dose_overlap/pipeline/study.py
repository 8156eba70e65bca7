"""The study's parameters, those of every method included."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from fly64_dose_overlap.config import PARAMS_FILE, BaseParams, Params, load_params
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import read_json
from fly64_dose_overlap.files.own_npz import has_frames
from fly64_dose_overlap.methods.base import Learned
from fly64_dose_overlap.methods.registry import make_method, method_class
from fly64_dose_overlap.pipeline.cells import REFERENCE_METRICS
from fly64_dose_overlap.progress import say
from fly64_dose_overlap.scores.evaluation import FLAT_OBJECT, FLAT_OBJECT_LABEL


def load_study(path: Path = PARAMS_FILE) -> Params:
    """Read and validate ``params.yaml``, with the settings of all methods that it names.

    Raises
    ------
    MissingFileError
        If the file is not there.
    StudyError
        If a key is unknown, missing, of the wrong type or out of range, a method does not
        exist, is named in the wrong list, or has a result of the name or label of another's.
    """
    params = load_params(path)
    taken = {FLAT_OBJECT: "the flat object", FLAT_OBJECT_LABEL: "the flat object"}
    for name, settings in params.methods.items():
        made = make_method(name, settings, where=f"{path}: methods.{name}")
        if name in params.iterative and isinstance(made, Learned):
            raise StudyError(str(path), f"iterative: {name} has to be trained", "name it in learned")
        if name in params.learned and not isinstance(made, Learned):
            raise StudyError(str(path), f"learned: {name} has no training", "name it in iterative")
        for heading in dict.fromkeys(chain(*made.headings().items())):
            if other := taken.get(heading):
                problem = f"has a result called {heading!r}, as {other} has"
                raise StudyError(f"{path}: methods.{name}", problem, "give it another name or label")
            taken[heading] = name
    return params


def all_methods(params: Params) -> dict[str, list[str]]:
    """Return the lists ``learned`` and ``iterative`` of every method that has settings.

    Those that learn from the true object are left out, and it is said, where frames are studied as
    they were measured.
    """
    found: dict[str, list[str]] = {"learned": [], "iterative": []}
    left_out = learning_from_truth(params.methods) if is_measured(params.base) else []
    if left_out:
        say(f"left out: {', '.join(left_out)}, since nobody knows the true object of measured frames")
    for name in (each for each in params.methods if each not in left_out):
        found["learned" if issubclass(method_class(name), Learned) else "iterative"].append(name)
    return {key: names for key, names in found.items() if names}


def is_measured(base: BaseParams) -> bool:
    """Return whether frames are studied as they were measured.

    A copy of the study, in DVC's queue or from a remote, need not have the file: it has the base
    set, and what the stages said of it.
    """
    if base.is_synthetic or base.frames == "simulated":
        return False
    if Path(base.source).is_file():
        return has_frames(base.source, base.fields)
    return REFERENCE_METRICS.is_file() and read_json(REFERENCE_METRICS).get("kind") == "measured"


def learning_from_truth(names: Iterable[str]) -> list[str]:
    """Return the methods among some that learn from the true object."""
    found = ((name, method_class(name)) for name in names)
    return [name for name, method in found if issubclass(method, Learned) and method.needs_truth]
