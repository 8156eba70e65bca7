"""Provenance as JSON text, carried inside every dataset.

The record holds what determines the bytes of a file and nothing else: no clock,
no host name. Those would give every rebuild another hash; git and ``dvc.lock``
already say who built what and when.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fly64_dose_overlap.version import __version__

SCHEMA_VERSION = "1.0.0"
MEASURED = "reference"
"""The step that divides the photons of measured frames."""
Record = dict[str, Any]


def new_record(tool: str, *, physics: Mapping[str, Any] | None = None, **additional: Any) -> Record:
    """Start a record, by the stage or command that creates the data.

    Physical parameters have units in their names; ``additional`` is whatever else describes
    the origin: source file, seed, kind.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "creation_info": {
            "script": tool,
            "package": "fly64_dose_overlap",
            "version": __version__,
        },
        "physics_parameters": dict(physics or {}),
        "training_parameters": {},
        "data_transformations": [],
        "additional_parameters": dict(additional),
    }


def with_step(record: Record, tool: str, operation: str, /, **parameters: Any) -> Record:
    """Return a copy of ``record`` with one transformation appended; earlier ones stay."""
    step = {"tool": tool, "operation": operation, "parameters": parameters}
    return {**record, "data_transformations": [*record.get("data_transformations", []), step]}


def with_physics(record: Record, **parameters: Any) -> Record:
    """Return a copy of ``record`` with physical parameters added or replaced."""
    return {**record, "physics_parameters": {**record.get("physics_parameters", {}), **parameters}}


def steps(record: Record) -> list[str]:
    """Return the names of the tools that made the data, in order."""
    return [str(step.get("tool")) for step in record.get("data_transformations", [])]


def dumps(record: Record) -> str:
    """Serialise with sorted keys, so that equal records give equal bytes."""
    return json.dumps(record, sort_keys=True, allow_nan=False)
