"""Provenance records."""

from __future__ import annotations

import json

import pytest

from fly64_dose_overlap import __version__
from fly64_dose_overlap.provenance import dumps, new_record, steps, with_physics, with_step


def test_a_new_record_says_what_made_it() -> None:
    record = new_record("base", physics={"energy_ev": 8e3}, seed=42)
    assert record["creation_info"] == {
        "script": "base",
        "package": "fly64_dose_overlap",
        "version": __version__,
    }
    assert record["physics_parameters"] == {"energy_ev": 8e3}
    assert record["additional_parameters"] == {"seed": 42}
    assert steps(record) == []


def test_steps_are_appended_and_earlier_records_stay() -> None:
    first = new_record("base")
    second = with_step(first, "simulate", "draw photon counts", seed=1)
    third = with_step(second, "split_dataset", "keep the train half", half="train")
    assert [steps(record) for record in (first, second, third)] == [
        [],
        ["simulate"],
        ["simulate", "split_dataset"],
    ]
    assert third["data_transformations"][0] == {
        "tool": "simulate",
        "operation": "draw photon counts",
        "parameters": {"seed": 1},
    }


def test_physics_is_added_or_replaced_in_a_copy() -> None:
    record = new_record("base", physics={"a": 1, "b": 2})
    assert with_physics(record, b=3, c=4)["physics_parameters"] == {"a": 1, "b": 3, "c": 4}
    assert record["physics_parameters"] == {"a": 1, "b": 2}


def test_records_from_elsewhere_can_be_extended() -> None:
    assert steps(with_step({}, "overlap", "keep a view")) == ["overlap"]
    assert with_physics({}, a=1) == {"physics_parameters": {"a": 1}}


def test_equal_records_give_equal_text() -> None:
    first, second = new_record("base", b=1, a=2), new_record("base", a=2, b=1)
    assert dumps(first) == dumps(second)
    assert json.loads(dumps(first)) == first


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        dumps(new_record("base", value=float("nan")))
