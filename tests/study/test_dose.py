"""Expected intensity against a NumPy twin, the dose factor, and the Poisson draw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import BaseSet
from fly64_dose_overlap.study.dose import (
    BLOCK_FRAMES,
    dose_factor,
    draw_counts,
    expected_intensity,
    frame_blocks,
    with_dose,
)

ROWS, COLUMNS = 21, 24


def base_set(side: int = 8, frames: int = 12, *, seed: int = 0) -> BaseSet:
    rng = np.random.default_rng(seed)
    low, high = side // 2, np.array([ROWS, COLUMNS]) - side + side // 2
    positions_px = rng.uniform(low, high, (frames, 2))
    positions_px[:4] = [[low, low], high, [low + 1.5, high[1]], [low + 2, low + 0.25]]
    return BaseSet(
        obj=(rng.normal(size=(ROWS, COLUMNS)) + 1j * rng.normal(size=(ROWS, COLUMNS))).astype(np.complex64),
        probe=(rng.normal(size=(side, side)) + 1j * rng.normal(size=(side, side))).astype(np.complex64),
        positions_px=positions_px,
        scan_index=np.arange(frames),
        record={},
        amplitude=np.ones((frames, side, side), np.float32),
    )


def exit_wave(base: BaseSet, frame: int) -> NDArray[np.complex128]:
    """Interpolate pixel by pixel, with the object padded where a weight of zero looks beyond it."""
    side = base.probe.shape[0]
    padded = np.pad(base.obj.astype(np.complex128), ((0, 1), (0, 1)))
    wave = np.empty((side, side), np.complex128)
    for row, column in np.ndindex(side, side):
        y, x = base.positions_px[frame] + (row - side // 2, column - side // 2)
        i, j = int(np.floor(y)), int(np.floor(x))
        u, v = y - i, x - j
        upper = (1 - v) * padded[i, j] + v * padded[i, j + 1]
        lower = (1 - v) * padded[i + 1, j] + v * padded[i + 1, j + 1]
        wave[row, column] = base.probe[row, column] * ((1 - u) * upper + u * lower)
    return wave


@pytest.mark.parametrize("side", [8, 9])
def test_intensity_is_that_of_the_numpy_twin(side: int) -> None:
    base = base_set(side)
    waves = np.stack([exit_wave(base, frame) for frame in range(len(base.positions_px))])
    far_field = np.fft.fftshift(np.fft.fft2(waves, norm="ortho"), axes=(-2, -1))
    intensity = expected_intensity(base)
    assert intensity.dtype == np.float64
    np.testing.assert_allclose(intensity, np.abs(far_field) ** 2, rtol=1e-12, atol=1e-12)


def test_the_far_field_keeps_the_energy() -> None:
    base = base_set()
    power = [np.sum(np.abs(exit_wave(base, frame)) ** 2) for frame in range(len(base.positions_px))]
    np.testing.assert_allclose(expected_intensity(base).sum(axis=(1, 2)), power, rtol=1e-12)


def test_flat_object_and_probe_put_all_photons_into_the_centre_pixel() -> None:
    flat = base_set()
    flat = replace(flat, obj=np.ones_like(flat.obj), probe=np.full_like(flat.probe, 2))
    expected = np.zeros((8, 8))
    expected[4, 4] = 4 * 64
    np.testing.assert_allclose(expected_intensity(flat), np.broadcast_to(expected, (12, 8, 8)), atol=1e-10)


def test_any_choice_of_frames_gives_their_intensity() -> None:
    base = base_set(frames=2 * BLOCK_FRAMES + 3)
    whole = expected_intensity(base)
    frames = np.array([BLOCK_FRAMES + 1, 0, len(whole) - 1])
    np.testing.assert_allclose(expected_intensity(base, frames), whole[frames], rtol=1e-12)
    np.testing.assert_allclose(expected_intensity(base, slice(250, 260)), whole[250:260], rtol=1e-12)


def test_blocks_cover_every_frame_once() -> None:
    frames = np.arange(2 * BLOCK_FRAMES + 3)
    blocks = [frames[block] for block in frame_blocks(len(frames))]
    np.testing.assert_array_equal(np.concatenate(blocks), frames)
    assert [len(block) for block in blocks] == [BLOCK_FRAMES, BLOCK_FRAMES, 3]


@pytest.mark.parametrize("dose", [0.5, 1000, 10**12])
def test_the_mean_frame_expects_the_dose(dose: float) -> None:
    base = base_set(frames=300)
    scan = with_dose(base, dose_factor(base, dose))
    assert scan.probe.dtype == np.complex64
    assert scan.amplitude is None
    assert expected_intensity(scan).sum() / 300 == pytest.approx(dose, rel=1e-6)


def test_frames_keep_their_relative_brightness() -> None:
    base = base_set()
    before = expected_intensity(base).sum(axis=(1, 2))
    after = expected_intensity(with_dose(base, dose_factor(base, 1e4))).sum(axis=(1, 2))
    np.testing.assert_allclose(after / after.mean(), before / before.mean(), rtol=1e-6)
    assert before.max() > 1.2 * before.min()


def test_the_unit_of_the_given_probe_does_not_matter() -> None:
    base = base_set()
    other = replace(base, probe=base.probe * np.complex64(1024))
    first, second = (with_dose(scan, dose_factor(scan, 1e4)) for scan in (base, other))
    np.testing.assert_allclose(first.probe, second.probe, rtol=1e-6)


@pytest.mark.parametrize("dose", [0.0, -1.0, float("nan"), float("inf")])
def test_a_dose_that_is_not_positive_is_refused(dose: float) -> None:
    with pytest.raises(StudyError, match=r"dose: must be > 0 photons per frame, got"):
        dose_factor(base_set(), dose)


def test_a_dark_object_is_refused() -> None:
    base = base_set()
    dark = replace(base, obj=np.zeros_like(base.obj))
    with pytest.raises(StudyError, match=r"exit waves have a mean power of 0; no dose can be reached"):
        dose_factor(dark, 1000)


def counts_of(base: BaseSet, *, seed: int = 42, dose: int = 1000) -> NDArray[np.int64]:
    scan = with_dose(base, dose_factor(base, 1000))
    return np.concatenate(list(draw_counts(scan, seed=seed, dose=dose)))


def test_counts_follow_poisson_statistics() -> None:
    base = base_set(frames=BLOCK_FRAMES + 44)
    expected = expected_intensity(with_dose(base, dose_factor(base, 1000)))
    counts = counts_of(base)
    assert counts.dtype == np.int64
    assert counts.min() >= 0
    pull = (counts - expected) / np.sqrt(expected)
    # 19,200 pixels: the standard errors are 0.007 for the mean and 0.010 for the variance.
    assert abs(pull.mean()) < 0.03
    assert pull.var() == pytest.approx(1, abs=0.05)
    # The mean of sqrt(n) lies below the root of the mean, by about 1 / (8 sqrt(rate)).
    assert np.sqrt(counts).mean() < np.sqrt(expected).mean() - 0.01


def test_seed_and_dose_name_the_draw() -> None:
    base = base_set(frames=20)
    np.testing.assert_array_equal(counts_of(base), counts_of(base))
    assert not np.array_equal(counts_of(base), counts_of(base, seed=43))
    assert not np.array_equal(counts_of(base), counts_of(base, dose=1001))


def test_each_block_has_a_stream_of_its_own() -> None:
    base = base_set(frames=BLOCK_FRAMES + 10)
    scan = with_dose(base, dose_factor(base, 1000))
    first_alone = replace(scan, positions_px=scan.positions_px[:BLOCK_FRAMES])
    whole = list(draw_counts(scan, seed=42, dose=1000))
    np.testing.assert_array_equal(next(draw_counts(first_alone, seed=42, dose=1000)), whole[0])
    twin = replace(scan, positions_px=np.concatenate([scan.positions_px[:BLOCK_FRAMES]] * 2))
    first, second = draw_counts(twin, seed=42, dose=1000)
    assert not np.array_equal(first, second)
