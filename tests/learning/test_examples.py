"""Poisson thinning and crops."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import tiny_scan
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import read_scan, write_scan
from fly64_dose_overlap.learning.corrector import OUTPUT_PLANES
from fly64_dose_overlap.learning.estimate import GroupedScan, grouped_scan
from fly64_dose_overlap.learning.examples import (
    MOST_SEEN,
    SYMMETRIES,
    CropSampler,
    Realisation,
    Target,
    first_realisations,
    realise,
    seen_fraction,
    turn,
    turn_back,
)
from fly64_dose_overlap.learning.mosaic import GroupStart
from fly64_dose_overlap.scan import Scan

CPU = torch.device("cpu")


class NoCorrection(nn.Module):
    """Stand in for a network that finds nothing to correct."""

    def forward(self, planes: Tensor) -> Tensor:
        return torch.zeros_like(planes[:, :OUTPUT_PLANES])


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def scan_of(positions: NDArray[np.float64] | list[list[float]], shape: tuple[int, int]) -> GroupedScan:
    """Return a scan at some positions; its probe fills the frame and its frames count their number."""
    positions_px, count = np.array(positions, np.float64), len(positions)
    scan = Scan(
        counts=np.repeat(np.arange(count, dtype=np.float32), 32 * 32).reshape(count, 32, 32),
        probe=np.ones((1, 32, 32), np.complex64),
        positions_px=positions_px,
        object_shape=shape,
        groups=np.arange(count, dtype=np.int32)[:, None],
    )
    return grouped_scan(scan, CPU)


def realisation_of(grouped: GroupedScan) -> Realisation:
    return Realisation(torch.zeros(6, *grouped.fluence.shape), grouped.scan.counts, 1.0)


# Realisations


def test_a_realisation_divides_the_photons() -> None:
    scan = grouped_scan(tiny_scan.scan(), CPU)
    made = realise(scan, "thinned", GroupStart(1), 0.45, rng_of(5), "test")
    assert made.target_fraction == 0.55
    share = float(made.target[:].sum() / scan.scan.counts[:].sum())
    assert share == pytest.approx(made.target_fraction, abs=0.005)
    assert bool((made.target[:] <= scan.scan.counts[:]).all())
    photons = 10 ** (4 * made.planes[5].double()) - 1
    np.testing.assert_allclose(photons, scan.fluence * (1 - made.target_fraction), rtol=1e-3, atol=1e-3)


def test_of_many_photons_no_more_than_half_as_many_again_are_predicted() -> None:
    scan = grouped_scan(tiny_scan.scan(), CPU)
    made = realise(scan, "thinned", GroupStart(1), 0.2, rng_of(5), "test")
    assert made.target_fraction == pytest.approx(0.3)
    assert float(made.target[:].sum() / scan.scan.counts[:].sum()) == pytest.approx(0.3, abs=0.005)
    photons = 10 ** (4 * made.planes[5].double()) - 1
    np.testing.assert_allclose(photons, scan.fluence * 0.2, rtol=1e-3, atol=1e-3)


def test_seen_fractions_lie_on_a_logarithmic_scale() -> None:
    assert seen_fraction(0.006, 0.0) == seen_fraction(0.006, 2.0) == MOST_SEEN
    assert seen_fraction(0.006, 0.5) == pytest.approx(0.06)
    assert seen_fraction(0.4, 7 + 1 / 3) == pytest.approx(0.6 * (2 / 3) ** 0.25)
    assert seen_fraction(0.6, 0.3) == pytest.approx(0.6)


@pytest.mark.parametrize(("least", "in_a_quarter"), [(0.4, 33), (0.006, 39)])
def test_seen_fractions_are_more_often_near_the_ends_of_a_wide_range(least: float, in_a_quarter: int) -> None:
    places = [math.log(seen_fraction(least, (n + 0.5) / 99) / 0.6, least / 0.6) for n in range(99)]
    low, high = (sum(place < 0.25 for place in side) for side in (places, [1 - p for p in places]))
    assert low == high == in_a_quarter


@pytest.mark.parametrize(("least", "count"), [(0.6, 1), (0.4, 1), (0.1, 2), (0.005, 4), (1e-9, 18)])
def test_each_factor_of_three_has_a_realisation_at_first(least: float, count: int) -> None:
    assert first_realisations(least) == count


def test_target_same_is_scored_on_what_the_network_sees() -> None:
    scan = grouped_scan(tiny_scan.scan(), CPU)
    made = realise(scan, "same", GroupStart(1), 0.45, rng_of(5), "test")
    np.testing.assert_array_equal(made.target[:], scan.scan.counts[:])
    assert made.target_fraction == 1.0


# Symmetries


@pytest.mark.parametrize("symmetry", range(SYMMETRIES))
def test_turns_are_undone(symmetry: int) -> None:
    images = torch.arange(2 * 5 * 5).reshape(2, 5, 5)
    assert torch.equal(turn_back(turn(images, symmetry), symmetry), images)


def test_turns_are_the_eight_symmetries_of_a_square() -> None:
    image = torch.arange(9).reshape(3, 3)
    turned = {tuple(turn(image, symmetry).ravel().tolist()) for symmetry in range(SYMMETRIES)}
    rotated = [np.rot90(side, k) for side in (image.numpy(), image.numpy().T) for k in range(4)]
    assert turned == {tuple(side.ravel().tolist()) for side in rotated}


# Crops


@pytest.mark.parametrize(
    ("positions", "shape", "side_px"),
    [
        # Every position that the dataset contract allows, the last one included.
        ([[16.0, 16.0], [84.0, 84.0], [16.0, 84.0], [83.5, 50.25]], (100, 100), 64),
        ([[16.0, 16.0], [280.0, 16.5]], (300, 40), 64),
        ([[16.0, 16.0], [28.0, 28.0], [20.3, 27.9]], (44, 44), 128),
        (rng_of(6).uniform(16, 184, (60, 2)), (200, 200), 48),
        ([[16.0, 16.0], [184.0, 184.0]], (200, 200), 40),
    ],
)
def test_crops_hold_at_least_one_frame_and_each_one_whole(
    positions: NDArray[np.float64] | list[list[float]], shape: tuple[int, int], side_px: int
) -> None:
    scan = scan_of(positions, shape)
    assert scan.geometry.support_side == 32
    allowed = np.arange(len(positions))[::2]
    sampler, realisation, rng = CropSampler(scan, allowed, side_px, 4), realisation_of(scan), rng_of(7)
    for _ in range(40):
        crop = sampler.draw(realisation, rng)
        side = crop.planes.shape[-1]
        assert crop.planes.shape == (6, side, side)
        assert side % 8 == 0
        assert side <= side_px
        drawn = crop.target[0, :, 0, 0].numpy().round()
        assert 1 <= len(drawn) <= 4
        assert len(set(drawn)) == len(drawn)
        assert set(drawn) <= set(allowed)
        # Light of every frame falls on the crop, and none beyond it.
        assert float(crop.model.illumination.sum()) == pytest.approx(32 * 32 * len(drawn), rel=1e-5)


@pytest.mark.parametrize(
    ("side_px", "shape"), [(16, (100, 100)), (32, (100, 100)), (64, (36, 100)), (4096, (34, 34))]
)
def test_crops_smaller_than_the_probe_are_refused(side_px: int, shape: tuple[int, int]) -> None:
    with pytest.raises(StudyError, match=r"^crop_px: crops of \d+ px do not hold the 32 px of the probe"):
        CropSampler(scan_of([[17.0, 17.0]], shape), np.arange(1), side_px, 4)


def test_a_perfect_crop_predicts_its_target() -> None:
    """Object, positions, fraction of photons and frames of a crop belong together, however it is turned."""
    scan, truth = tiny_scan.scan(), torch.from_numpy(tiny_scan.truth())
    grouped = grouped_scan(scan, CPU, support_side=32)
    expected = torch.cat([scan.model.expected(truth, frames) for frames in scan.model.batches()])
    planes = torch.zeros(6, *truth.shape)
    planes[2:4] = torch.view_as_real(truth - 1).permute(2, 0, 1)
    realisation = Realisation(planes, (0.4 * expected).numpy(), 0.4)
    sampler, rng, symmetries = CropSampler(grouped, np.arange(10, 70), 56, 6), rng_of(8), set[int]()
    for _ in range(25):
        crop = sampler.draw(realisation, rng)
        symmetries.add(crop.symmetry)
        predicted = crop.predict(NoCorrection(), None)
        torch.testing.assert_close(predicted, crop.target, rtol=1e-3, atol=1e-3 * float(crop.target.max()))
    assert len(symmetries) > 5


def test_the_network_sees_the_turned_crop() -> None:
    scan = scan_of([[30.0, 30.0]], (64, 64))
    planes = torch.from_numpy(rng_of(0).normal(size=(6, 64, 64)).astype(np.float32))
    crop = CropSampler(scan, np.arange(1), 48, 4).draw(
        replace(realisation_of(scan), planes=planes), rng_of(1)
    )
    seen: list[Tensor] = []

    class Watch(NoCorrection):
        def forward(self, planes: Tensor) -> Tensor:
            seen.append(planes)
            return super().forward(planes)

    crop = replace(crop, symmetry=5)
    crop.predict(Watch(), None)
    assert torch.equal(seen[0][0], turn(crop.planes, 5))
    assert not torch.equal(seen[0][0], crop.planes)


# Frames on disk


@pytest.mark.parametrize("gridsize", [1, 2])
@pytest.mark.parametrize("target", ["thinned", "same"])
def test_examples_do_not_depend_on_where_frames_are(gridsize: int, target: Target, tmp_path: Path) -> None:
    write_scan(tmp_path / "scan.npz", tiny_scan.scan(gridsize), tiny_scan.truth())
    found: list[tuple[Tensor, ...]] = []
    for source in (tiny_scan.scan(gridsize), read_scan(tmp_path / "scan.npz")):
        grouped = grouped_scan(source, CPU)
        made = realise(grouped, target, GroupStart(2), 0.45, rng_of(0), "test")
        crop = CropSampler(grouped, np.arange(81), 64, 8).draw(made, rng_of(1))
        found.append((made.planes, torch.from_numpy(made.target[:]), crop.planes, crop.target))
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)
