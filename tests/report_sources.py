"""Revisions of a study by hand: params.yaml, scores, and the dvc.lock that records them."""

from __future__ import annotations

import hashlib
from typing import Any

import yaml

from fly64_dose_overlap.pipeline.source import Source
from report_runs import params_of

SCORES = '{"methods": {}}'


def source_of(name: str = "1000-dense", texts: dict[str, str] | None = None, **changes: Any) -> Source:
    params = yaml.safe_dump({**params_of(1000, "dense"), **changes})
    return Source(name, "a" * 40, "success", {"params.yaml": params, **(texts or {})})


def md5_of(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def texts_of(*, scores: str = SCORES, dose: int = 1000, seed: int = 42) -> dict[str, str]:
    """Return scores and a dvc.lock that records them for a dose and a seed."""
    train = {"seed": seed, "epochs": 5}
    stages = {
        "train": {"outs": [{"path": "model", "md5": "0" * 32}], "params": {"params.yaml": {"train": train}}},
        "evaluate": {
            "deps": [{"path": "model"}],
            "outs": [{"path": "metrics/evaluation.json", "md5": md5_of(SCORES)}],
            "params": {"params.yaml": {"dose": dose, "view": "dense"}},
        },
        "beside": {"params": {"params.yaml": {"dose": 7}}},
    }
    return {"metrics/evaluation.json": scores, "dvc.lock": yaml.safe_dump({"stages": stages})}
