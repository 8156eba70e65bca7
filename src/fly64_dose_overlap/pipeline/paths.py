"""Where everything of the study lies, relative to the repository's root."""

from __future__ import annotations

from pathlib import Path

PARAMS = Path("params.yaml")
BASE = Path("data/base/base.npz")
CODE = Path("metrics/check")
EVALUATION = Path("metrics/evaluation.json")
METRICS = Path("metrics")
REPORTS = Path("reports")
HALVES = ("train", "test")


def dose_file(dose: int, half: str) -> Path:
    """Return the dataset of one half of the scan at a dose."""
    return Path(f"data/dose/{dose}/{half}.npz")


def view_file(dose: int, view: str, half: str) -> Path:
    """Return the dataset of one half of a view at a dose."""
    return Path(f"data/views/{dose}/{view}/{half}.npz")


def limit_file(view: str) -> Path:
    """Return the physical limit of a view."""
    return Path(f"metrics/limit/{view}.json")


def model_file(method: str) -> Path:
    """Return the model of a learned method."""
    return Path(f"models/{method}/model.safetensors")


def curves_folder(method: str) -> Path:
    """Return the folder of a learned method's curves."""
    return Path(f"metrics/{method}")


def reconstruction_folder(method: str) -> Path:
    """Return the folder of a method's reconstructions."""
    return Path(f"reconstructions/{method}")
