"""The stages that train methods and reconstruct by them, on a tiny scan."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import factories
import tiny_scan
from fly64_dose_overlap.config import (
    NOTHING_TO_REFINE,
    ProbeParams,
)
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.dataset import write_scan
from fly64_dose_overlap.files.reconstruction import read_reconstructions
from fly64_dose_overlap.learning import trainer
from fly64_dose_overlap.methods.base import Learned
from fly64_dose_overlap.pipeline import training
from fly64_dose_overlap.pipeline.instrument import Instrument
from fly64_dose_overlap.pipeline.stages import reconstruct, train
from fly64_dose_overlap.pipeline.stages._cli import command
from fly64_dose_overlap.pipeline.timings import read_timing
from fly64_dose_overlap.pipeline.training import train_method
from tiny_study import write_params

DATA = Path("data/views/10000/dense")
NO_ERRORS = factories.study_params().calibration
BASE_PROBE = ProbeParams.model_validate({"from": "data/base/base.npz"})
KNOWN = Instrument(probe=BASE_PROBE, calibration=NO_ERRORS, refine=NOTHING_TO_REFINE)
LEARNED = ("network", "refined", "supervised")


def write_tiny_params(**changes: Any) -> None:
    methods = {name: {**tiny_scan.SETTINGS[name], "epochs": 2, "steps_per_epoch": 1} for name in LEARNED}
    methods |= {"ml": {"epochs": 3}, "map": {"epochs": 3}}
    write_params(Path(), dose=10000, view="dense", methods=methods, **changes)


@pytest.fixture(autouse=True)
def _in_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()
    write_tiny_params()


@pytest.fixture
def _with_data() -> None:
    for half in ("train", "test"):
        write_scan(DATA / f"{half}.npz", tiny_scan.scan(), tiny_scan.truth())


def run_stage(stage: Any, method: str) -> Result:
    return CliRunner().invoke(command(stage.main), ["--method", method])


@pytest.mark.usefixtures("_with_data")
@pytest.mark.parametrize("name", LEARNED)
def test_model_manifest_curves_and_images_lie_where_the_pipeline_looks(name: str) -> None:
    (DATA / "test.npz").unlink()
    ended = run_stage(train, name)
    assert ended.exit_code == 0, ended.output
    bundle = Path(f"models/{name}/model.safetensors")
    manifest = json.loads(Path(f"models/{name}/manifest.json").read_text())
    assert (manifest["method"], manifest["bundle"]) == (name, bundle.name)
    assert manifest["data"] == "data/views/10000/dense/train.npz"
    assert manifest["sha256"] == sha256_of(bundle)
    assert read_timing(Path.cwd(), manifest["sha256"]) is not None
    assert not list(Path(".dvc/tmp/checkpoints").glob("*"))
    metrics = json.loads(Path(f"metrics/{name}/metrics.json").read_text())
    assert metrics["val"]["loss"] > 0
    assert metrics["train"]["loss"] > 0
    curves = {path.relative_to(f"metrics/{name}").as_posix() for path in Path("metrics").rglob("*.tsv")}
    assert curves >= {f"plots/metrics/{each}.tsv" for each in ("train/loss", "val/loss", "val/psnr")}

    (DATA / "train.npz").rename(DATA / "test.npz")
    ended = run_stage(reconstruct, name)
    assert ended.exit_code == 0, ended.output
    folder = Path(f"reconstructions/{name}")
    wanted = ["group_start", "network", "network_ml"] if name == "network" else [name]
    assert [each.method for each in read_reconstructions(folder)] == wanted
    assert all((folder / f"{each}.h5").is_file() for each in wanted)
    assert all(read_timing(Path.cwd(), sha256_of(folder / f"{each}.npz")) for each in wanted)


@pytest.mark.usefixtures("_with_data")
def test_an_iterative_method_works_on_the_test_half_alone() -> None:
    (DATA / "train.npz").unlink()
    ended = run_stage(reconstruct, "ml")
    assert ended.exit_code == 0, ended.output
    fixed, held_out = read_reconstructions(Path("reconstructions/ml"))
    assert (fixed.method, held_out.method) == ("ml", "ml_held_out")
    assert fixed.settings["epochs"] == 3
    assert fixed.obj.shape == (100, 100)
    first = Path("reconstructions/ml/ml.npz").read_bytes()
    assert run_stage(reconstruct, "ml").exit_code == 0
    assert Path("reconstructions/ml/ml.npz").read_bytes() == first


@pytest.mark.usefixtures("_with_data")
def test_methods_are_told_the_scan_with_its_calibration_errors() -> None:
    write_tiny_params(calibration={"position_error_px": 0.5, "photon_scale_error": 0.1})
    assert run_stage(reconstruct, "map").exit_code == 0
    (found,) = read_reconstructions(Path("reconstructions/map"))
    apart = np.abs(found.positions_px - tiny_scan.scan().positions_px)
    assert 0.1 < apart.mean() < 1
    power = (np.abs(found.probe) ** 2).sum() / (np.abs(tiny_scan.scan().probe) ** 2).sum()
    assert power == pytest.approx(1.1, rel=1e-5)


@pytest.mark.usefixtures("_with_data")
def test_methods_find_what_is_to_be_refined() -> None:
    write_tiny_params(refine={**dict(NOTHING_TO_REFINE), "probe": True, "positions": 0.5, "flux": 0.02})
    assert run_stage(reconstruct, "ml").exit_code == 0
    found, _ = read_reconstructions(Path("reconstructions/ml"))
    given = tiny_scan.scan()
    assert found.flux is not None
    assert found.flux.shape == (len(given),)
    assert not np.array_equal(found.probe, given.probe)
    apart = np.abs(found.positions_px - given.positions_px)
    assert 0 < apart.mean() < 1


@pytest.mark.parametrize(
    ("stage", "method", "message"),
    [
        (train, "refined", "data/views/10000/dense/train.npz: no such file"),
        (reconstruct, "refined", "data/views/10000/dense/test.npz: no such file"),
        (reconstruct, "ml", "data/views/10000/dense/test.npz: no such file"),
        (train, "mpa", "params.yaml: methods has no settings of 'mpa'; it has those of network, refined"),
        (train, "ml", "ml: has nothing to train; name it in iterative, not in learned"),
    ],
)
def test_what_is_missing_is_one_line(stage: Any, method: str, message: str) -> None:
    ended = run_stage(stage, method)
    assert ended.exit_code == 1
    assert ended.stderr.startswith(f"error: {message}")
    assert ended.stderr.count("\n") == 1


@pytest.mark.usefixtures("_with_data")
def test_a_missing_model_is_one_line() -> None:
    ended = run_stage(reconstruct, "refined")
    assert ended.exit_code == 1
    assert ended.stderr.startswith("error: models/refined/model.safetensors: no such model bundle; train the")
    assert not Path("reconstructions").exists()


def test_groups_must_be_those_of_the_view() -> None:
    write_scan(DATA / "train.npz", tiny_scan.scan(1), tiny_scan.truth())
    ended = run_stage(train, "refined")
    assert ended.exit_code == 1
    assert "'groups' has 1 frames per group" in ended.stderr


# Checkpoints of a training


def interrupted(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Train until a bundle would be written."""

    def save(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer._Running, "_save", save)
        with pytest.raises(KeyboardInterrupt):
            train_tiny(**changes)


def train_tiny(name: str = "supervised", **changes: Any) -> dict[str, Any]:
    with training_of(name, **changes) as outcome:
        return outcome


def training_of(
    name: str, *, seed: int = 1, instrument: Instrument = KNOWN, **changes: Any
) -> AbstractContextManager[dict[str, Any]]:
    made = tiny_scan.method(name, **{"epochs": 1, "steps_per_epoch": 1, **changes})
    return train_method(
        made,
        DATA / "train.npz",
        Path("model"),
        None,
        seed=seed,
        instrument=instrument,
        gridsize=2,
        neighbor_count=7,
    )


def folders() -> list[Path]:
    return sorted(Path(".dvc/tmp/checkpoints").iterdir())


@pytest.mark.usefixtures("_with_data")
@pytest.mark.slow
def test_the_folder_of_checkpoints_depends_on_all_that_a_training_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    interrupted(monkeypatch)
    interrupted(monkeypatch)
    assert len(folders()) == 1
    interrupted(monkeypatch, seed=2)
    interrupted(monkeypatch, frames_per_step=7)
    wrong = NO_ERRORS.model_copy(update={"photon_scale_error": 0.1})
    interrupted(monkeypatch, instrument=replace(KNOWN, calibration=wrong))
    blind = NOTHING_TO_REFINE.model_copy(update={"probe": True})
    interrupted(monkeypatch, instrument=replace(KNOWN, refine=blind))
    interrupted(monkeypatch, name="refined")
    assert len(folders()) == 6
    with monkeypatch.context() as patch:
        patch.setattr(training, "code_of_method", lambda _: {"changed": "code"})
        interrupted(patch)
    other = replace(tiny_scan.scan(), scan_index=tiny_scan.scan().scan_index + 1)
    write_scan(DATA / "train.npz", other, tiny_scan.truth())
    interrupted(monkeypatch)
    assert len(folders()) == 8


@pytest.mark.usefixtures("_with_data")
def test_a_copy_of_the_repository_finds_its_checkpoints_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As DVC's queue works in one, which is gone when it is interrupted."""
    copy = tmp_path / ".dvc/tmp/exps/temp1"
    (copy / ".dvc").mkdir(parents=True)
    (copy / DATA).mkdir(parents=True)
    (copy / DATA / "train.npz").write_bytes((DATA / "train.npz").read_bytes())
    with monkeypatch.context() as patch:
        patch.chdir(copy)
        interrupted(patch)
        assert not (copy / ".dvc/tmp").exists()
    assert len(folders()) == 1
    capsys.readouterr()
    train_tiny()
    assert "resumed from the checkpoint of epoch 1/1" in capsys.readouterr().err
    assert folders() == []


@pytest.mark.usefixtures("_with_data")
def test_checkpoints_stay_until_what_came_of_a_training_is_written_down(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(KeyboardInterrupt), training_of("supervised"):
        raise KeyboardInterrupt
    assert len(folders()) == 1
    capsys.readouterr()
    train_tiny()
    assert "resumed from the checkpoint of epoch 1/1" in capsys.readouterr().err
    assert folders() == []


@pytest.mark.usefixtures("_with_data")
def test_only_a_learned_method_is_trained() -> None:
    method = tiny_scan.method("ml")
    assert not isinstance(method, Learned)
    where = (DATA / "train.npz", Path("model"), None)
    told: dict[str, Any] = {"seed": 1, "instrument": KNOWN, "gridsize": 2, "neighbor_count": 7}
    with pytest.raises(StudyError, match=r"^ml: has nothing to train"), train_method(method, *where, **told):
        pass
