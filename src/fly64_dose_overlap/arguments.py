"""What a public function is called with, held against its annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, get_type_hints

import numpy as np
from pydantic import ConfigDict, ValidationError, create_model

from fly64_dose_overlap.config import Section, first_problem
from fly64_dose_overlap.errors import StudyError

Given = ParamSpec("Given")
Returned = TypeVar("Returned")


class _Arguments(Section):
    model_config = ConfigDict(arbitrary_types_allowed=True)


def checked_call(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """Return a function that refuses arguments of a wrong type or out of range by a `StudyError`.

    The rules are its annotations, as pydantic reads them, and those of what it makes of the
    arguments. Numbers of NumPy count as Python's.
    """
    signature, hints = inspect.signature(function), get_type_hints(function, include_extras=True)
    named = [name for name, each in signature.parameters.items() if each.kind is not each.VAR_KEYWORD]
    fields: dict[str, Any] = {name: (hints[name], None) for name in named}
    rules = create_model(function.__name__, __base__=_Arguments, **fields)

    @wraps(function)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Returned:
        bound = signature.bind(*args, **kwargs)
        given = bound.arguments
        given |= {name: value.item() for name, value in given.items() if isinstance(value, np.generic)}
        try:
            rules.model_validate({name: given[name] for name in named if name in given})
            return function(*bound.args, **bound.kwargs)
        except ValidationError as error:
            raise StudyError(function.__name__, first_problem(error)) from error

    return call
