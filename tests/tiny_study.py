"""Parameters of a study small enough to run in a test."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]

TINY: dict[str, dict[str, Any]] = {
    "base": {"frame_side_px": 32, "field_px": 96.0, "step_px": 8.0},
    "overlap": {
        "views": {
            "baseline": {"s_img": 1.0, "n_groups": None, "gridsize": 1},
            "dense": {"s_img": 0.6, "n_groups": None, "gridsize": 2},
            "sparse": {"s_img": 0.3, "n_groups": 40, "gridsize": 2},
        }
    },
}


@cache
def _tiny() -> Any:
    """Return the repository's parameters, made tiny; not to be changed."""
    return _merged(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")), TINY)


def write_params(root: Path, **changes: Any) -> Path:
    """Write the repository's parameters, made tiny, with some keys of some sections changed."""
    path = root / "params.yaml"
    # By libyaml, ten times as fast as PyYAML's own: hundreds of tests begin here.
    text = yaml.dump(_merged(_tiny(), changes), Dumper=yaml.CSafeDumper, sort_keys=False)
    path.write_text(text, encoding="utf-8")
    return path


def _merged(content: Any, changes: Any) -> Any:
    """Return mappings with the changed keys, at any depth; anything else is replaced."""
    if not (isinstance(content, dict) and isinstance(changes, dict)):
        return changes
    return {**content, **{key: _merged(content.get(key), value) for key, value in changes.items()}}
