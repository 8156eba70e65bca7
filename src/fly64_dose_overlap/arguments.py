"""What a public function is called with, held against its annotations."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar, get_type_hints

import numpy as np
import torch
from pydantic import AfterValidator, ConfigDict, ValidationError, create_model

from fly64_dose_overlap.blas import one_blas_thread
from fly64_dose_overlap.config import Section, first_problem
from fly64_dose_overlap.errors import StudyError

Given = ParamSpec("Given")
Returned = TypeVar("Returned")


def _to_be_written(path: str | Path) -> str | Path:
    """Refuse a file that could not be written, before the hours of work whose result it is to hold."""
    target = Path(path).absolute()
    folder = next(each for each in target.parents if os.path.exists(each))
    if target.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError("no file can be written there")
    return path


NewFile = Annotated[str | Path, AfterValidator(_to_be_written)]
"""A file that a function writes at its end."""


class _Arguments(Section):
    model_config = ConfigDict(arbitrary_types_allowed=True)


def checked_call(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """Return a function that refuses arguments of a wrong type or out of range by a `StudyError`.

    The rules are its annotations, as pydantic reads them, and those of what it makes of the
    arguments. Numbers of NumPy count as Python's. It runs under the modes of torch that its
    results are known of, and leaves the caller's as they are.
    """
    signature, hints = inspect.signature(function), get_type_hints(function, include_extras=True)
    named = [name for name, each in signature.parameters.items() if each.kind is not each.VAR_KEYWORD]
    fields: dict[str, Any] = {name: (hints[name], None) for name in named}
    rules = create_model(function.__name__, __base__=_Arguments, **fields)

    @wraps(function)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Returned:
        bound = signature.bind(*args, **kwargs)
        given = bound.arguments
        for name, value in given.items():
            if isinstance(value, np.ma.MaskedArray):
                raise StudyError(function.__name__, f"{name}: is masked, and masks are not heeded", "fill it")
        for held in (given, *(given[name] for name in given if name not in named)):
            held |= {name: value.item() for name, value in held.items() if _is_scalar(value)}
        try:
            rules.model_validate({name: given[name] for name in named if name in given})
            with _plain_torch(), one_blas_thread():
                return function(*bound.args, **bound.kwargs)
        except ValidationError as error:
            raise StudyError(function.__name__, first_problem(error)) from None

    return call


def _is_scalar(value: Any) -> bool:
    return isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0)


@contextmanager
def _plain_torch() -> Generator[None]:
    """Work with gradients, in single precision and on the processor, whatever a notebook has set."""
    dtype = torch.get_default_dtype()
    # Naming the processor where it is the default would slow every call of torch.
    elsewhere = torch.get_default_device().type != "cpu"
    torch.set_default_dtype(torch.float32)
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.device("cpu") if elsewhere else nullcontext(),
        ):
            yield
    finally:
        torch.set_default_dtype(dtype)
