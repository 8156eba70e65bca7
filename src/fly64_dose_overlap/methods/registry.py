"""All methods by name: those of this package, and those that other packages bring."""

from __future__ import annotations

import inspect
import pkgutil
import warnings
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import ValidationError

from fly64_dose_overlap.config import Section, first_problem
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.reconstruction import check_heading
from fly64_dose_overlap.methods.base import Iteration, Method
from fly64_dose_overlap.yaml_text import shown

ENTRY_POINTS = "fly64_dose_overlap.methods"
PACKAGE = "fly64_dose_overlap.methods"
MEND = "mend or reinstall its package"
RESERVED = {"seed", "stop", "held_out_fraction", "held_out_epoch"}
"""What results say beside the settings of a method."""


@cache
def method_class(name: str) -> type[Method]:
    """Return a method by its name.

    Raises
    ------
    StudyError
        If there is none, or what another package brings under that name is none.
    """
    if name in _own_modules() and (found := _own(name)):
        return found
    entries = _foreign().get(name)
    if not entries:
        raise StudyError("method", f"there is no {name!r}", f"there are {', '.join(method_names())}")
    if len(entries) > 1:
        both = " and ".join(entry.value for entry in entries)
        raise StudyError(f"entry point {name}", f"several packages bring it: {both}", "remove all but one")
    return _loaded(entries[0])


def method_names() -> list[str]:
    """Return the names of all methods, in alphabetical order."""
    own = [name for name in _own_modules() if _own(name) is not None]
    return sorted({*own, *_foreign()})


def make_method(name: str, settings: Any = None, *, where: str = "settings") -> Method:
    """Return a method with settings as a file has them; without, with its defaults.

    Parameters
    ----------
    settings : mapping, optional
        Every setting of the method.
    where : str
        Names the settings in errors.

    Raises
    ------
    StudyError
        If there is no such method, a setting is unknown, missing, of the wrong type or out of
        range, or the method of another package cannot be made.
    """
    found = method_class(name)
    missing = [
        key for key in found.Settings.model_fields if isinstance(settings, dict) and key not in settings
    ]
    if missing:
        raise StudyError(where, f"{missing[0]}: key is missing")
    try:
        made = found() if settings is None else found(found.Settings.model_validate(settings))
        if not isinstance(made.settings, found.Settings):
            raise TypeError(f"__init__ must call Method.__init__, settings are {shown(made.settings)}")
        return made
    except ValidationError as error:
        unknown = error.errors()[0]["type"] == "extra_forbidden"
        hint = f"there are {', '.join(found.Settings.model_fields)}" if unknown else ""
        raise StudyError(where, first_problem(error), hint) from None
    except Exception as error:
        if name in _own_modules():
            raise
        problem = f"cannot be made ({type(error).__name__}: {error})"
        raise StudyError(_told(_foreign()[name][0]), problem, MEND) from error


@cache
def _own_modules() -> frozenset[str]:
    return frozenset(module.name for module in pkgutil.iter_modules(import_module(PACKAGE).__path__))


@cache
def _own(name: str) -> type[Method] | None:
    """Return the method that a module of this package defines, if it is one: it has the module's name."""
    where = f"methods/{name}.py"
    try:
        module = import_module(f"{PACKAGE}.{name}")
    except Exception as error:
        raise StudyError(where, f"cannot be imported ({type(error).__name__}: {error})", "mend it") from error
    for found in vars(module).values():
        here = isinstance(found, type) and issubclass(found, Method) and found.__module__ == module.__name__
        if here and "name" in vars(found):
            return _checked(found, name, where)
    return None


@cache
def _foreign() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        found.setdefault(entry.name, []).append(entry)
    for name in found.keys() & _own_modules():
        warnings.warn(f"{_told(found[name][0])} is not used: the study has a module {name}", stacklevel=2)
    return found


def _told(entry: EntryPoint) -> str:
    return f"entry point {entry.name} = {entry.value}"


def _loaded(entry: EntryPoint) -> type[Method]:
    where = _told(entry)
    try:
        found: Any = entry.load()
    except (Exception, SystemExit) as error:
        problem = f"cannot be imported ({type(error).__name__}: {error})"
        raise StudyError(where, problem, MEND) from error
    return _checked(found, entry.name, where)


def _checked(found: Any, name: str, where: str) -> type[Method]:
    """Return a method that has all that the runner asks of it."""
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise StudyError(where, "is no Method", "docs/methods.md has an example")
    if lacking := sorted(getattr(found, "__abstractmethods__", ())):
        raise StudyError(where, f"{found.__name__} does not define {', '.join(lacking)}")
    if getattr(found, "name", None) != name:
        problem = f"the name of {found.__name__} is {shown(getattr(found, 'name', None))}"
        raise StudyError(where, problem, f"it must be {name!r}")
    check_heading(where, found.name, getattr(found, "label", None), getattr(found, "kind", None), {})
    given: Any = found.Settings
    if not (isinstance(given, type) and issubclass(given, Section)):
        problem = f"its Settings must derive from config.Section, got {shown(found.Settings)}"
        raise StudyError(where, problem, "docs/methods.md has an example")
    settings = found.Settings.model_fields
    if issubclass(found, Iteration) and "epochs" not in settings:
        raise StudyError(where, "its Settings have no epochs", "derive them from IterationSettings")
    if kept := RESERVED & settings.keys():
        raise StudyError(where, f"its Settings must not have {min(kept)}, which results have", "rename it")
    try:
        inspect.signature(found.run).bind("self", "scan", "seed")
    except TypeError as error:
        raise StudyError(where, f"run is called with a scan and a seed: {error}", MEND) from None
    return found
