"""The cells of the study: which there are, where their files lie, and how some of them are chosen."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from fly64_dose_overlap.config import Params
from fly64_dose_overlap.errors import StudyError

Half = Literal["train", "test"]
Chosen = TypeVar("Chosen")

HALVES: tuple[Half, ...] = ("train", "test")
"""Of a scan that is cut in two."""
PARTS = ("first", "second")
"""Halves of the photons of every frame."""

BASE_FILE = Path("data/base/base.npz")
BASE_METRICS = Path("metrics/base.json")
REFERENCE = Path("data/reference")
REFERENCE_METRICS = Path("metrics/reference.json")
MEASURED_FILE = REFERENCE / "measured.npz"
"""Frames that doses are made of, with the reference as their object; absent where frames are simulated."""
HELD_FILE = REFERENCE / "held.npz"
"""Photons of the reference, which no method sees."""
REFERENCE_HALVES = REFERENCE / "halves.npz"
CODE = Path("metrics/check")
METRICS = Path("metrics")
DIAGNOSIS = Path("metrics/diagnosis.json")
EVALUATION = Path("metrics/evaluation.json")
REPORTS = Path("reports")
"""Files and folders, here and below, are relative to the folder of params.yaml."""


def dose_file(dose: int, half: str) -> Path:
    """Return the counts of one half of the scan at a dose."""
    return Path(f"data/dose/{dose}/{half}.npz")


def dose_metrics(dose: int) -> Path:
    """Return the measured dose."""
    return Path(f"metrics/dose/{dose}.json")


def view_file(dose: int, view: str, half: str) -> Path:
    """Return one half of the scan at a dose, as a view samples it."""
    return Path(f"data/views/{dose}/{view}/{half}.npz")


def overlap_metrics(dose: int, view: str) -> Path:
    """Return the measured overlap of a view."""
    return Path(f"metrics/overlap/{dose}-{view}.json")


def limit_file(view: str) -> Path:
    """Return the physical limit of a view, which serves every dose."""
    return Path(f"metrics/limit/{view}.json")


def model_file(method: str) -> Path:
    """Return a trained model; its manifest lies beside it."""
    return Path("models") / method / "model.safetensors"


def curves_folder(method: str) -> Path:
    """Return the folder of the curves of a training, where dvclive writes."""
    return Path("metrics") / method


def reconstruction_folder(method: str) -> Path:
    """Return the folder of a method's reconstructions."""
    return Path("reconstructions") / method


def halves_folder(method: str) -> Path:
    """Return the folder of what a method makes of two halves of the photons, one folder of `PARTS` each."""
    return Path("reconstructions") / "_halves" / method


@dataclass(frozen=True)
class Cell:
    """One dose with one view and one seed."""

    dose: int
    """Photons per frame."""
    view: str
    seed: int
    """Of the training."""
    gridsize: int
    """Group side of the view."""

    def data(self, half: str) -> Path:
        """Return the dataset of one half."""
        return view_file(self.dose, self.view, half)


def cells(params: Params, *, doses: Iterable[int] = (), seeds: int = 1) -> list[Cell]:
    """Return the cells of the study: doses ascending, for each the views, for each the seeds.

    ``doses``, in photons per frame, come beside those that the parameters list; ``seeds`` is
    the number of repeats of each cell, with the seed of the training counted up from its value.
    """
    first = params.seed
    return [
        Cell(dose, view, seed, settings.gridsize)
        for dose in sorted({*params.doses, *doses})
        for view, settings in params.overlap.views.items()
        for seed in range(first, first + seeds)
    ]


def choose(candidates: Sequence[Chosen], **wanted: Collection[Any]) -> list[Chosen]:
    """Return those that have one of the wanted values of every attribute; no value takes all.

    Candidates are cells, or anything with attributes of these names: ``dose=[1000]``,
    ``view=["dense"]`` or ``seed=[42]``.

    Raises
    ------
    StudyError
        If no candidate has one of the values, or none is left.
    """
    given = {name: set(values) for name, values in wanted.items() if values}
    for name, values in given.items():
        known = list(dict.fromkeys(getattr(each, name) for each in candidates))
        if unknown := sorted(map(str, values.difference(known))):
            choices = ", ".join(map(str, known))
            raise StudyError(f"--{name}", f"{', '.join(unknown)} is not among {choices}")
    left = [each for each in candidates if all(getattr(each, name) in given[name] for name in given)]
    if not left:
        options = " or ".join(f"--{name}" for name in given)
        raise StudyError("cells", "none matches all filters", f"leave out {options}")
    return left
