"""Parts of ``params.yaml``, and what is wrong with one in words."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

from fly64_dose_overlap.yaml_text import shown


class Section(BaseModel):
    """A part of ``params.yaml``: unknown keys are refused and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def first_problem(error: ValidationError) -> str:
    """Return the first thing that pydantic found wrong: the key, the rule and the value."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) if len(str(part)) < 60 else shown(part) for part in first["loc"])
    prefix = f"{key}: " if key else ""
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{prefix}unknown key{more}"
    if first["type"] == "missing":
        return f"{prefix}key is missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    found = first["input"]
    value = "" if isinstance(found, dict) else f", got {shown(found)}"
    return f"{prefix}{message[0].lower()}{message[1:]}{value}{more}"
