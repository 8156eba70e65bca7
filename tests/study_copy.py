"""A copy of the repository with a tiny study, driven by the real git and DVC."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tiny_study import ROOT, write_params

PACKAGE = "fly64_dose_overlap.pipeline"
DOSES = [1000, 10000, 100000]
VIEWS = ["baseline", "dense", "sparse"]
CELL_STAGES = {"check", "diagnose", "train@refined", "infer@refined", "reconstruct@ml", "evaluate"}
"""Stages of one cell; those of the data and the limit run once for all cells."""
RESULTS = ("dvc.lock", "metrics/")
"""What a run changes of the files that git tracks."""
TIMEOUT_S = 300
MATRIX_TIMEOUT_S = 1200

TRAINING: dict[str, Any] = {
    "width": 4,
    "epochs": 2,
    "steps_per_epoch": 3,
    "frames_per_step": 16,
    "validation_fraction": 0.4,
    "device": "cpu",
}
"""What is tiny of the settings of a learned method."""
METHODS: dict[str, dict[str, Any]] = {
    "refined": {**TRAINING, "crop_px": 64, "iterations": 4},
    "ml": {"epochs": 2},
}
"""The methods of the tiny study, one learned and one iterative, with what is tiny of their settings."""

IDENTITY = {
    f"GIT_{role}_{key}": "study@example.org" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")
}

Completed = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class StudyCopy:
    """A repository of its own, with its own configuration of git and DVC.

    Attributes
    ----------
    root : Path
        Folder of the repository.
    """

    root: Path

    def environment(self) -> dict[str, str]:
        """Return the environment of a user who has activated the virtual environment."""
        bin_folder = str(Path(sys.executable).parent)
        private = str(self.root.parent)
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("GIT_", "DVC_")) and key != "PYTHONPATH"
        }
        return {
            **kept,
            "PATH": os.pathsep.join([bin_folder, os.environ["PATH"]]),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "120",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            **IDENTITY,
            "DVC_GLOBAL_CONFIG_DIR": private,
            "DVC_SYSTEM_CONFIG_DIR": private,
            "DVC_SITE_CACHE_DIR": str(self.root.parent / "site"),
        }

    def run(self, *line: str, check: bool = True, timeout_s: float = TIMEOUT_S) -> Completed:
        """Run a command in the repository; with ``check`` it must succeed."""
        found = subprocess.run(
            line,
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check:
            assert found.returncode == 0, f"{' '.join(line)}\n{found.stdout}\n{found.stderr}"
        return found

    def git(self, *arguments: str) -> str:
        """Return what git prints."""
        return self.run("git", *arguments).stdout

    def dvc(self, *arguments: str, check: bool = True) -> Completed:
        """Run DVC."""
        return self.run("dvc", *arguments, check=check)

    def stage(self, name: str, *arguments: str, check: bool = True) -> Completed:
        """Run the command line of a stage, as dvc.yaml does."""
        return self.run("env", "PYTHONPATH=src", *module(name), *arguments, check=check)

    def matrix(self, *arguments: str, check: bool = True) -> Completed:
        """Run ``dose-overlap matrix`` with the code of this copy."""
        return self.run(*matrix_line(*arguments), check=check, timeout_s=MATRIX_TIMEOUT_S)

    def use_remote(self, folder: Path) -> None:
        """Name a folder as remote storage."""
        self.dvc("remote", "add", "--local", "--default", "store", str(folder))

    def commit(self, message: str) -> None:
        """Commit all files."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def changes(self) -> list[str]:
        """Return the paths that git finds changed or new."""
        lines = self.git("status", "--porcelain", "--untracked-files=all").splitlines()
        return [line[3:] for line in lines]

    def params(self) -> dict[str, Any]:
        """Return the content of params.yaml."""
        return yaml.safe_load((self.root / "params.yaml").read_text(encoding="utf-8"))

    def change_params(self, **changes: Any) -> None:
        """Change parameters, named by their path as ``train__width``."""
        content = self.params()
        for path, value in changes.items():
            *sections, key = path.split("__")
            target = content
            for section in sections:
                target = target[section]
            assert key in target
            target[key] = value
        text = yaml.safe_dump(content, sort_keys=False)
        (self.root / "params.yaml").write_text(text, encoding="utf-8")

    def lock(self) -> dict[str, Any]:
        """Return the stages of dvc.lock."""
        return yaml.safe_load((self.root / "dvc.lock").read_text(encoding="utf-8"))["stages"]

    def data_files(self) -> set[str]:
        """Return the paths of the files that DVC keeps, as far as they are there."""
        folders = ("data", "models", "reconstructions", "reports")
        found = (path for name in folders for path in (self.root / name).rglob("*.*"))
        return {path.relative_to(self.root).as_posix() for path in found if path.is_file()}

    def copy_to(self, folder: Path) -> StudyCopy:
        """Return a copy with all data, whose changes are its own."""
        shutil.copytree(self.root, folder / "study")
        return StudyCopy(folder / "study")

    def clone_to(self, folder: Path, *options: str) -> StudyCopy:
        """Return a fresh clone, as another machine would have it: no data and an empty cache."""
        self.git("clone", "--quiet", *options, str(self.root), str(folder / "study"))
        return StudyCopy(folder / "study")


def module(stage: str) -> list[str]:
    """Return the command line that starts a stage."""
    return ["python", "-m", f"{PACKAGE}.stages.{stage}"]


def matrix_line(*arguments: str) -> list[str]:
    """Return the command line of ``dose-overlap matrix`` with the code of the folder it runs in."""
    return ["env", "PYTHONPATH=src", "python", "-m", f"{PACKAGE}.cli", "matrix", *arguments]


def stages_run(result: Completed) -> set[str]:
    """Return the names of the stages that DVC says it ran."""
    return set(re.findall(r"^Running stage '(.+)':$", result.stdout, flags=re.MULTILINE))


def make_study(folder: Path, methods: dict[str, dict[str, Any]] = METHODS) -> StudyCopy:
    """Copy the files of the repository, committed or not, and commit them with tiny parameters.

    ``methods`` are those of the study, with what is tiny of their settings.
    """
    study = StudyCopy(folder / "study")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        source = ROOT / name
        if source.is_file() and not name.startswith(RESULTS):
            target = study.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    write_params(
        study.root,
        dose=10000,
        view="dense",
        doses=DOSES,
        base={"frame_side_px": 32, "field_px": 120.0, "step_px": 6.0},
        learned=["refined"],
        iterative=["ml"],
        methods=methods,
        limit={"vectors": 1, "iterations": 10},
        evaluate={"registration_upsampling": 10},
    )
    content = study.params()
    content["methods"] = {name: content["methods"][name] for name in methods}
    (study.root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    study.git("init", "--quiet", "--initial-branch", "main")
    study.commit("start")
    study.git("tag", "start")
    return study
