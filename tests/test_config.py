"""``params.yaml``: what is refused, and in which words."""

from __future__ import annotations

import copy
import math
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

import factories
from fly64_dose_overlap.config import Params, load_params, parse_params
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.methods.registry import make_method, method_class, method_names
from fly64_dose_overlap.scores.bound import DOSES
from fly64_dose_overlap.study.probe import zone_plate_probe

CONTENT: dict[str, Any] = yaml.safe_load((factories.ROOT / "params.yaml").read_text(encoding="utf-8"))
REMOVED = object()
METHODS = method_names()


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the content of params.yaml with values at dotted keys replaced, added or removed."""
    content = copy.deepcopy(CONTENT)
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = content
        for section in sections:
            place = place[section]
        if value is REMOVED:
            del place[last]
        else:
            place[last] = value
    return content


def refusal(content: Any) -> str:
    with pytest.raises(StudyError) as caught:
        parse_params(content)
    message = str(caught.value)
    assert message.startswith("params.yaml: ")
    assert "\n" not in message
    return message.removeprefix("params.yaml: ")


def method_refusal(name: str, changes: dict[str, Any]) -> str:
    """Return the message of a method that refuses its changed settings."""
    changed_at = {f"methods.{name}.{key}": value for key, value in changes.items()}
    settings = changed(changed_at)["methods"][name]
    with pytest.raises(StudyError) as caught:
        make_method(name, settings, where=f"methods.{name}")
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"methods.{name}: ")


def test_the_repositorys_parameters_are_valid_and_frozen() -> None:
    params = parse_params(CONTENT)
    assert params.model_dump() == CONTENT
    with pytest.raises(ValidationError, match="frozen"):
        params.expose.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        params.overlap.views["dense"].s_img = 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "colour: unknown key"),
        ({"expose.loss_weight": 1}, "expose.loss_weight: unknown key"),
        ({"overlap.views.dense.size": 1}, "overlap.views.dense.size: unknown key"),
        ({"dose": REMOVED}, "dose: key is missing"),
        ({"methods": REMOVED}, "methods: key is missing"),
        ({"limit.vectors": REMOVED}, "limit.vectors: key is missing"),
        ({"stops.patience": "5"}, "stops.patience: input should be a valid integer, got '5'"),
        ({"stops.patience": 5.0}, "stops.patience: input should be a valid integer, got 5.0"),
        ({"stops.patience": True}, "stops.patience: input should be a valid integer, got True"),
        ({"base.source": None}, "base.source: input should be a valid string, got None"),
        ({"overlap.enable_oversampling": 1}, "enable_oversampling: input should be a valid boolean, got 1"),
        (
            {"expose": []},
            "expose: input should be a valid dictionary or instance of ExposeParams, got []",
        ),
        ({"base.frame_side_px": 63}, "base.frame_side_px: input should be a multiple of 2, got 63"),
        ({"base.frame_side_px": 6}, "base.frame_side_px: input should be greater than or equal to 18, got 6"),
        ({"base.step_px": 0.0}, "base.step_px: input should be greater than 0, got 0.0"),
        ({"base.jitter_px": -0.5}, "base.jitter_px: input should be greater than or equal to 0, got -0.5"),
        ({"base.defocus_um": float("nan")}, "base.defocus_um: input should be a finite number, got nan"),
        ({"base.object_kind": "sun"}, "base.object_kind: input should be 'star' or 'texture', got 'sun'"),
        ({"base.source": ""}, "base.source: string should have at least 1 character, got ''"),
        ({"expose.split_fraction": 1}, "expose.split_fraction: input should be less than 1, got 1"),
        ({"expose.guard_gap_px": -1}, "guard_gap_px: input should be greater than or equal to 0, got -1"),
        ({"expose.seed": -1}, "expose.seed: input should be greater than or equal to 0, got -1"),
        ({"seed": 2**63}, "seed: input should be less than 9223372036854775808, got 9223372036854775808"),
        ({"stops.patience": 0}, "stops.patience: input should be greater than or equal to 1, got 0"),
        ({"learned": [], "iterative": []}, "learned and iterative name no method"),
        ({"iterative": ["map", "refined"]}, "learned and iterative must name a method once, got ['refined',"),
        ({"iterative": ["mapp"]}, "methods has no settings of mapp"),
        ({"iterative": ["../map"]}, "iterative.0: string should match pattern"),
        ({"methods.Map": {}}, "methods.Map.[key]: string should match pattern"),
        ({"methods.map": 90}, "methods.map: input should be a valid dictionary, got 90"),
        ({"evaluate.region_threshold": 1}, "evaluate.region_threshold: input should be less than 1, got 1"),
        ({"view": "medium"}, "view medium is not among overlap.views ['baseline', 'dense', 'sparse']"),
        (
            {"overlap.views.sparse.gridsize": 3},
            "overlap.views.sparse.gridsize: input should be 1 or 2, got 3",
        ),
        ({"overlap.views.sparse.n_groups": 0}, "n_groups: input should be greater than or equal to 1, got 0"),
        (
            {"overlap.views.sparse.n_groups": 10**6},
            "n_groups: input should be less than or equal to 100000, ",
        ),
        (
            {"stops.held_out_fraction": 1e-12},
            "stops.held_out_fraction: input should be greater than or equal to 0.01, got 1e-12",
        ),
        ({"overlap.views.a-b": {}}, "overlap.views.a-b.[key]: string should match pattern"),
        (
            {"overlap.views.09": {"s_img": 1.0, "n_groups": None, "gridsize": 1}},
            "09 is 9 in YAML",
        ),
        (
            {"overlap.views.1e3": {"s_img": 1.0, "n_groups": None, "gridsize": 1}},
            "1e3 is 1000.0 in YAML",
        ),
        ({"overlap.views": {}}, "overlap.views: dictionary should have at least 1 item"),
    ],
)
def test_each_rule_names_the_key_and_the_value(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(changed(changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_weight": 1}, "loss_weight: unknown key"),
        ({"epochs": REMOVED}, "epochs: key is missing"),
        ({"epochs": "5"}, "epochs: input should be a valid integer, got '5'"),
        ({"epochs": 5.0}, "epochs: input should be a valid integer, got 5.0"),
        ({"epochs": True}, "epochs: input should be a valid integer, got True"),
        ({"loss": "l2"}, "loss: input should be 'poisson' or 'mae', got 'l2'"),
        ({"width": 6}, "width: input should be a multiple of 4, got 6"),
        ({"patience": 0}, "patience: input should be greater than or equal to 1, got 0"),
        ({"learning_rate": 0}, "learning_rate: input should be greater than 0, got 0"),
        ({"device": "gpu"}, "device: input should be 'auto', 'cpu' or 'cuda', got 'gpu'"),
        ({"epochs": 0, "width": 5, "colour": 1}, " (and 2 more)"),
    ],
)
def test_each_rule_of_a_methods_settings_names_the_key_and_the_value(
    changes: dict[str, Any], message: str
) -> None:
    assert message in method_refusal("refined", changes)


def test_settings_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(StudyError, match=r"^here: input should be a valid dictionary or instance of"):
        make_method("map", [90], where="here")


def test_every_method_has_valid_settings_and_none_is_without_them() -> None:
    assert sorted(CONTENT["methods"]) == METHODS
    for name, settings in CONTENT["methods"].items():
        assert make_method(name, settings).settings.model_dump() == settings


@pytest.mark.parametrize(
    ("fraction", "rule"),
    [(0.0, "greater than 0"), (-0.1, "greater than 0"), (1.01, "less than or equal to 1")],
)
def test_s_img_is_a_fraction(fraction: float, rule: str) -> None:
    message = refusal(changed({"overlap.views.dense.s_img": fraction}))
    assert message == f"overlap.views.dense.s_img: input should be {rule}, got {fraction}"


def numbers(schema: Any, definitions: dict[str, Any], name: str = "params") -> Iterator[tuple[str, Any]]:
    """Yield every number of a JSON schema with its dotted name."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if schema.get("type") in ("integer", "number") and "enum" not in schema:
        yield name, schema
    for key, part in schema.get("properties", {}).items():
        yield from numbers(part, definitions, f"{name}.{key}")
    further = [schema.get("items"), schema.get("additionalProperties"), *schema.get("anyOf", ())]
    for part in [*further, *schema.get("patternProperties", {}).values()]:
        if isinstance(part, dict):
            yield from numbers(part, definitions, name)


def bounds(schema: Any) -> list[Any]:
    return [
        next((schema[key] for key in keys if key in schema), None)
        for keys in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"))
    ]


def test_every_number_has_two_bounds() -> None:
    schema = Params.model_json_schema()
    found = dict(numbers(schema, schema["$defs"]))
    for name in METHODS:
        schema = method_class(name).Settings.model_json_schema()
        found |= numbers(schema, schema.get("$defs", {}), name)
    leaves = {"params.dose", "params.doses", "params.overlap.views.s_img", "refined.learning_rate"}
    assert leaves <= found.keys()
    assert len(found) > 40
    unbounded = {name for name, part in found.items() if not all(map(_finite, bounds(part)))}
    assert unbounded == set()


def _finite(bound: Any) -> bool:
    return bound is not None and math.isfinite(bound)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_no_number_is_without_measure(value: float) -> None:
    for name in ("base.defocus_um", "expose.guard_gap_px"):
        assert refusal(changed({name: value})).startswith(f"{name}: input should be ")
    assert method_refusal("refined", {"learning_rate": value}).startswith("learning_rate: input should be ")


def test_a_scan_that_cannot_be_counted_is_refused() -> None:
    message = refusal(changed({"base.step_px": 1e-3}))
    assert message.startswith(
        "base: field_px=480.0 and step_px=0.001 make 2.3e+11 positions, at most 4,000,000"
    )


def test_values_are_shown_shortened() -> None:
    for value in (
        "x" * 10_000,
        [0] * 10_000,
        {"a": "x" * 10_000},
        10**5000,
        [[["x" * 10_000] * 99] * 99] * 99,
    ):
        for key in ("dose", "doses", "stops.patience", "base.source", "x" * 1000):
            assert len(refusal(changed({key: value}))) < 500
        assert len(method_refusal("refined", {"epochs": value})) < 500


def test_a_group_must_fit_into_the_neighbourhood() -> None:
    message = refusal(changed({"overlap.neighbor_count": 3}))
    assert message == "overlap: neighbor_count=3 < C=4 of view dense (OVERSAMPLING-001)"


def test_more_problems_are_counted() -> None:
    assert refusal(changed({"stops.patience": 0, "limit.vectors": 0, "colour": 1})).endswith(" (and 2 more)")


# Doses


@pytest.mark.parametrize("key", ["dose", "doses"])
@pytest.mark.parametrize(
    ("spelling", "hint"),
    [
        ("1e3", "; write 1000"),
        (1000.0, "; write 1000"),
        ("1000", "; write 1000"),
        ("2.5e4", "; write 25000"),
        (1500.5, ""),
        (0.5, ""),
        ("-1e3", ""),
        ("bright", ""),
        (float("inf"), ""),
        ({"value": 1000}, ""),
    ],
)
def test_doses_are_written_as_whole_numbers(key: str, spelling: Any, hint: str) -> None:
    value = [1000, spelling] if key == "doses" else spelling
    wanted = f"{key} must be a whole number of photons per frame, got {spelling!r}{hint}"
    assert refusal(changed({key: value})) == wanted


def test_1e3_is_no_whole_number(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((factories.ROOT / "params.yaml").read_text().replace("dose: 10000 ", "dose: 1e3 ", 1))
    with pytest.raises(StudyError, match=r"got 1000\.0; write 1000$"):
        load_params(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dose": 0}, "dose: input should be greater than or equal to 10, got 0"),
        ({"doses": [1000, -5]}, "doses.1: input should be greater than or equal to 10, got -5"),
        ({"dose": True}, "dose: input should be a valid integer, got True"),
        ({"dose": 10**8}, "dose: input should be less than or equal to 10000000, got 100000000"),
        ({"doses": []}, "doses: list should have at least 1 item after validation, not 0, got []"),
        ({"doses": [1000, 1000], "dose": 1000}, "doses must not repeat, got [1000, 1000]"),
        (
            {"dose": 5000},
            "dose 5000 is not among doses [1000, 10000, 100000]; "
            "add it with -S 'doses=[1000,10000,100000,5000]'",
        ),
    ],
)
def test_doses_are_positive_and_listed_once(changes: dict[str, Any], message: str) -> None:
    assert refusal(changed(changes)) == message


def test_every_dose_that_is_taken_has_a_limit() -> None:
    schema = Params.model_json_schema()["properties"]["dose"]
    assert (schema["minimum"], schema["maximum"]) == (DOSES[0], DOSES[-1])


def test_the_smallest_frame_that_is_taken_has_light() -> None:
    schema = Params.model_json_schema()["$defs"]["BaseParams"]["properties"]["frame_side_px"]
    assert np.linalg.norm(zone_plate_probe(schema["minimum"], 0.0)) == pytest.approx(1)
    with pytest.raises(StudyError, match="lie in the shadow of the central stop"):
        zone_plate_probe(schema["minimum"] - 2, 0.0)


# The file


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none\.yaml: no such file; run from the repository's root"):
        load_params(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"dose: [1, 2", "is not valid YAML (expected ',' or ']', but got '<stream end>', line 1)"),
        (b"a: 2026-13-45", "is not valid YAML (ValueError: month must be in 1..12)"),
        (b"a: !!int ''", "is not valid YAML (ValueError: "),
        (b"a: !!bool maybe", "is not valid YAML (KeyError: "),
        (b"a: !!timestamp now", "is not valid YAML (AttributeError: "),
        (b"a: " + b"[" * 5000, "is not valid YAML (RecursionError: "),
        (b"a: " + b"1" * 5000, "is not valid YAML (ValueError: "),
        (b"a: !!python/object/apply:os.mkdir [executed]", "is not valid YAML (could not determine a constr"),
        (b"dose: 1\nview: dense\ndose: 2", "is not valid YAML (the key 'dose' comes twice, line 3)"),
        (b"a: {b: 1, b: 2}", "is not valid YAML (the key 'b' comes twice, line 1)"),
        (b"a: &a {b: 1}\nc:\n  <<: *a", "is not valid YAML (merge keys are not understood, line 3)"),
        (b"1: 2", "is not valid YAML (a key must be text, found 1, line 1)"),
        (b"? [a]\n: 2", "is not valid YAML (a key must be text, found ['a'], line 1)"),
        (b"#" * 65_537, "is longer than 64 KiB"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"", "input should be a valid dictionary or instance of Params, got None"),
        (b"- dose", "input should be a valid dictionary or instance of Params, got ['dose']"),
        (
            "\u009b31m: 1".encode(),
            "is not valid YAML (ReaderError: unacceptable character #x009b: special characters",
        ),
    ],
)
def test_what_is_no_parameter_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(StudyError) as caught:
        load_params(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_parameter_file(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="is not a regular file"):
        load_params(tmp_path)


def test_a_user_base_is_a_path() -> None:
    assert parse_params(CONTENT).base.is_synthetic
    assert not Params.model_validate(changed({"base.source": "my.npz"})).base.is_synthetic


def test_parameters_have_no_defaults() -> None:
    def fields_of(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
        for name, field in model.model_fields.items():
            yield f"{model.__name__}.{name}", field
            for part in (field.annotation, *typing.get_args(field.annotation)):
                if isinstance(part, type) and issubclass(part, BaseModel):
                    yield from fields_of(part)

    found = dict(fields_of(Params))
    assert len(found) > 40
    assert [name for name, field in found.items() if not field.is_required()] == []
