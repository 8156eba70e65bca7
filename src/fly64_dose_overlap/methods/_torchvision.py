"""Import pty-chi where torchvision is missing or does not fit torch."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

from fly64_dose_overlap.errors import StudyError


@contextmanager
def torchvision_for_import() -> Generator[None]:
    """Let ``from torchvision.transforms import GaussianBlur`` succeed inside the block.

    pty-chi needs torchvision for nothing else, and reconstruction with a fixed probe never
    blurs. The registry's torchvision is built for the CUDA torch and does not load beside a
    CPU torch. If it does load, this does nothing. Otherwise a stand-in takes its place, and
    ``sys.modules`` is left as it was found: torchmetrics and others look there for
    torchvision, and must not find one that has no operators.
    """
    found = _torchvision_modules()
    try:
        import_module("torchvision.transforms")
    except (ImportError, OSError, RuntimeError):
        _replace_torchvision(_stand_in())
        try:
            yield
        finally:
            _replace_torchvision(found)
    else:
        yield


class GaussianBlur:
    """Refuse to blur."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise StudyError(
            "torchvision",
            "pty-chi asks for a Gaussian blur, but torchvision does not load",
            "install the torchvision that belongs to your torch",
        )


def _torchvision_modules() -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchvision"}


def _replace_torchvision(modules: dict[str, ModuleType]) -> None:
    for name in _torchvision_modules():
        del sys.modules[name]
    sys.modules.update(modules)


def _stand_in() -> dict[str, ModuleType]:
    package, transforms = ModuleType("torchvision"), ModuleType("torchvision.transforms")
    vars(transforms)["GaussianBlur"] = GaussianBlur
    vars(package)["transforms"] = transforms
    return {module.__name__: module for module in (package, transforms)}
