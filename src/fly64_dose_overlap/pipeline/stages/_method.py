"""The method that a stage is asked for; apart from what other stages import."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fly64_dose_overlap.errors import StudyError

if TYPE_CHECKING:
    from fly64_dose_overlap.methods.base import Method


def method_of(name: str, sections: Mapping[str, Any], params_file: Path) -> Method:
    """Return a method with its settings from the parameters."""
    from fly64_dose_overlap.methods.registry import make_method

    if name not in sections:
        known = ", ".join(sections)
        raise StudyError(str(params_file), f"methods has no settings of {name!r}", f"it has those of {known}")
    return make_method(name, sections[name], where=f"{params_file}: methods.{name}")
