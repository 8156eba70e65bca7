"""Validation on a strip that is held back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fly64_dose_overlap.learning.scan import load_scan
from fly64_dose_overlap.learning.validation import Validation, loss_of, split_frames
from torch import Tensor, nn

import tiny_scan
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.learning.corrector import OUTPUT_PLANES, build_corrector
from fly64_dose_overlap.learning.examples import realise
from fly64_dose_overlap.learning.mosaic import GroupStart
from fly64_dose_overlap.physics.likelihood import amplitude_error, poisson_deviance


class NotFinite(nn.Module):
    """Stand in for a network that has diverged."""

    def forward(self, planes: Tensor) -> Tensor:
        return torch.full_like(planes[:, :OUTPUT_PLANES], torch.nan)


@pytest.fixture(scope="module")
def validation() -> Validation:
    dataset = tiny_scan.scan_dataset()
    held_back = split_frames(dataset.positions_px, 0.4)[1]
    scan = load_scan(dataset, torch.device("cpu"))
    rng = np.random.default_rng(0)
    realisations = [realise(scan, "thinned", GroupStart(2), part, rng, "test") for part in (0.5, 0.1)]
    return Validation(dataset, scan, held_back, tiny_scan.train_params(), realisations, None)


def test_the_last_part_of_the_y_range_validates() -> None:
    positions_px = np.stack([np.array([9.0, 0, 3, 10, 8, 5]), np.zeros(6)], axis=1)
    training, validation = split_frames(positions_px, 0.2)
    assert training.tolist() == [1, 2, 4, 5]
    assert validation.tolist() == [0, 3]


def test_every_frame_is_in_one_part() -> None:
    positions_px = tiny_scan.scan_dataset().positions_px
    parts = split_frames(positions_px, 0.15)
    assert sorted(np.concatenate(parts)) == list(range(len(positions_px)))
    assert positions_px[parts[0], 0].max() < positions_px[parts[1], 0].min()


def test_an_empty_part_is_refused() -> None:
    positions_px = np.array([[5.0, 1.0], [5.0, 2.0]])
    message = r"^train\.validation_fraction: 0\.2 leaves 2 training and 0 validation frames; change it"
    with pytest.raises(StudyError, match=message):
        split_frames(positions_px, 0.2)


def test_loss_is_the_configured_one() -> None:
    expected, counts = torch.full((2, 2), 3.0), torch.tensor([[0.0, 1.0], [2.0, 5.0]])
    for loss, function in (("poisson", poisson_deviance), ("mae", amplitude_error)):
        config = tiny_scan.train_params(loss=loss)
        assert torch.equal(loss_of(config, expected, counts), function(expected, counts))


def test_measures_repeat_and_leave_the_network_in_training(validation: Validation) -> None:
    network = build_corrector(4, seed=0)
    first = validation.measure(network)
    assert set(first) == {"val/loss", "val/psnr", "val/ssim"}
    assert first == validation.measure(network)
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert 0.3 < first["val/loss"] < 2


def test_crops_are_of_every_realisation(validation: Validation) -> None:
    photons = [float(crop.target.sum()) for crop in validation._crops]  # pyright: ignore[reportPrivateUsage]
    assert min(photons[::2]) > 2 * max(photons[1::2])


def test_an_image_that_is_not_finite_has_no_score(validation: Validation) -> None:
    found = validation.measure(NotFinite())
    assert set(found) == {"val/loss"}
    assert np.isnan(found["val/loss"])
