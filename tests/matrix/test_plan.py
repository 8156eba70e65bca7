"""Which cells the matrix has, what they are called, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from fly64_dose_overlap.config import load_params
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.matrix.plan import (
    Experiment,
    Selection,
    parse_dose,
    plan,
)
from fly64_dose_overlap.pipeline.study import all_methods
from tiny_study import write_params

DOSES = (1000, 10000, 100000)
VIEWS = ("baseline", "dense", "sparse")
NAMES = [f"{dose}-{view}" for dose in DOSES for view in VIEWS]


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    return write_params(tmp_path)


def planned(params_file: Path, selection: Selection | None = None, code_change: str = "") -> list[Experiment]:
    """Return the experiments of a working tree without edits."""
    committed = load_params(params_file)
    return plan(
        selection or Selection(), committed=committed, params_file=params_file, code_change=code_change
    )


def with_overrides(params_file: Path, *overrides: str, seeds: int = 1) -> list[Experiment]:
    selection = Selection(doses=[1000], views=["dense"], seeds=seeds, overrides=overrides)
    return planned(params_file, selection)


def names(experiments: Sequence[Experiment]) -> list[str]:
    return [each.name for each in experiments]


@pytest.mark.parametrize("text", ["1e3", "1000", "1000.0", "1E+3"])
def test_a_dose_may_be_written_in_several_ways(text: str) -> None:
    dose = parse_dose(text)
    assert dose == 1000
    assert isinstance(dose, int)


@pytest.mark.parametrize("text", ["0", "-5", "1.5", "nan", "inf", "1e400", "x", ""])
def test_what_is_no_dose_is_refused(text: str) -> None:
    with pytest.raises(
        StudyError, match=r"^--dose: must be a positive whole number of photons per frame, got"
    ):
        parse_dose(text)


def test_what_is_named_twice_is_taken_once(params_file: Path) -> None:
    twice = Selection([1000, 1000], ["dense"] * 2, [1, 2, 2], overrides=["methods.refined.width=8"] * 2)
    (cell,) = planned(params_file, twice)
    assert cell.overrides == ("methods.refined.width=8", "dose=1000", "view=dense")


def test_a_dose_out_of_range_is_refused_with_the_parameters(params_file: Path) -> None:
    dose = parse_dose("1e300")
    with pytest.raises(StudyError, match="less than or equal to 10000000, got"):
        planned(params_file, Selection(doses=[dose]))


def test_the_study_has_nine_cells(params_file: Path) -> None:
    cells = planned(params_file)
    assert names(cells) == NAMES
    for cell in cells:
        dose, view = cell.params.dose, cell.params.view
        assert cell.name == f"{dose}-{view}"
        assert (cell.cell.dose, cell.cell.view, cell.cell.seed) == (dose, view, 42)
        assert cell.overrides == (f"dose={dose}", f"view={view}")


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(doses=[1000]), NAMES[:3]),
        (Selection(doses=[1000, 1000]), NAMES[:3]),
        (Selection(views=["sparse"]), NAMES[2::3]),
        (Selection(gridsizes=[1]), NAMES[::3]),
        (Selection(gridsizes=[1, 2]), NAMES),
        (Selection(doses=[100000], gridsizes=[2]), NAMES[7:]),
        (Selection(doses=[100000, 1000], views=["dense"]), ["1000-dense", "100000-dense"]),
    ],
)
def test_filters(params_file: Path, selection: Selection, expected: list[str]) -> None:
    assert names(planned(params_file, selection)) == expected


def test_repeats_count_the_seed_up(params_file: Path) -> None:
    cells = planned(params_file, Selection(doses=[1000], views=["dense"], seeds=3))
    assert names(cells) == ["1000-dense", "1000-dense-seed43", "1000-dense-seed44"]
    assert [cell.params.seed for cell in cells] == [42, 43, 44]
    assert "seed=43" in cells[1].overrides
    assert [bool(cell.params.iterative) for cell in cells] == [True, False, False], "no seed is theirs"
    assert cells[0].params.learned == cells[1].params.learned
    assert not any(override.startswith("seed") for override in cells[0].overrides)


def test_a_new_dose_is_added_to_the_list(params_file: Path) -> None:
    known, new = planned(params_file, Selection(doses=[3000, 1000], views=["dense"]))
    assert new.overrides == ("doses=[1000,10000,100000,3000]", "dose=3000", "view=dense")
    assert new.params.doses == [*DOSES, 3000]
    assert new.name == "3000-dense"
    assert known.overrides == ("dose=1000", "view=dense")


def test_two_new_doses_share_one_list(params_file: Path) -> None:
    cells = planned(params_file, Selection(doses=[3000, 300], views=["dense"]))
    assert [cell.params.doses for cell in cells] == [[*DOSES, 300, 3000]] * 2


def test_a_further_override_puts_a_digest_into_the_name(params_file: Path) -> None:
    (cell,) = with_overrides(params_file, "methods.refined.width=8")
    assert re.fullmatch(r"1000-dense-[0-9a-f]{6}", cell.name)
    assert cell.params.methods["refined"]["width"] == 8
    assert cell.overrides[0] == "methods.refined.width=8"
    assert names(with_overrides(params_file, "methods.refined.width=8")) == [cell.name]
    assert names(with_overrides(params_file, "methods.refined.width=16")) != [cell.name]


def test_the_digest_is_the_same_for_every_cell_and_seed(params_file: Path) -> None:
    selection = Selection([1000, 10000], ["dense", "sparse"], seeds=2, overrides=["methods.refined.loss=mae"])
    found = names(planned(params_file, selection))
    assert len(found) == len(set(found)) == 8
    assert len({name.rpartition("-")[2] for name in found}) == 1


def test_an_override_that_changes_nothing_leaves_the_name(params_file: Path) -> None:
    assert names(with_overrides(params_file, "methods.refined.width=32")) == ["1000-dense"]


def test_an_edit_of_the_parameters_puts_a_digest_into_the_name(tmp_path: Path) -> None:
    committed = load_params(write_params(tmp_path))
    edited = write_params(tmp_path, methods={"refined": {"width": 8}})
    (cell,) = plan(
        Selection(doses=[1000], views=["dense"]), committed=committed, params_file=edited, code_change=""
    )
    assert cell.overrides == ("dose=1000", "view=dense")
    # The same training by override from the commit is the same experiment.
    assert [cell.name] == names(with_overrides(write_params(tmp_path), "methods.refined.width=8"))


@pytest.mark.parametrize("change", [{"dose": 1000}, {"view": "sparse"}, {"doses": [1000, 10000]}])
def test_another_cell_in_the_parameters_is_no_change(tmp_path: Path, change: dict[str, object]) -> None:
    committed = load_params(write_params(tmp_path))
    edited = write_params(tmp_path, **change)
    cells = plan(Selection(doses=[1000]), committed=committed, params_file=edited)
    assert names(cells) == NAMES[:3]


def test_changed_code_puts_a_digest_into_the_name(params_file: Path) -> None:
    cells = Selection(doses=[1000])
    first, again, other = (names(planned(params_file, cells, text)) for text in ("+x", "+x", "+y"))
    assert first == again
    assert not set(first) & set(other)
    assert all(re.fullmatch(r"\d+-[a-z]+-[0-9a-f]{6}", name) for name in (*first, *other))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dose=1000", "-S dose=1000: dose makes the cells of the matrix; use --dose"),
        ("doses=[1000]", "use --dose"),
        ("view=dense", "use --view"),
        ("++dose=1000", "use --dose"),
        ("methods.refined.width=8,16", "one value each, got methods.refined.width=8,16"),
        ("methods.refined.colour=1", "Could not override 'methods.refined.colour'"),
        ("+methods.refined.colour=1", "methods.refined.colour: unknown key"),
        ("~methods.refined.width", "methods.refined.width: key is missing"),
        ("methods.refined.width=5", "methods.refined.width: input should be a multiple of 4, got 5"),
        (
            "methods.refined.loss=cubic",
            "methods.refined.loss: input should be 'poisson' or 'mae', got 'cubic'",
        ),
        ("seed", "Error parsing override 'seed'"),
    ],
)
def test_overrides_that_are_refused(params_file: Path, override: str, message: str) -> None:
    with pytest.raises(StudyError) as caught:
        with_overrides(params_file, override)
    assert str(caught.value).startswith("-S")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_view_is_refused(params_file: Path) -> None:
    with pytest.raises(StudyError, match=r"^--view: thin is not among baseline, dense, sparse$"):
        planned(params_file, Selection(views=["thin"]))


def test_filters_that_leave_no_cell_are_refused(params_file: Path) -> None:
    with pytest.raises(
        StudyError, match=r"^cells: none matches all filters; leave out --view or --gridsize$"
    ):
        planned(params_file, Selection(views=["baseline"], gridsizes=[2]))
    with pytest.raises(StudyError, match=r"^--gridsize: 3 is not among 1, 2$"):
        planned(params_file, Selection(gridsizes=[3]))


def test_planning_leaves_the_parameters_as_they_are(params_file: Path) -> None:
    before = params_file.read_bytes()
    planned(params_file, Selection(doses=[3000], seeds=2, overrides=["methods.refined.width=8"]))
    assert params_file.read_bytes() == before


def test_the_command_of_a_cell_holds_name_and_settings(params_file: Path) -> None:
    (each,) = with_overrides(params_file, "methods.refined.width=8")
    assert each.command[-1] == "evaluate"
    settings = [value for flag, value in pairwise(each.command) if flag == "--set-param"]
    assert settings == ["methods.refined.width=8", "dose=1000", "view=dense"]
    assert each.command[each.command.index("--name") + 1] == each.name


def test_every_method_with_settings_is_run_by_its_kind(params_file: Path) -> None:
    params = load_params(params_file)
    found = all_methods(params)
    assert {"network", "refined", "supervised"} <= set(found["learned"])
    assert {"map", "ml", "lsqml"} <= set(found["iterative"])
    assert sorted([*found["learned"], *found["iterative"]]) == sorted(params.methods)


def test_every_cell_runs_every_method_unless_the_user_says_otherwise(params_file: Path) -> None:
    committed = load_params(params_file)

    def planned_with(*overrides: str) -> Experiment:
        selection = Selection(doses=[1000], views=["dense"], overrides=overrides)
        methods = all_methods(committed)
        (each,) = plan(selection, committed=committed, params_file=params_file, methods=methods)
        return each

    usual, own = planned_with(), planned_with("learned=[]")
    assert usual.name == "1000-dense"
    assert usual.params.learned == all_methods(committed)["learned"]
    assert own.name != usual.name
    assert own.params.learned == []
