"""Methods by their names: those of the package and those that others bring."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Generator, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

import factories
import tiny_scan
from fly64_dose_overlap.config import Section
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.methods import registry
from fly64_dose_overlap.methods.base import Iteration, IterationSettings, Learned, Method
from fly64_dose_overlap.methods.held_out import HeldOut
from fly64_dose_overlap.methods.registry import make_method, method_class, method_names
from fly64_dose_overlap.methods.state import State
from fly64_dose_overlap.scan import Scan

FOLDER = factories.ROOT / "src/fly64_dose_overlap/methods"
NAMES = method_names()
"""Found here, since libraries that come with them draw random numbers when they are imported."""
SECTIONS = factories.study_params().methods
OWN = {
    "network": "learned",
    "refined": "learned",
    "supervised": "learned",
    "map": "iterative",
    "ml": "iterative",
    "lsqml": "iterative",
    "lsqml_compact": "iterative",
    "rpie": "iterative",
    "epie": "iterative",
    "raar": "iterative",
    "ad_poisson": "iterative",
}


class Flat(Method):
    """A method of another package: the empty object, brightened."""

    name = "flat"
    label = "flat"
    kind = "iterative"

    class Settings(Section):
        """Settings of the flat object."""

        brightness: float = 1.0

    def run(self, scan: Scan, seed: int) -> Iterator[State]:
        del seed
        yield State(self.settings.brightness * torch.ones(scan.object_shape, dtype=torch.complex64))


class Nameless(Flat):
    """Has no label."""

    name = "nameless"
    label: Any = None


class Unfinished(Method):
    """Has no run."""

    name = "unfinished"


class Mapped(Flat):
    """Has settings that are no Section."""

    name = "mapped"
    Settings: Any = dict


class Failing(Flat):
    """Cannot be made."""

    name = "failing"

    def __init__(self, settings: Section | None = None) -> None:
        super().__init__(settings)
        raise OSError(f"no licence for {self.settings.brightness}\nbuy one")


class Demanding(Flat):
    """Has a setting without a default."""

    name = "demanding"

    class Settings(Flat.Settings):
        """Settings of the demanding method."""

        contrast: float


class Endless(Iteration):
    """Is no abstract class, but has no epochs."""

    name = "endless"
    label = "endless"
    Settings: Any = Flat.Settings

    def run(self, scan: Scan, seed: int) -> Iterator[State]:
        raise NotImplementedError


class Seeded(Flat):
    """Has a setting of a name that results use."""

    name = "seeded"

    class Settings(Flat.Settings):
        """Settings of the seeded method."""

        seed: int = 3


class Unseeded(Flat):
    """Its run takes no seed."""

    name = "unseeded"

    def run(self, scan: Scan) -> Iterator[State]:  # pyright: ignore[reportIncompatibleMethodOverride]
        yield from super().run(scan, 0)


def not_a_method() -> None:
    """Stand in for an entry point that somebody got wrong."""


BROKEN = {
    "division": "1 / 0",
    "quits": "raise SystemExit(3)",
    "half_written": "def run(:",
    "text": "raise Exception('a\\nb')",
}
"""Modules that raise whatever they raise when they are imported."""


@pytest.fixture
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[None]:
    """Let another package bring some entry points."""
    module = types.ModuleType("elsewhere")
    classes = (Flat, Nameless, Unfinished, Mapped, Failing, Demanding, Endless, Seeded, Unseeded)
    vars(module).update({each.__name__: each for each in classes}, not_a_method=not_a_method)
    monkeypatch.setitem(sys.modules, "elsewhere", module)
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in BROKEN.items():
        (tmp_path / f"broken_{name}.py").write_text(text)
    values = {
        "flat": "elsewhere:Flat",
        "other_name": "elsewhere:Flat",
        "function": "elsewhere:not_a_method",
        "gone": "nowhere:Method",
        "misspelt": "elsewhere:Flaat",
        "nameless": "elsewhere:Nameless",
        "unfinished": "elsewhere:Unfinished",
        "mapped": "elsewhere:Mapped",
        "failing": "elsewhere:Failing",
        "demanding": "elsewhere:Demanding",
        "endless": "elsewhere:Endless",
        "seeded": "elsewhere:Seeded",
        "unseeded": "elsewhere:Unseeded",
        "no value": "no value",
        **{name: f"broken_{name}:Method" for name in BROKEN},
    }

    def entry_points(*, group: str) -> list[EntryPoint]:
        assert group == "fly64_dose_overlap.methods"
        twice = [EntryPoint("twice", f"elsewhere:{each}", group) for each in ("Flat", "Nameless")]
        return [*(EntryPoint(name, value, group) for name, value in values.items()), *twice]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    forget()
    yield
    forget()


def forget() -> None:
    method_class.cache_clear()
    vars(registry)["_foreign"].cache_clear()


def test_every_method_is_found_by_the_name_of_its_file() -> None:
    assert OWN.keys() <= set(NAMES)
    for name, kind in OWN.items():
        found = method_class(name)
        assert (found.name, found.kind) == (name, kind)
        assert Path(sys.modules[found.__module__].__file__ or "").name == f"{name}.py"
        assert issubclass(found, Iteration if kind == "iterative" else Learned)
        assert found.label
        assert found.__doc__
        assert make_method(name).settings == found.Settings()


def test_every_file_is_a_method_or_what_methods_share() -> None:
    shared = {
        "__init__",
        "_torchvision",
        "base",
        "corrected",
        "held_out",
        "joint_posterior",
        "posterior",
        "ptychi",
        "searches",
    }
    shared |= {"registry", "run", "state"}
    assert {file.stem for file in FOLDER.glob("*.py")} == shared | {*OWN}
    assert not shared & set(NAMES)


@pytest.mark.parametrize("name", OWN)
def test_the_settings_are_those_of_the_parameters(name: str) -> None:
    """Every one is given there, and its value is the default in Python."""
    assert list(method_class(name).Settings.model_fields) == list(SECTIONS[name])
    made = make_method(name, SECTIONS[name])
    assert made.settings.model_dump() == SECTIONS[name]
    assert made.settings == make_method(name).settings


def test_the_parameters_have_a_section_for_every_method() -> None:
    assert SECTIONS.keys() == OWN.keys()


@pytest.mark.parametrize("name", ["mpa", "base", "held_out", "registry", "_torchvision", "", "os", "../map"])
def test_an_unknown_name_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(StudyError, match=rf"^method: there is no {name!r}; there are ad_poisson, epie, .*ml"):
        make_method(name)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"epochs": 3, "epoch": 3}, "epoch: "),
        ({}, "epochs: key is missing"),
        ({"epochs": 0}, "epochs: input should be greater than or equal to 1, got 0"),
        ({"epochs": "3"}, "epochs: input should be a valid integer, got '3'"),
        ({"epochs": None}, "epochs: input should be a valid integer, got None"),
        (["epochs"], "input should be"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings: Any, problem: str) -> None:
    with pytest.raises(StudyError) as caught:
        make_method("ml", settings, where="params.yaml: methods.ml")
    message = str(caught.value)
    assert message.startswith("params.yaml: methods.ml: ")
    assert problem in message
    assert "\n" not in message


def test_a_missing_setting_is_refused_though_it_has_a_default() -> None:
    settings = {key: value for key, value in SECTIONS["refined"].items() if key != "coarse_photons"}
    with pytest.raises(StudyError, match=r"^settings: coarse_photons: key is missing$"):
        make_method("refined", settings)


def test_settings_never_change() -> None:
    made = make_method("ml")
    assert isinstance(made.settings, IterationSettings)
    with pytest.raises(ValueError, match="frozen"):
        made.settings.epochs = 3


@pytest.mark.usefixtures("_elsewhere")
def test_another_package_brings_a_method() -> None:
    assert {"flat", "map"} <= set(method_names())
    assert method_class("flat") is Flat
    made = make_method("flat", {"brightness": 2.0})
    (found,) = made.results(tiny_scan.scan(), HeldOut(seed=3))
    assert (found.name, found.label, found.kind) == ("flat", "flat", "iterative")
    assert found.settings == {"brightness": 2.0, "seed": 3}
    assert torch.all(found.state.obj == 2)
    with pytest.raises(StudyError, match=r"^settings: brightness: key is missing$"):
        make_method("flat", {})


def test_no_package_takes_the_place_of_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [EntryPoint("ml", "elsewhere:Flat", "fly64_dose_overlap.methods")]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    forget()
    assert method_class("ml").__module__ == "fly64_dose_overlap.methods.ml"
    with pytest.warns(UserWarning, match=r"^entry point ml = elsewhere:Flat is not used: the study has"):
        method_names()
    forget()


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("other_name", "other_name = elsewhere:Flat: the name of Flat is 'flat'; it must be 'other_name'"),
        ("function", "function = elsewhere:not_a_method: is no Method; docs/methods.md"),
        ("unfinished", "unfinished = elsewhere:Unfinished: Unfinished does not define run"),
        (
            "mapped",
            "mapped = elsewhere:Mapped: its Settings must derive from config.Section, got <class 'dict'>",
        ),
        (
            "nameless",
            r"nameless = elsewhere:Nameless: the label \('algorithm'\) must be one line of text, got None",
        ),
        (
            "gone",
            r"gone = nowhere:Method: cannot be imported \(ModuleNotFoundError: No module named 'nowhere'\)",
        ),
        ("misspelt", r"misspelt = elsewhere:Flaat: cannot be imported \(.*\); mend or reinstall its package"),
        ("no value", r"no value = no value: cannot be imported \("),
        ("endless", "endless = .*: its Settings have no epochs; derive them from IterationSettings"),
        ("seeded", "seeded = .*: its Settings must not have seed, which results have; rename it"),
        ("unseeded", r"unseeded = .*: run is called with a scan and a seed: too many positional arguments"),
        ("twice", "twice: several packages bring it: elsewhere:Flat and elsewhere:Nameless; remove"),
        ("division", r"division = .*: cannot be imported \(ZeroDivisionError: division by zero\); mend or"),
        ("quits", r"quits = .*: cannot be imported \(SystemExit: 3\)"),
        ("half_written", r"half_written = .*: cannot be imported \(SyntaxError: invalid syntax"),
        ("text", r"text = .*: cannot be imported \(Exception: a b\)"),
    ],
)
def test_what_another_package_gets_wrong_is_one_line(name: str, problem: str) -> None:
    with pytest.raises(StudyError, match=rf"^entry point {problem}") as caught:
        make_method(name)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("_elsewhere")
def test_a_method_of_another_package_that_cannot_be_made_is_one_line() -> None:
    for settings, value in ((None, "1.0"), ({"brightness": 2.0}, "2.0")):
        with pytest.raises(StudyError) as caught:
            make_method("failing", settings)
        problem = f"cannot be made (OSError: no licence for {value} buy one); mend or reinstall its package"
        assert str(caught.value) == f"entry point failing = elsewhere:Failing: {problem}"
    with pytest.raises(StudyError, match=r"^settings: contrast: key is missing$"):
        make_method("demanding")
    with pytest.raises(StudyError, match=r"^mine: contrast: input should be a valid number, got 'x'$"):
        make_method("demanding", {"brightness": 1.0, "contrast": "x"}, where="mine")


OWN_FILE = """
from fly64_dose_overlap.methods.base import Iteration, IterationSettings

class Mine(Iteration):
    name = "mine"
    label = "mine"

    class Settings(IterationSettings):
        epochs: int = 3
        step: float = 0.5

    def run(self, scan, seed):
        yield
"""


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("", "", None),
        ('name = "mine"', 'name = "other"', "the name of Mine is 'other'; it must be 'mine'"),
        ('label = "mine"', "", r"the label \('algorithm'\) must be one line of text, got None"),
        ("step: float", "step", "cannot be imported .*non-annotated attribute"),
        ("def run", "def ran", "Mine does not define run"),
    ],
)
def test_what_is_wrong_with_a_file_of_ones_own_is_one_line(
    old: str, new: str, problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(OWN_FILE.replace(old, new))
    package = importlib.import_module(registry.PACKAGE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    caches = [vars(registry)[name] for name in ("_own_modules", "_own", "method_class")]
    for cached in caches:
        cached.cache_clear()
    try:
        if problem is None:
            assert make_method("mine").settings.model_dump() == {"epochs": 3, "step": 0.5}
        else:
            with pytest.raises(StudyError, match=rf"^methods/mine\.py: {problem}"):
                make_method("mine")
    finally:
        sys.modules.pop(f"{registry.PACKAGE}.mine", None)
        for cached in caches:
            cached.cache_clear()
