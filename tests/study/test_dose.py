"""Expected intensity against a NumPy twin, the dose factor, and the Poisson draw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fly64_dose_overlap import parallel
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import BaseSet
from fly64_dose_overlap.study.dose import BLOCK_FRAMES, Simulation, draw_counts

ROWS, COLUMNS = 21, 24


def base_set(side: int = 8, frames: int = 12, *, seed: int = 0) -> BaseSet:
    rng = np.random.default_rng(seed)
    low, high = side // 2, np.array([ROWS, COLUMNS]) - side + side // 2
    positions_px = rng.uniform(low, high, (frames, 2))
    positions_px[:4] = [[low, low], high, [low + 1.5, high[1]], [low + 2, low + 0.25]]
    return BaseSet(
        obj=(rng.normal(size=(ROWS, COLUMNS)) + 1j * rng.normal(size=(ROWS, COLUMNS))).astype(np.complex64),
        probe=rng.normal(size=(2, side, side, 2)).astype(np.float32).view(np.complex64)[..., 0],
        positions_px=positions_px,
        scan_index=np.arange(frames),
        record={},
        amplitude=np.ones((frames, side, side), np.float32),
    )


def exit_waves(base: BaseSet, frame: int) -> NDArray[np.complex128]:
    """Return the window at the whole position times each mode, evaluated wave by wave at the rest."""
    side = base.probe.shape[-1]
    whole = np.rint(base.positions_px[frame]).astype(int)
    (top, left), rest = whole - side // 2, base.positions_px[frame] - whole
    # Row r of each matrix evaluates the probe's Fourier series at r less the shift.
    frequency = np.fft.fftfreq(side)
    rows, columns = (
        np.exp(2j * np.pi * np.outer(np.arange(side) - shift, frequency)) @ np.fft.fft(np.eye(side)) / side
        for shift in rest
    )
    probe = rows @ base.probe.astype(np.complex128) @ columns.T
    return probe * base.obj[top : top + side, left : left + side]


def expected_of(base: BaseSet) -> NDArray[np.float64]:
    simulation = Simulation(base)
    return np.concatenate([simulation.expected(block) for block in simulation.blocks()])


def with_dose(base: BaseSet, dose: float) -> BaseSet:
    return Simulation(base).with_dose(dose)[0]


@pytest.mark.parametrize("side", [8, 9])
def test_intensity_is_that_of_the_numpy_twin(side: int) -> None:
    base = base_set(side)
    waves = np.stack([exit_waves(base, frame) for frame in range(len(base.positions_px))])
    far_field = np.fft.fftshift(np.fft.fft2(waves, norm="ortho"), axes=(-2, -1))
    intensity = expected_of(base)
    assert intensity.dtype == np.float64
    np.testing.assert_allclose(intensity, (np.abs(far_field) ** 2).sum(axis=1), rtol=1e-11, atol=1e-11)


def test_the_far_field_keeps_the_energy() -> None:
    base = base_set()
    power = [np.sum(np.abs(exit_waves(base, frame)) ** 2) for frame in range(len(base.positions_px))]
    np.testing.assert_allclose(expected_of(base).sum(axis=(1, 2)), power, rtol=1e-12)


def test_flat_object_and_probe_put_all_photons_into_the_centre_pixel() -> None:
    flat = base_set()
    flat = replace(flat, obj=np.ones_like(flat.obj), probe=np.full_like(flat.probe, 2))
    expected = np.zeros((8, 8))
    expected[4, 4] = 2 * 4 * 64
    np.testing.assert_allclose(expected_of(flat), np.broadcast_to(expected, (12, 8, 8)), atol=1e-10)


def test_any_slice_of_frames_gives_their_intensity() -> None:
    base = base_set(frames=2 * BLOCK_FRAMES + 3)
    found = Simulation(base).expected(slice(250, 260))
    np.testing.assert_allclose(found, expected_of(base)[250:260], rtol=1e-12)


def test_blocks_cover_every_frame_once() -> None:
    frames = np.arange(2 * BLOCK_FRAMES + 3)
    blocks = [frames[block] for block in Simulation(base_set(frames=len(frames))).blocks()]
    np.testing.assert_array_equal(np.concatenate(blocks), frames)
    assert [len(block) for block in blocks] == [BLOCK_FRAMES, BLOCK_FRAMES, 3]


@pytest.mark.parametrize("dose", [0.5, 1000, 10**12])
def test_the_mean_frame_expects_the_dose(dose: float) -> None:
    base = base_set(frames=300)
    scan, factor = Simulation(base).with_dose(dose)
    assert scan.probe.dtype == np.complex64
    np.testing.assert_allclose(scan.probe, base.probe * factor, rtol=1e-6)
    assert scan.amplitude is None
    assert expected_of(scan).sum() / 300 == pytest.approx(dose, rel=1e-6)


def test_frames_keep_their_relative_brightness() -> None:
    base = base_set()
    before = expected_of(base).sum(axis=(1, 2))
    after = expected_of(with_dose(base, 1e4)).sum(axis=(1, 2))
    np.testing.assert_allclose(after / after.mean(), before / before.mean(), rtol=1e-6)
    assert before.max() > 1.2 * before.min()


def test_the_unit_of_the_given_probe_does_not_matter() -> None:
    base = base_set()
    other = replace(base, probe=base.probe * np.complex64(1024))
    first, second = (with_dose(scan, 1e4) for scan in (base, other))
    np.testing.assert_allclose(first.probe, second.probe, rtol=1e-6)


@pytest.mark.parametrize("dose", [0.0, -1.0, float("nan"), float("inf")])
def test_a_dose_that_is_not_positive_is_refused(dose: float) -> None:
    with pytest.raises(StudyError, match=r"dose: must be > 0 photons per frame, got"):
        with_dose(base_set(), dose)


def test_a_dark_object_is_refused() -> None:
    base = base_set()
    dark = replace(base, obj=np.zeros_like(base.obj))
    with pytest.raises(StudyError, match=r"exit waves have a mean power of 0; no dose can be reached"):
        with_dose(dark, 1000)


def counts_of(base: BaseSet, *, seed: int = 42, dose: int = 1000) -> NDArray[np.int64]:
    scan = with_dose(base, 1000)
    return np.concatenate(list(draw_counts(scan, seed=seed, dose=dose)))


def test_counts_follow_poisson_statistics() -> None:
    base = base_set(frames=BLOCK_FRAMES + 44)
    expected = expected_of(with_dose(base, 1000))
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
    scan = with_dose(base, 1000)
    first_alone = replace(scan, positions_px=scan.positions_px[:BLOCK_FRAMES])
    whole = list(draw_counts(scan, seed=42, dose=1000))
    np.testing.assert_array_equal(next(draw_counts(first_alone, seed=42, dose=1000)), whole[0])
    twin = replace(scan, positions_px=np.concatenate([scan.positions_px[:BLOCK_FRAMES]] * 2))
    first, second = draw_counts(twin, seed=42, dose=1000)
    assert not np.array_equal(first, second)


def test_one_thread_and_two_draw_the_same_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_set(frames=3 * BLOCK_FRAMES)
    found: list[bytes] = []
    for threads in (1, 2):
        monkeypatch.setattr(parallel, "available_threads", lambda threads=threads: threads)
        found.append(counts_of(base).tobytes())
    assert found[0] == found[1]
