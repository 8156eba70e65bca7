"""The network that is taught by ground truth, and its stitched predictions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import tiny_scan
from fly64_dose_overlap.arrays import spool
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.learning.bundle import ModelInfo
from fly64_dose_overlap.methods import supervised
from fly64_dose_overlap.methods.supervised import (
    build_supervised,
    mean_amplitude,
    predict_patches,
    supervised_image,
)
from fly64_dose_overlap.physics.illumination import illumination, whole_and_rest
from fly64_dose_overlap.scan import Scan

INFO = ModelInfo(4, 32, 28, 1e4, {}, {})


class Oracle(nn.Module):
    """Stand in for a network that predicts each frame's patch of an object without error."""

    def __init__(self, scan: Scan, obj: NDArray[np.complex64], info: ModelInfo = INFO) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        side = info.support_side_px
        corners = whole_and_rest(scan.positions_px, side)[0].tolist()
        windows = torch.from_numpy(np.stack([obj[y : y + side, x : x + side] for y, x in corners]))
        self.patches = torch.stack((windows.abs(), windows.angle()), dim=1)
        self.frames: list[Tensor] = []

    def forward(self, frames: Tensor) -> Tensor:
        first = sum(map(len, self.frames))
        self.frames.append(frames)
        return self.patches[first : first + len(frames)]


def trained(info: ModelInfo = INFO) -> supervised.SupervisedNetwork:
    """Return a network of which no layer is zero."""
    network = build_supervised(info, seed=1)
    draws = torch.Generator().manual_seed(2)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=draws)
    return network.eval()


def lit(scan: Scan, support: int = 28) -> NDArray[np.bool_]:
    """Tell where photons fall within the support, at the whole positions of patches."""
    margin = (scan.side - support) // 2
    inside = slice(margin, margin + support)
    probe = np.zeros_like(scan.probe)
    probe[:, inside, inside] = scan.probe[:, inside, inside]
    return illumination(probe, np.rint(scan.positions_px), scan.object_shape) > 1


@pytest.mark.parametrize(("side", "support"), [(32, 28), (32, 32), (24, 20), (26, 24), (31, 28), (31, 31)])
def test_patches_are_as_large_as_the_support(side: int, support: int) -> None:
    info = replace(INFO, frame_side_px=side, support_side_px=support)
    counts = np.random.default_rng(0).integers(0, 9, (3, side, side)).astype(np.float32)
    assert predict_patches(trained(info), info, counts).shape == (3, 2, support, support)


def test_untrained_network_predicts_the_empty_object() -> None:
    found = supervised_image(build_supervised(INFO, seed=0), INFO, tiny_scan.scan())
    assert found.dtype == np.complex64
    np.testing.assert_allclose(found, 1, atol=1e-6)


@pytest.mark.parametrize("side", [30, 31, 32])
def test_a_shifted_pixel_of_the_padded_frame_is_the_pixel_of_the_frame(side: int) -> None:
    """Frame and patch have their middle, [N/2, N/2], at one place of the padded square."""
    network = build_supervised(replace(INFO, frame_side_px=side, support_side_px=20), seed=0)
    before, after = network.margins[:2]
    assert (side + before + after) % 16 == 0
    assert before + side // 2 == network.edge + 20 // 2


def test_amplitude_and_phase_have_decoders_of_their_own() -> None:
    counts = tiny_scan.scan().counts[:2]
    first, network = predict_patches(trained(), INFO, counts), trained()
    network.state_dict()["phase.head.bias"] += 0.5
    second = predict_patches(network, INFO, counts)
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
    scan, truth = tiny_scan.scan(), tiny_scan.truth()
    photons = scan.photons_per_frame
    oracle = Oracle(scan, truth)
    supervised_image(oracle, replace(INFO, photons_per_frame=photons), scan)
    seen = torch.cat(oracle.frames)[:, 0]
    assert float(seen.square().mean()) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(seen.numpy() * (photons / 32**2) ** 0.5, np.sqrt(scan.counts[:]), rtol=1e-5)
    half = Oracle(scan, truth)
    supervised_image(half, replace(INFO, photons_per_frame=photons / 4), scan)
    torch.testing.assert_close(torch.cat(half.frames)[:, 0], 2 * seen)


@pytest.mark.parametrize(("side", "support"), [(32, 28), (31, 28), (31, 31)])
def test_true_patches_stitch_to_the_truth_and_to_one_outside(side: int, support: int) -> None:
    """At fractional positions too: a patch is the window at the whole position, as a frame reads it."""
    scan, truth = tiny_scan.scan_of_side(side), tiny_scan.truth()
    info = replace(INFO, frame_side_px=side, support_side_px=support)
    found = supervised_image(Oracle(scan, truth, info), info, scan)
    inside = lit(scan, support)
    assert 0.5 < inside.mean() < 1
    np.testing.assert_allclose(found[inside], truth[inside], atol=2e-6)
    ones = np.ones((1, support, support), np.complex64)
    outside = illumination(ones, np.rint(scan.positions_px), scan.object_shape) < 0.5
    assert outside.any()
    assert np.all(found[outside] == 1)


def test_edges_are_divided_by_the_light_that_fell_there() -> None:
    # A constant is the fixed point of any weighted mean.
    scan, obj = tiny_scan.scan(), np.full((100, 100), 0.3 - 0.8j, np.complex64)
    found = supervised_image(Oracle(scan, obj), INFO, scan)
    np.testing.assert_allclose(found[lit(scan)], 0.3 - 0.8j, rtol=1e-5)


def test_overlapping_predictions_count_by_the_probe() -> None:
    scan = tiny_scan.scan().frames(np.array([0, 1]))
    scan = replace(scan, positions_px=np.array([[40.0, 40.0], [40.0, 46.0]]))
    oracle = Oracle(scan, tiny_scan.truth())
    oracle.patches[0, 0], oracle.patches[1, 0], oracle.patches[:, 1] = 1.0, 3.0, 0.0
    found = supervised_image(oracle, INFO, scan)
    first, second = abs(scan.probe[0, 16, 19]) ** 2, abs(scan.probe[0, 16, 13]) ** 2
    assert found[40, 43] == pytest.approx((first + 3 * second) / (first + second), rel=1e-5)


def test_the_size_of_batches_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scan, network = tiny_scan.scan(), trained()
    found = supervised_image(network, INFO, scan)
    monkeypatch.setattr(supervised, "FRAMES_PER_BATCH", 7)
    np.testing.assert_allclose(supervised_image(network, INFO, scan), found, atol=1e-5)


def test_modes_of_the_probe_add_their_light() -> None:
    scan, truth = tiny_scan.scan(), tiny_scan.truth()
    modes = replace(scan, probe=np.concatenate([scan.probe, 0.5j * scan.probe]).astype(np.complex64))
    found = supervised_image(Oracle(modes, truth), INFO, modes)
    np.testing.assert_allclose(found, supervised_image(Oracle(scan, truth), INFO, scan), atol=1e-5)


def test_frames_of_another_side_are_refused() -> None:
    info = replace(INFO, frame_side_px=64)
    message = r"^supervised network: frames are 32 px wide, it was trained on 64 px$"
    with pytest.raises(StudyError, match=message):
        supervised_image(trained(info), info, tiny_scan.scan())


def test_means_do_not_depend_on_where_frames_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "FRAMES_PER_SUM", 10)
    scan = tiny_scan.scan()
    on_disk = replace(scan, counts=spool(scan.counts.shape, np.float32, [scan.counts[:]]))
    expected = np.sqrt(scan.counts[:]).mean(axis=0, dtype=np.float64).astype(np.float32)
    for each in (scan, on_disk):
        np.testing.assert_allclose(mean_amplitude(each), expected, rtol=1e-6)
    assert mean_amplitude(scan).tobytes() == mean_amplitude(on_disk).tobytes()
    photons = scan.counts[:].astype(np.float64).sum(axis=(1, 2)).mean()
    assert scan.photons_per_frame == on_disk.photons_per_frame == pytest.approx(photons, rel=1e-12)


def test_weights_follow_the_seed_alone() -> None:
    first, again, other = (build_supervised(INFO, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
