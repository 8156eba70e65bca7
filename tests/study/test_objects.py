"""Test objects: range, reproducibility and structure in every part."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.study.objects import siemens_star, texture

SHAPE = (548, 548)
Draw = Callable[[tuple[int, int], np.random.Generator], NDArray[np.complex64]]
every_kind = pytest.mark.parametrize("draw", [siemens_star, texture])


def phase_spectrum(obj: NDArray[np.complex64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return spatial frequencies (cycles per pixel) and the windowed phase's power."""
    height, width = obj.shape
    phase = np.angle(obj).astype(np.float64)
    window = np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(np.fft.fft2((phase - phase.mean()) * window)) ** 2
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]), power


@every_kind
def test_transmission_stays_in_its_range(draw: Draw) -> None:
    obj = draw(SHAPE, generator(1, "object"))
    assert obj.shape == SHAPE
    assert obj.dtype == np.complex64
    modulus, phase = np.abs(obj), np.angle(obj)
    assert modulus.min() >= 0.7
    assert modulus.max() <= 1 + 1e-6
    assert np.ptp(modulus) > 0.15
    assert phase.min() >= -1.1
    assert phase.max() <= 1e-6
    assert 0.7 < np.ptp(phase) < 1.1


@every_kind
def test_the_seed_alone_decides(draw: Draw) -> None:
    first = draw((96, 80), generator(1, "object"))
    np.testing.assert_array_equal(first, draw((96, 80), generator(1, "object")))
    assert not np.array_equal(first, draw((96, 80), generator(2, "object")))


@every_kind
def test_the_global_generator_is_untouched(draw: Draw) -> None:
    before = repr(np.random.get_state())  # noqa: NPY002
    draw((96, 80), generator(1, "object"))
    assert repr(np.random.get_state()) == before  # noqa: NPY002


@every_kind
@pytest.mark.parametrize("seed", [1, 2, 42])
def test_both_halves_hold_the_same_kind_of_structure(draw: Draw, seed: int) -> None:
    phase = np.angle(draw(SHAPE, generator(seed, "object")))
    upper, lower = phase[: SHAPE[0] // 2], phase[SHAPE[0] // 2 :]
    assert upper.std() == pytest.approx(lower.std(), rel=0.15)
    slopes = [np.abs(np.diff(half, axis=1)).mean() for half in (upper, lower)]
    assert slopes[0] == pytest.approx(slopes[1], rel=0.15)


@every_kind
def test_no_window_of_one_frame_is_flat(draw: Draw) -> None:
    phase = np.angle(draw(SHAPE, generator(1, "object")))
    windows = [phase[y : y + 64, x : x + 64].std() for y in range(0, 484, 32) for x in range(0, 484, 32)]
    assert np.min(windows) > 0.1


@every_kind
def test_structure_reaches_from_low_to_high_frequencies(draw: Draw) -> None:
    frequency, power = phase_spectrum(draw(SHAPE, generator(1, "object")))
    total = power.sum()
    assert power[frequency < 0.03].sum() > 0.02 * total
    assert power[(frequency > 0.15) & (frequency < 0.3)].sum() > 0.01 * total
    assert 1e-5 * total < power[frequency > 0.4].sum() < 0.01 * total


def test_stars_hold_spokes_down_to_a_period_of_three_pixels() -> None:
    frequency, power = phase_spectrum(siemens_star(SHAPE, generator(1, "object")))
    density = [power[(frequency >= low) & (frequency < low + 0.03)].mean() for low in (0.3, 0.36, 0.45)]
    assert density[0] > 3 * density[2]


def test_texture_absorbs_and_shifts_alike_but_not_identically() -> None:
    obj = texture(SHAPE, generator(1, "object"))
    correlation = np.corrcoef(np.abs(obj).ravel(), np.angle(obj).ravel())[0, 1]
    assert 0.6 < correlation < 0.97


@every_kind
@pytest.mark.parametrize("shape", [(16, 16), (33, 200), (300, 17)])
def test_any_shape_works(draw: Draw, shape: tuple[int, int]) -> None:
    obj = draw(shape, generator(1, "object"))
    assert obj.shape == shape
    assert np.isfinite(obj).all()
    assert np.angle(obj).std() > 0.02


@every_kind
def test_a_tiny_shape_is_refused(draw: Draw) -> None:
    with pytest.raises(StudyError, match=r"shape: sides must be at least 16 px, got \(15, 64\)"):
        draw((15, 64), generator(1, "object"))
