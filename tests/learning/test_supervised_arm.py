"""The supervised arm, on a real scan of a few frames."""

from __future__ import annotations

import csv
import logging
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fly64_dose_overlap.learning.supervised import supervised_image
from fly64_dose_overlap.learning.supervised_arm import SETTINGS, Supervised, patch_errors
from torch import Tensor

import tiny_scan
from fly64_dose_overlap.files.dataset import write_dataset
from fly64_dose_overlap.learning import TrainingJob, supervised_arm, trainer
from fly64_dose_overlap.learning.bundle import load_supervised
from fly64_dose_overlap.learning.trainer import train_cell
from fly64_dose_overlap.results.timings import read_timing

EPOCHS = 3
DATA = Path("train.npz")
JOB = TrainingJob(10000, "dense", 2, DATA, DATA, Path("model"), Path("model/train.log"), Path("curves"))
BUNDLE = JOB.artifact_dir / trainer.BUNDLE_NAME


def train(**changes: Any) -> dict[str, Any]:
    values = {"epochs": EPOCHS, "steps_per_epoch": 2, **changes}
    return train_cell(
        Supervised, config=tiny_scan.train_params(**values), job=JOB, log=logging.Logger("test")
    )


def results() -> dict[str, bytes]:
    paths = [BUNDLE, *(path for path in JOB.curves_dir.rglob("*") if path.is_file())]
    return {str(path): path.read_bytes() for path in paths}


def curve(name: str) -> list[float]:
    with (JOB.curves_dir / f"plots/metrics/{name}.tsv").open() as file:
        return [float(row[name.split("/")[1]]) for row in csv.DictReader(file, delimiter="\t")]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    write_dataset(root / DATA, tiny_scan.scan_dataset())
    return root


@pytest.fixture(scope="module")
def undisturbed(study: Path) -> dict[str, bytes]:
    """Return the files of a training without incident."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(study)
        train()
        return results()


@pytest.fixture(autouse=True)
def _in_study(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(study / DATA, DATA)


def arm(**changes: Any) -> Supervised:
    return Supervised(tiny_scan.train_params(**changes), tiny_scan.scan_dataset(), torch.device("cpu"))


def test_outcome_and_bundle_agree(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = train(epochs=2)
    network, info = load_supervised(BUNDLE)
    dataset = tiny_scan.scan_dataset()
    assert (info.frame_side_px, info.support_side_px, info.width) == (32, 28, supervised_arm.WIDTH)
    frames = dataset.amplitude[supervised_arm.split_frames(dataset.positions_px, 0.4)[0]]
    photons = float(np.square(frames, dtype=np.float64).sum()) / len(frames)
    assert info.photons_per_frame == pytest.approx(photons, rel=1e-9)
    mean_frame = frames.mean(axis=0) / (photons / 32**2) ** 0.5
    np.testing.assert_allclose(network.mean_frame.numpy(), mean_frame, rtol=1e-4, atol=1e-6)
    assert info.record == dataset.record
    assert outcome["epochs"] == 2
    assert all(outcome[key] == info.training[key] for key in ("best_epoch", "train_loss", "val_loss"))
    assert all(len(curve(name)) == 2 for name in ("train/loss", "val/loss", "val/psnr", "val/ssim"))
    assert np.isfinite(supervised_image(network, info, dataset)).all()
    assert read_timing(Path.cwd(), outcome["sha256"]) is not None
    assert "supervise dense/dose=10000: epoch 2/2: train/loss " in capsys.readouterr().err


def test_parameters_of_the_other_arm_change_nothing(undisturbed: dict[str, bytes]) -> None:
    others = {"loss": "mae", "target": "same", "width": 8, "crop_px": 32}
    others |= {"start_iterations": 7, "joint_iterations": 7, "joint_weight": 1.0, "joint_coarse_photons": 7.0}
    others |= {"joint_epochs": 7, "supervised_epochs": 7, "least_seen": 0.1}
    assert set(others) | SETTINGS == set(tiny_scan.train_params().model_dump())
    train(**others)
    assert results() == undisturbed


def test_an_interrupted_training_ends_as_if_it_had_not_been(
    undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors, calls = supervised_arm.patch_errors, 0

    def interrupted(*arguments: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return errors(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(supervised_arm, "patch_errors", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train()
    assert train()["resumed_from_epoch"] == 1
    assert results() == undisturbed


def test_validation_loss_falls() -> None:
    outcome = train(epochs=2, steps_per_epoch=20, frames_per_step=24, learning_rate=0.005)
    empty = arm().validate(arm().network)["val/loss"]
    assert outcome["val_loss"] < 0.95 * empty


def test_frames_that_are_held_back_and_their_object_teach_nothing() -> None:
    dataset = tiny_scan.scan_dataset()
    y = dataset.positions_px[:, 0]
    held_back = y > y.max() - 0.4 * np.ptp(y)
    amplitude, truth = dataset.amplitude[:].copy(), dataset.obj.copy()
    amplitude[held_back] = 9
    truth[math.ceil(y[~held_back].max()) + 15 :] = 5
    others = replace(dataset, amplitude=amplitude, obj=truth)
    losses: list[Tensor] = []
    for each in (dataset, others):
        made = Supervised(tiny_scan.train_params(), each, torch.device("cpu"))
        draws = torch.Generator().manual_seed(0)
        for parameter in made.network.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=draws)
        losses.append(made.loss(made.network, np.random.default_rng(0)))
    assert torch.equal(*losses)


def test_a_step_takes_no_more_frames_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    errors = supervised_arm.patch_errors

    def count(found: Tensor, *rest: Any) -> Tensor:
        counted.append(len(found))
        return errors(found, *rest)

    monkeypatch.setattr(supervised_arm, "patch_errors", count)
    for frames in (5, 1000):
        each = arm(frames_per_step=frames)
        each.loss(each.network, np.random.default_rng(0))
    training = supervised_arm.split_frames(tiny_scan.scan_dataset().positions_px, 0.4)[0]
    assert counted == [5, len(training)]


def test_the_untrained_error_is_that_of_the_empty_object() -> None:
    dataset = replace(tiny_scan.scan_dataset(), obj=np.full((100, 100), 0.8 * np.exp(0.5j), np.complex64))
    each = Supervised(tiny_scan.train_params(), dataset, torch.device("cpu"))
    loss = each.loss(each.network, np.random.default_rng(0))
    assert loss.item() == pytest.approx(0.7, rel=1e-5)


def test_errors_add_amplitude_and_phase_and_count_by_the_light() -> None:
    truth = torch.polar(torch.tensor([[[2.0, 1.0]]]), torch.tensor([[[0.5, -3.0]]]))
    found = torch.tensor([[[[1.5, 1.0]], [[0.25, 3.0]]]])
    light = torch.tensor([[3.0, 1.0]])
    wanted = 0.75 * (0.5 + 0.25) + 0.25 * 6.0
    assert patch_errors(found, truth, light).item() == pytest.approx(wanted)
    assert patch_errors(found, truth, 7 * light).item() == pytest.approx(wanted)
    exact = torch.stack((truth.abs(), truth.angle()), dim=1)
    assert patch_errors(exact, truth, light).item() == 0
    assert truth.angle().abs().max() < math.pi
