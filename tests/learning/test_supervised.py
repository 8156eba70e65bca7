"""The network that is taught by ground truth, and its stitched predictions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fly64_dose_overlap.learning.supervised import (
    SupervisedInfo,
    build_supervised,
    predict_patches,
    supervised_image,
    support_model,
)
from fly64_dose_overlap.physics.fluence import fluence_map
from torch import Tensor, nn

import tiny_scan
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import Dataset
from fly64_dose_overlap.learning import supervised

INFO = SupervisedInfo(4, 32, 28, 1e4, {}, {})


class Oracle(nn.Module):
    """Stand in for a network that predicts each frame's patch of an object without error."""

    def __init__(self, dataset: Dataset, info: SupervisedInfo = INFO) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        model = support_model(info, dataset, torch.device("cpu"))
        patches = model.patches(torch.from_numpy(dataset.obj), slice(0, model.frames))
        self.patches = torch.stack((patches.abs(), patches.angle()), dim=1)
        self.frames: list[Tensor] = []

    def forward(self, frames: Tensor) -> Tensor:
        first = sum(map(len, self.frames))
        self.frames.append(frames)
        return self.patches[first : first + len(frames)]


def trained(info: SupervisedInfo = INFO) -> supervised.SupervisedNetwork:
    """Return a network of which no layer is zero."""
    network = build_supervised(info, seed=1)
    draws = torch.Generator().manual_seed(2)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=draws)
    return network.eval()


def at_whole_positions() -> Dataset:
    dataset = tiny_scan.scan_dataset()
    return replace(dataset, positions_px=np.round(dataset.positions_px))


def lit(dataset: Dataset) -> np.ndarray:
    probe = np.pad(dataset.probe[2:-2, 2:-2], 2)
    return fluence_map(probe, dataset.positions_px, (100, 100)) > 1


@pytest.mark.parametrize(("side", "support"), [(32, 28), (32, 32), (24, 20), (26, 24)])
def test_patches_are_as_large_as_the_support(side: int, support: int) -> None:
    info = replace(INFO, frame_side_px=side, support_side_px=support)
    amplitude = np.random.default_rng(0).uniform(0, 3, (3, side, side)).astype(np.float32)
    assert predict_patches(trained(info), info, amplitude).shape == (3, 2, support, support)


def test_untrained_network_predicts_the_empty_object() -> None:
    found = supervised_image(build_supervised(INFO, seed=0), INFO, tiny_scan.scan_dataset())
    assert found.dtype == np.complex64
    np.testing.assert_allclose(found, 1, atol=1e-6)


def test_amplitude_and_phase_have_decoders_of_their_own() -> None:
    amplitude = tiny_scan.scan_dataset().amplitude[:2]
    first, network = predict_patches(trained(), INFO, amplitude), trained()
    network.state_dict()["phase.head.bias"] += 0.5
    second = predict_patches(network, INFO, amplitude)
    assert torch.equal(first[:, 0], second[:, 0])
    torch.testing.assert_close(second[:, 1] - first[:, 1], torch.full_like(first[:, 1], 0.5))


def test_every_pixel_of_a_frame_reaches_every_pixel_of_the_patch() -> None:
    network = trained()
    frames = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(3), requires_grad=True)
    for corner in ((0, 0), (27, 27)):
        network(frames)[0, 1][corner].backward()
        assert frames.grad is not None
        assert (frames.grad != 0).all()
        frames.grad = None


def test_frames_are_scaled_by_the_dose_of_the_training_half() -> None:
    dataset = tiny_scan.scan_dataset()
    counts = float(np.square(dataset.amplitude[:]).sum(axis=(1, 2)).mean())
    oracle = Oracle(dataset)
    supervised_image(oracle, replace(INFO, photons_per_frame=counts), dataset)
    seen = torch.cat(oracle.frames)[:, 0]
    assert float(seen.square().mean()) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(seen.numpy() * (counts / 32**2) ** 0.5, dataset.amplitude[:], rtol=1e-5)
    half = Oracle(dataset)
    supervised_image(half, replace(INFO, photons_per_frame=counts / 4), dataset)
    torch.testing.assert_close(torch.cat(half.frames)[:, 0], 2 * seen)


def test_true_patches_stitch_to_the_truth_and_to_one_outside() -> None:
    dataset = at_whole_positions()
    found = supervised_image(Oracle(dataset), INFO, dataset)
    inside = lit(dataset)
    assert 0.5 < inside.mean() < 1
    np.testing.assert_allclose(found[inside], dataset.obj[inside], atol=2e-6)
    outside = fluence_map(np.ones((28, 28)), dataset.positions_px, (100, 100)) < 0.5
    assert outside.any()
    assert np.all(found[outside] == 1)


def test_edges_are_divided_by_the_light_that_fell_there() -> None:
    # A constant is the fixed point of any weighted mean, also at fractional positions.
    dataset = replace(tiny_scan.scan_dataset(), obj=np.full((100, 100), 0.3 - 0.8j, np.complex64))
    found = supervised_image(Oracle(dataset), INFO, dataset)
    np.testing.assert_allclose(found[lit(dataset)], 0.3 - 0.8j, rtol=1e-5)


def test_overlapping_predictions_count_by_the_probe() -> None:
    dataset = at_whole_positions()
    dataset = replace(
        dataset, amplitude=dataset.amplitude[:2], positions_px=np.array([[40.0, 40.0], [40.0, 46.0]])
    )
    oracle = Oracle(dataset)
    oracle.patches[0, 0], oracle.patches[1, 0], oracle.patches[:, 1] = 1.0, 3.0, 0.0
    found = supervised_image(oracle, INFO, dataset)
    first, second = abs(dataset.probe[16, 19]) ** 2, abs(dataset.probe[16, 13]) ** 2
    assert found[40, 43] == pytest.approx((first + 3 * second) / (first + second), rel=1e-5)


def test_the_truth_and_the_size_of_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, network = tiny_scan.scan_dataset(), trained()
    found = supervised_image(network, INFO, dataset)
    blank = replace(dataset, obj=np.ones_like(dataset.obj))
    assert supervised_image(network, INFO, blank).tobytes() == found.tobytes()
    monkeypatch.setattr(supervised, "FRAMES_PER_BATCH", 7)
    np.testing.assert_allclose(supervised_image(network, INFO, dataset), found, atol=1e-5)


def test_frames_of_another_side_are_refused() -> None:
    info = replace(INFO, frame_side_px=64)
    message = r"^supervised network: frames are 32 px wide, it was trained on 64 px$"
    with pytest.raises(StudyError, match=message):
        supervised_image(trained(info), info, tiny_scan.scan_dataset())


def test_weights_follow_the_seed_alone() -> None:
    first, again, other = (build_supervised(INFO, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
