"""Broken files are refused in one line by the stage that reads them; pickled ones never run."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import factories
from fly64_dose_overlap.learning.bundle import save_bundle
from fly64_dose_overlap.learning.correction import CorrectorInfo, bundle_name
from fly64_dose_overlap.learning.corrector import build_corrector
from fly64_dose_overlap.pipeline.stages import base, evaluate, expose, overlap, reconstruct, train
from fly64_dose_overlap.pipeline.stages._cli import command
from tiny_study import write_params

# Before any test: some library below it draws a random number while it is imported.
importlib.import_module("fly64_dose_overlap.report.comparison")

Arrays = dict[str, Any]
FRAMES, SIDE = 6, 8
BASE = "data/base/base.npz"
VIEW = "data/views/10000/dense/train.npz"
STAGES: dict[str, tuple[Any, list[str], str]] = {
    "base": (base, [], "mine.npz"),
    "expose": (expose, ["--dose", "10000"], BASE),
    "overlap": (overlap, ["--dose", "10000", "--view", "dense"], "data/dose/10000/train.npz"),
    "train": (train, ["--method", "refined"], VIEW),
    "infer": (reconstruct, ["--method", "refined"], "data/views/10000/dense/test.npz"),
    "evaluate": (evaluate, [], "data/views/10000/dense/test.npz"),
}
"""Module, arguments and the file that the stage reads."""
READ_BY_ANY = list(STAGES)
READ_AS_DATASET = ["overlap", "train", "infer", "evaluate"]


def valid_arrays() -> Arrays:
    """Return the arrays of a file that every stage accepts."""
    scan, truth = factories.small_scan(2)
    return {
        "diffraction": np.sqrt(scan.counts[:]),
        "objectGuess": truth,
        "probeGuess": scan.probe[0],
        "xcoords": scan.positions_px[:, 1],
        "ycoords": scan.positions_px[:, 0],
        "scan_index": scan.scan_index,
        "groups": scan.groups,
    }


def without(key: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {name: array for name, array in arrays.items() if name != key}


def replaced(key: str, change: Callable[[Any], Any]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {**arrays, key: change(arrays[key])}


def first_set_to(value: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        changed = array.copy()
        changed.flat[0] = value
        return changed

    return change


BROKEN_SCAN: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "no object": (without("objectGuess"), "objectGuess"),
    "no probe": (without("probeGuess"), "probeGuess"),
    "no x": (without("xcoords"), "xcoords"),
    "no y": (without("ycoords"), "ycoords"),
    "real object": (replaced("objectGuess", np.real), "'objectGuess' must be complex, got float32"),
    "real probe": (replaced("probeGuess", np.real), "'probeGuess' must be complex, got float32"),
    "NaN in the object": (replaced("objectGuess", first_set_to(np.nan)), "'objectGuess' has NaN or infinite"),
    "NaN in the probe": (replaced("probeGuess", first_set_to(np.nan)), "'probeGuess' has NaN or infinite"),
    "NaN position": (replaced("xcoords", first_set_to(np.nan)), "'xcoords' has NaN or infinite values"),
    "y too short": (replaced("ycoords", lambda y: y[:-1]), "'ycoords' has 5 entries but there are 6 frames"),
    "position outside": (
        replaced("xcoords", first_set_to(99.0)),
        "1 of 6 positions put the 8x8 probe",
    ),
    "object too small": (
        replaced("objectGuess", lambda obj: obj[:SIDE, :SIDE]),
        "'objectGuess' is (8, 8), not larger than the probe (8, 8)",
    ),
    "broken record": (lambda arrays: {**arrays, "_metadata": np.array("{")}, "'_metadata' is not valid JSON"),
}
BROKEN_FRAMES: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "no frames": (without("diffraction"), "lacks 'diffraction'"),
    "complex frames": (
        replaced("diffraction", lambda frames: frames + 0j),
        "'diffraction' must be a real float amplitude, got complex64",
    ),
    "integer frames": (
        replaced("diffraction", lambda frames: frames.astype(np.uint16)),
        "'diffraction' must be a real float amplitude, got uint16",
    ),
    "NaN in a frame": (
        replaced("diffraction", first_set_to(np.nan)),
        "NaN or infinite values, first in frame",
    ),
    "infinite frame": (
        replaced("diffraction", first_set_to(np.inf)),
        "NaN or infinite values, first in frame",
    ),
    "negative amplitude": (
        replaced("diffraction", first_set_to(-1.0)),
        "negative amplitudes, first in frame",
    ),
    "no photon": (replaced("diffraction", np.zeros_like), "all 6 frames are zero"),
    "zero frames": (replaced("diffraction", lambda frames: frames[:0]), "'diffraction' holds zero frames"),
    "frames not square": (
        replaced("diffraction", lambda frames: frames[:, :, :-1]),
        "frames must be square, got (8, 7)",
    ),
    "one frame": (
        replaced("diffraction", lambda frames: frames[0]),
        "'diffraction' must have axes (frame, y, x), got shape (8, 8)",
    ),
    "other probe": (
        replaced("probeGuess", lambda probe: probe[:-2, :-2]),
        "'probeGuess' is (6, 6) but frames are (8, 8)",
    ),
    "x too long": (
        replaced("xcoords", lambda x: np.append(x, 9)),
        "'xcoords' has 7 entries but there are 6 frames",
    ),
    "frame axis last": (
        replaced("diffraction", lambda frames: np.moveaxis(frames, 0, -1)),
        "frames must be square, got (8, 6)",
    ),
    "old key": (
        lambda arrays: {**without("diffraction")(arrays), "diff3d": arrays["diffraction"]},
        "lacks 'diffraction'",
    ),
    "group out of range": (
        replaced("groups", lambda groups: groups + 3),
        "'groups' refers to frames 3 to 7, but there are 0 to 5",
    ),
    "frame twice in a group": (
        replaced("groups", lambda groups: groups * 0),
        "group 0 of 'groups' holds a frame more than once",
    ),
}
BROKEN_IMPORT: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "negative counts": (
        replaced("diffraction", lambda frames: -np.ones(frames.shape, np.int16)),
        "'diffraction' has negative counts: -1 in frame 0 at [0, 0]",
    ),
    "no frame axis": (replaced("diffraction", lambda frames: frames[:-1]), "no axis can be the frames"),
    "ambiguous frame axis": (
        replaced("diffraction", lambda frames: frames[:, :FRAMES, :FRAMES]),
        "its frame axis ambiguous: axes [0, 1, 2] have length 6",
    ),
    "complex frames": (replaced("diffraction", lambda frames: frames + 0j), "'diffraction' must be real"),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bundle of an untrained network."""
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    info = CorrectorInfo(
        width=4,
        start={"iterations": 1, "weight": 0.0},
        coarse_photons=None,
        frame_side_px=SIDE,
        support_side_px=SIDE,
        gridsize=2,
        photons_per_frame=100.0,
        training={},
        record={},
    )
    save_bundle(path, build_corrector(4, 0), info, bundle_name("refined"))
    return path


@pytest.fixture(scope="module")
def whole(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which every file that a stage reads is valid; to be left as it is."""
    root = tmp_path_factory.mktemp("whole")
    (root / "models/refined").mkdir(parents=True)
    shutil.copy(bundle, root / "models/refined")
    write_params(root, dose=10000, view="dense", base={"source": "mine.npz"})
    for _, _, path in STAGES.values():
        other_half = path.replace("train.npz", "test.npz")
        for name in {path, other_half, other_half.replace("test.npz", "train.npz")}:
            write(root / name, valid_arrays())
    return root


@pytest.fixture(autouse=True)
def _study(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a copy of that folder."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def write(name: str | Path, arrays: Arrays) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    np.savez(name, **arrays)


def run_stage(name: str) -> tuple[int, str]:
    """Return exit status and standard error of a stage's command line."""
    module, arguments, _ = STAGES[name]
    found = CliRunner().invoke(command(module.main), arguments)
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, found.stderr


def assert_refused(stage: str, rule: str) -> None:
    status, printed = run_stage(stage)
    errors = [line for line in printed.splitlines() if not line.startswith("base: DVC does not watch")]
    assert status == 1
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {STAGES[stage][2]}: ")
    assert rule in errors[0]


@pytest.mark.parametrize("stage", READ_BY_ANY)
@pytest.mark.parametrize(("broken", "rule"), BROKEN_SCAN.values(), ids=BROKEN_SCAN)
def test_a_broken_scan_is_refused(stage: str, broken: Callable[[Arrays], Arrays], rule: str) -> None:
    arrays = valid_arrays()
    if stage == "expose":
        del arrays["diffraction"]
    write(STAGES[stage][2], broken(arrays))
    if stage == "expose" and rule.startswith("'ycoords' has 5"):
        rule = "'ycoords' has 5 entries but there are 6"
    assert_refused(stage, rule)


@pytest.mark.parametrize("stage", READ_AS_DATASET)
@pytest.mark.parametrize(("broken", "rule"), BROKEN_FRAMES.values(), ids=BROKEN_FRAMES)
def test_broken_frames_are_refused(stage: str, broken: Callable[[Arrays], Arrays], rule: str) -> None:
    write(STAGES[stage][2], broken(valid_arrays()))
    assert_refused(stage, rule)


@pytest.mark.parametrize(("broken", "rule"), BROKEN_IMPORT.values(), ids=BROKEN_IMPORT)
def test_a_file_that_cannot_be_converted_is_refused(broken: Callable[[Arrays], Arrays], rule: str) -> None:
    write("mine.npz", broken(valid_arrays()))
    assert_refused("base", rule)


@pytest.mark.parametrize("stage", READ_BY_ANY)
@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_refused(stage: str, content: bytes) -> None:
    Path(STAGES[stage][2]).write_bytes(content)
    assert_refused(stage, "")


@pytest.mark.parametrize("neighbors", [3, None])
def test_groups_that_the_neighbours_cannot_fill_are_refused(neighbors: int | None) -> None:
    write_params(Path.cwd(), dose=10000, overlap={"neighbor_count": neighbors})
    status, printed = run_stage("train")
    problem = "neighbor_count=3 < C=4 of view dense (OVERSAMPLING-001)" if neighbors else "neighbor_count"
    assert status == 1
    assert printed.startswith("error: params.yaml: overlap")
    assert problem in printed
    assert printed.count("\n") == 1


def test_a_missing_base_is_named() -> None:
    Path("mine.npz").unlink()
    status, printed = run_stage("base")
    assert status == 1
    assert printed.startswith("error: Base dataset not found: mine.npz")
    assert printed.count("\n") == 1


@pytest.mark.parametrize("stage", [stage for stage in READ_BY_ANY if stage != "base"])
def test_a_missing_file_is_one_line(stage: str) -> None:
    Path(STAGES[stage][2]).unlink()
    assert_refused(stage, "no such file")


KEYS_READ = ("diffraction", "objectGuess", "groups", "scan_index")
PICKLED = "pickled objects, which are never loaded"


class Payload:
    """Leave a mark when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def test_the_payload_is_executed_where_pickles_are_loaded() -> None:
    write("pickled.npz", {"extra": np.array([Payload()], dtype=object)})
    with np.load("pickled.npz", allow_pickle=True) as loaded:
        assert loaded["extra"].shape == (1,)
    assert Path("executed").exists()


# Its random frames are not those of its object.
@pytest.mark.filterwarnings("ignore:.* its own object explains the frames:UserWarning")
@pytest.mark.parametrize("stage", READ_BY_ANY)
@pytest.mark.parametrize("key", [*KEYS_READ, "_metadata", "extra"])
def test_a_pickled_payload_is_never_executed(stage: str, key: str) -> None:
    arrays, path = valid_arrays(), STAGES[stage][2]
    if stage == "expose":  # of a base set with frames it reads the part that is not the reference's
        del arrays["diffraction"]
    write(path, {**arrays, key: np.array([Payload()], dtype=object)})
    status, printed = run_stage(stage)
    assert not Path("executed").exists()
    if key in KEYS_READ and (stage, key) != ("base", "groups"):
        assert status == 1
        assert "error: " in printed
    if key in KEYS_READ and stage != "base" and (stage, key) != ("expose", "diffraction"):
        assert PICKLED in printed
