"""The study that faults are injected into: real, complete, and as small as it can be."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from faults.command import LIMIT_S, Lost
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.progress import say
from matrix_study import kill_all
from study_copy import TRAINING, StudyCopy, make_study
from tiny_study import ROOT

DOSE = 1000
VIEW = "dense"
EPOCHS = 4
LONG_ENOUGH = {**TRAINING, "epochs": EPOCHS, "patience": EPOCHS}
LEARNED = {
    "network": {**LONG_ENOUGH, "crop_px": 64, "iterations": 2, "likelihood_epochs": 2},
    "refined": {**LONG_ENOUGH, "crop_px": 64, "iterations": 4},
    "supervised": LONG_ENOUGH,
}
ITERATIVE = {"map": {"epochs": 10}, "ml": {"epochs": 10}, "lsqml": {"epochs": 10}}
PARAMS: dict[str, Any] = {
    "dose": DOSE,
    "doses": [DOSE],
    "view": VIEW,
    "learned": list(LEARNED),
    "iterative": list(ITERATIVE),
    "halves": ["refined"],
}
KEPT = ROOT / "build" / "faults"
"""Finished studies by the content of the repository; `make clean` removes them."""
CACHE = ".dvc/cache/files/md5"
GROWING = tuple(f"metrics/{name}" for name in LEARNED)
"""Curves, which grow with the training; all other files appear whole."""


@dataclass(frozen=True)
class Stage:
    """A stage of the finished study.

    Attributes
    ----------
    name : str
        As DVC names it, such as ``overlap@1000-dense`` or ``train@refined``.
    line : list of str
        Its command.
    outputs : tuple of str
        Files and folders that it makes.
    """

    name: str
    line: list[str]
    outputs: tuple[str, ...]


@cache
def finished() -> StudyCopy:
    """Return the study after `dvc repro`, committed; to be left as it is.

    It is made once for a state of the repository, which takes a minute or two.
    """
    folder = KEPT / _digest_of_repository()
    if not folder.exists():
        say("faults: making the study that is disturbed")
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as made:
            study = make_study(Path(made), {**LEARNED, **ITERATIVE})
            study.change_params(**PARAMS)
            study.commit("one dose")
            study.git("tag", "--force", "start")
            study.run("dvc", "repro", timeout_s=LIMIT_S)
            study.commit("finished")
            shutil.copytree(made, folder)
    return StudyCopy(folder / "study")


def _digest_of_repository() -> str:
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(json.dumps([PARAMS, LEARNED, ITERATIVE]).encode())
    for name in sorted(filter(None, names.split("\0"))):
        path = ROOT / name
        if name.startswith(("src/", "dvc.yaml", "params.yaml", "tests/study_copy.py")) and path.is_file():
            digest.update(f"{name} {sha256_of(path)}\n".encode())
    return digest.hexdigest()[:12]


@contextmanager
def victim() -> Generator[StudyCopy]:
    """Lend a copy of the finished study with all its data."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        study = finished().copy_to(Path(folder))
        try:
            yield study
        finally:
            kill_all(study)


@contextmanager
def fresh_victim() -> Generator[StudyCopy]:
    """Lend a clone in which nothing has run and the cache is empty."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        study = finished().clone_to(Path(folder), "--branch", "start")
        try:
            yield study
        finally:
            kill_all(study)


def stages() -> list[Stage]:
    """Return the stages of the finished study in the order of the pipeline, one of each kind and method."""
    order = (
        "check",
        "base",
        "reference",
        "expose",
        "overlap",
        "limit",
        "diagnose",
        "train",
        "infer",
        "reconstruct",
        "halves",
        "evaluate",
    )
    lock = finished().lock()
    found: list[Stage] = []
    for kind in order:
        names = [name for name in lock if name.split("@")[0] == kind]
        if kind in ("expose", "overlap", "limit"):
            names = [name for name in names if name.endswith((VIEW, f"@{DOSE}"))]
        for name in names:
            outputs = tuple(out["path"] for out in lock[name]["outs"])
            found.append(Stage(name, shlex.split(lock[name]["cmd"]), outputs))
    return found


def kind_of(stage: Stage) -> str:
    """Return a stage's name without dose, view and method."""
    return stage.name.split("@")[0]


def files_below(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of the files at and below some paths, by their path.

    Left out are logs, which tell of interruptions, and hidden files, which were being written.
    """
    found: dict[str, str] = {}
    for name in paths:
        path = root / name
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.is_file() and not file.name.startswith(".") and file.suffix != ".log":
                found[file.relative_to(root).as_posix()] = sha256_of(file)
    return found


def require_none_partial(study: StudyCopy, paths: Iterable[str]) -> None:
    """Require of files that are there that they are those of the undisturbed run.

    Raises
    ------
    Lost
        If one is not.
    """
    expected = files_below(finished().root, paths)
    for name, digest in files_below(study.root, paths).items():
        if expected.get(name) != digest and not name.startswith(GROWING):
            raise Lost(f"{name} is a partial file under its final name")


def require_same(study: StudyCopy, paths: Iterable[str]) -> None:
    """Require the very files of the undisturbed run, and none beside them.

    Raises
    ------
    Lost
        If a file is missing, differs or is one too many.
    """
    expected, found = files_below(finished().root, paths), files_below(study.root, paths)
    differing = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if differing:
        raise Lost(f"not the bytes of the undisturbed run: {', '.join(differing)}")


def require_whole_objects(folder: Path) -> None:
    """Require of every object of a cache or a remote that its content is that of its name.

    Raises
    ------
    Lost
        If one is damaged or cut short.
    """
    for path in sorted(folder.glob("[0-9a-f][0-9a-f]/*")):
        name = path.parent.name + path.name
        if path.name.endswith(".unpacked") or "." in path.name.removesuffix(".dir"):
            continue  # DVC's own temporary files
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "md5").hexdigest() != name.removesuffix(".dir"):
                raise Lost(f"{path.parent.name}/{path.name} holds other content than its name says")


def require_unbroken_curve(study: StudyCopy, folder: str) -> None:
    """Require that training's curves have every epoch once, and the losses of the undisturbed run.

    Raises
    ------
    Lost
        If not.
    """
    for path in sorted((finished().root / folder).rglob("*.tsv")):
        name = path.relative_to(finished().root)
        rows = (study.root / name).read_text().splitlines()
        steps = [int(row.split("\t")[0]) for row in rows[1:]]
        if steps != list(range(1, len(steps) + 1)):
            raise Lost(f"{name} has epochs {steps}")
        if rows != path.read_text().splitlines():
            raise Lost(f"{name} has other values than the undisturbed run")


def outputs_of(study: StudyCopy, revision: str) -> dict[str, str]:
    """Return the MD5 of every output that the dvc.lock of a revision records."""
    lock = yaml.safe_load(study.git("show", f"{revision}:dvc.lock"))["stages"]
    return {out["path"]: out["md5"] for stage in lock.values() for out in stage["outs"]}


def remove_outputs(study: StudyCopy, paths: Iterable[str]) -> None:
    """Remove what a stage makes, as DVC does before it starts the stage."""
    for name in paths:
        path = study.root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
