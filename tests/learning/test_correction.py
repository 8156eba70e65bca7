"""The task of networks that correct an estimate: strips, losses, validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import tiny_scan
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.learning import correction
from fly64_dose_overlap.learning.correction import CorrectionTask, CorrectorSettings
from fly64_dose_overlap.learning.corrector import OUTPUT_PLANES, build_corrector
from fly64_dose_overlap.learning.mosaic import GroupStart
from fly64_dose_overlap.learning.trainer import split_frames
from fly64_dose_overlap.learning.training import Monitor, Training
from fly64_dose_overlap.physics.likelihood import amplitude_error, poisson_deviance

SETTINGS = CorrectorSettings(**tiny_scan.TRAINING, crop_px=64)


class NotFinite(nn.Module):
    """Stand in for a network that has diverged."""

    def forward(self, planes: Tensor) -> Tensor:
        return torch.full_like(planes[:, :OUTPUT_PLANES], torch.nan)


def task(monitor: Monitor | None = None, **changes: Any) -> CorrectionTask:
    settings, training = SETTINGS.model_copy(update=changes), Training(1, Path("unused"), monitor=monitor)
    return CorrectionTask("test", settings, tiny_scan.scan(), GroupStart(2), training)


@pytest.fixture(autouse=True)
def _few_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correction, "VALIDATION_CROPS", 6)


def test_the_last_part_of_the_y_range_validates() -> None:
    positions_px = np.stack([np.array([9.0, 0, 3, 10, 8, 5]), np.zeros(6)], axis=1)
    training, validation = split_frames(positions_px, 0.2)
    assert training.tolist() == [1, 2, 4, 5]
    assert validation.tolist() == [0, 3]


def test_every_frame_is_in_one_part() -> None:
    positions_px = tiny_scan.scan().positions_px
    parts = split_frames(positions_px, 0.15)
    assert sorted(np.concatenate(parts)) == list(range(len(positions_px)))
    assert positions_px[parts[0], 0].max() < positions_px[parts[1], 0].min()


def test_an_empty_part_is_refused() -> None:
    positions_px = np.array([[5.0, 1.0], [5.0, 2.0]])
    message = r"^validation_fraction: 0\.2 leaves 2 training and 0 validation frames; change it"
    with pytest.raises(StudyError, match=message):
        split_frames(positions_px, 0.2)


@pytest.mark.parametrize(("loss", "function"), [("poisson", poisson_deviance), ("mae", amplitude_error)])
def test_loss_is_the_chosen_one(loss: str, function: Any) -> None:
    made = task(loss=loss)
    losses: list[float] = []
    made.start_epoch(0)
    for _ in range(2):
        losses.append(made.loss(made.network, np.random.default_rng(0)).item())
    assert losses[0] == losses[1]
    crops = vars(made)["_validation_crops"]
    network = made.network.eval()
    with torch.no_grad():
        wanted = [float(function(crop.predict(network, None), crop.target)) for crop in crops]
    assert made.validate(made.network)["val/loss"] == pytest.approx(np.mean(wanted), rel=1e-6)


def test_validation_repeats_and_leaves_the_network_in_training() -> None:
    made, network = task(), build_corrector(4, seed=0)
    first = made.validate(network)
    assert set(first) == {"val/loss"}
    assert first == made.validate(network)
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert 0.3 < first["val/loss"] < 2


def test_crops_of_validation_are_of_every_first_realisation() -> None:
    made = task(least_seen=0.1)
    assert vars(made)["_first_count"] == 2
    planes = [crop.planes[5].max() for crop in vars(made)["_validation_crops"]]
    photons = [float(10 ** (4 * plane)) for plane in planes]
    assert min(photons[::2]) > 1.5 * max(photons[1::2]) or 1.5 * max(photons[::2]) < min(photons[1::2])


def test_validation_scores_the_strip_that_is_held_back_and_training_does_not() -> None:
    made = task()
    training, held_back = split_frames(tiny_scan.scan().positions_px, SETTINGS.validation_fraction)
    counts = tiny_scan.scan().counts[:]
    made.start_epoch(0)
    (realisation,) = vars(made)["_kept"]
    target = realisation.target[:]
    assert np.all(target <= counts)

    def frames_of(crop: Any) -> set[int]:
        return {
            int(np.flatnonzero((target == frame.numpy()).all(axis=(1, 2)))[0]) for frame in crop.target[0]
        }

    for crop in vars(made)["_validation_crops"]:
        assert frames_of(crop) <= set(held_back.tolist())
    rng = np.random.default_rng(3)
    for _ in range(10):
        assert frames_of(vars(made)["_sampler"].draw(realisation, rng)) <= set(training.tolist())


def test_the_monitor_gets_the_image_and_the_frames_that_are_held_back() -> None:
    seen: list[tuple[NDArray[np.complex64], NDArray[np.int64]]] = []

    def monitor(image: NDArray[np.complex64], frames: NDArray[np.int64]) -> dict[str, float]:
        seen.append((image, frames))
        return {"val/psnr": 20.0}

    found = task(monitor=monitor).validate(build_corrector(4, seed=0))
    assert found["val/psnr"] == 20
    ((image, frames),) = seen
    assert image.shape == tiny_scan.scan().object_shape
    wanted = split_frames(tiny_scan.scan().positions_px, SETTINGS.validation_fraction)[1]
    np.testing.assert_array_equal(frames, wanted)
    assert np.isnan(task().validate(NotFinite())["val/loss"])


def test_realisations_are_those_of_the_seed_in_whatever_order_they_are_made() -> None:
    """After an interruption the earlier ones are made again."""
    going, resumed = task(), task()
    for epoch in range(3):
        going.start_epoch(epoch)
    resumed.start_epoch(2)
    pairs = zip(vars(going)["_kept"], vars(resumed)["_kept"], strict=True)
    for first, second in pairs:
        assert torch.equal(first.planes, second.planes)
        np.testing.assert_array_equal(first.target[:], second.target[:])
