"""Stage check: refuse parameters that no stage could work with, and take down each method's code."""

from __future__ import annotations

from pathlib import Path

from fly64_dose_overlap.config import PARAMS_FILE, BaseParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import write_json_atomic
from fly64_dose_overlap.pipeline import cells
from fly64_dose_overlap.pipeline.stages._cli import ParamsOption, run
from fly64_dose_overlap.progress import say


def main(params_file: ParamsOption = PARAMS_FILE) -> None:
    """Validate the parameters and write metrics/check/METHOD.json for every method that they name.

    Training and reconstruction by a method depend on its file, which holds digests of the
    method's code: a method that is changed runs alone. DVC looks for the data of `dose` and
    `view`, and removes old results, before it starts a stage; without this one a mistyped
    dose would be a missing file to it, and cost the results.
    """
    from fly64_dose_overlap.pipeline.code import code_of_method
    from fly64_dose_overlap.pipeline.study import load_study

    params = load_study(params_file)
    _require_truth(params.learned, params.base, params_file)
    _require_halves(params.halves, params_file)
    for name in (*params.learned, *params.iterative):
        write_json_atomic(cells.CODE / f"{name}.json", code_of_method(name))
    say(f"check: the cell is {params.dose} photons per frame, view {params.view}")


def _require_truth(learned: list[str], base: BaseParams, params_file: Path) -> None:
    """Refuse a method that learns from the true object, if frames are to be studied as they were measured."""
    from fly64_dose_overlap.pipeline.study import is_measured, learning_from_truth

    names = learning_from_truth(learned)
    if names and is_measured(base):
        problem = f"learned: {names[0]} learns from the true object, which nobody knows of measured frames"
        raise StudyError(str(params_file), problem, "take it out, or set base.frames: simulated")


def _require_halves(halves: list[str], params_file: Path) -> None:
    """Refuse a method whose halves would share the true object that it learns from."""
    from fly64_dose_overlap.pipeline.study import learning_from_truth

    if names := learning_from_truth(halves):
        problem = f"halves: {names[0]} learns from the true object, which both halves would share"
        raise StudyError(str(params_file), problem, "take it out of halves")


if __name__ == "__main__":
    run(main)
