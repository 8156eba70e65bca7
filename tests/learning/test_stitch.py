"""Stitching of canvases whose phases are unknown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fly64_dose_overlap.learning import stitch as stitching
from fly64_dose_overlap.learning.stitch import DENSE_LIMIT, Stitcher

SIDE = 12
SHAPE = (40, 44)


def make_object() -> NDArray[np.complex128]:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] / 5
    return (0.8 + 0.2 * np.sin(x)) * np.exp(0.6j * np.cos(y + x))


def raster(step: int, start: int = 0, stop: int = 33) -> NDArray[np.int64]:
    axis = np.arange(start, stop, step)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)


def cut(obj: NDArray[Any], origins_px: NDArray[np.int64], seed: int = 0) -> tuple[Any, NDArray[np.float64]]:
    """Return canvases with random phases, one beyond the object's edge, and their illumination."""
    rng = np.random.default_rng(seed)
    padded = np.pad(obj, SIDE, constant_values=1)
    corners = origins_px + SIDE
    canvases = np.array([padded[y : y + SIDE, x : x + SIDE] for y, x in corners])
    phases = np.exp(2j * np.pi * rng.random(len(canvases)))[:, None, None]
    return canvases * phases, rng.uniform(0.2, 1, canvases.shape)


def stitch(origins_px: NDArray[np.int64], obj: NDArray[Any]) -> NDArray[np.complex64]:
    canvases, illumination = cut(obj, origins_px)
    stitcher = Stitcher(origins_px, SIDE)
    half = len(origins_px) // 2
    stitcher.add([canvases[:half]], illumination[:half])
    stitcher.add([canvases[half:]], illumination[half:])
    return stitcher.merge(SHAPE)[0]


def assert_equal_up_to_a_phase(found: NDArray[Any], truth: NDArray[Any]) -> None:
    phase = np.vdot(found, truth)
    np.testing.assert_allclose(found * phase / abs(phase), truth, atol=1e-5)


@pytest.mark.parametrize("step", [4, 8])
def test_true_patches_with_random_phases_give_the_object(step: int) -> None:
    origins_px = raster(step)
    assert (len(origins_px) < DENSE_LIMIT) == (step == 8)
    obj = make_object()
    found = stitch(origins_px, obj)
    covered = np.zeros(SHAPE, bool)
    for y, x in origins_px:
        covered[y : y + SIDE, x : x + SIDE] = True
    assert_equal_up_to_a_phase(found[covered], obj[covered])
    if step == 8:
        assert np.all(stitch(origins_px[:1], obj)[SIDE:] == 1)


@pytest.mark.parametrize("copies", [3, 12])
def test_many_canvases_of_one_place_do_not_hide_the_next_place(copies: int) -> None:
    """More canvases share a place than each is compared with."""
    origins_px = np.repeat(raster(6, stop=20), copies, axis=0)
    obj = make_object()
    assert_equal_up_to_a_phase(stitch(origins_px, obj)[:30, :30], obj[:30, :30])


def test_canvases_may_hang_over_the_edge() -> None:
    origins_px = raster(7, start=-5, stop=40)
    assert (origins_px + SIDE > SHAPE).any()
    obj = make_object()
    assert_equal_up_to_a_phase(stitch(origins_px, obj), obj)


def test_canvases_off_the_grid_change_nothing() -> None:
    near, obj = raster(8), make_object()
    canvases, illumination = cut(obj, near)
    far = np.concatenate([near, [[-30, 5], [60, 60]]])
    stitcher = Stitcher(far, SIDE)
    stitcher.add([canvases], illumination)
    stitcher.add([np.ones((2, SIDE, SIDE), np.complex128)], np.ones((2, SIDE, SIDE)))
    found = stitcher.merge(SHAPE)[0]
    np.testing.assert_allclose(found, stitch(near, obj), atol=1e-6)


def test_parts_without_overlap_each_have_mean_phase_zero() -> None:
    origins_px = np.array([[0, 0], [0, 6], [26, 0], [26, 6]])
    canvases, illumination = cut(make_object(), origins_px)
    stitcher = Stitcher(origins_px, SIDE)
    stitcher.add([canvases], illumination)
    found = stitcher.merge(SHAPE)[0]
    for rows, members in ((slice(0, 12), (0, 1)), (slice(26, 38), (2, 3))):
        part = found[rows, :18]
        assert_equal_up_to_a_phase(part, make_object()[rows, :18])
        weight = np.zeros(part.shape)
        for member in members:
            left = origins_px[member, 1]
            weight[:, left : left + SIDE] += illumination[member] ** 2
        assert np.angle(np.sum(weight * part)) == pytest.approx(0, abs=1e-6)


def test_phases_of_the_last_layer_serve_all() -> None:
    origins_px = raster(6)
    canvases, illumination = cut(make_object(), origins_px)
    stitcher = Stitcher(origins_px, SIDE, layers=2)
    stitcher.add([2 * np.exp(0.4j) * canvases, canvases], illumination)
    first, last = stitcher.merge(SHAPE)
    covered = last != 1
    np.testing.assert_allclose(first[covered], 2 * np.exp(0.4j) * last[covered], rtol=1e-5)


def test_canvases_count_by_their_squared_illumination() -> None:
    values, weights = np.array([1, 4], np.complex128)[:, None, None], np.array([1.0, 3.0])[:, None, None]
    ones = np.ones((2, SIDE, SIDE))
    stitcher = Stitcher(np.zeros((2, 2), int), SIDE)
    stitcher.add([values * ones], weights * ones)
    found = stitcher.merge((SIDE, SIDE))[0]
    np.testing.assert_allclose(found, (1 + 9 * 4) / 10, rtol=1e-6)


def test_no_light_leaves_the_object_empty() -> None:
    stitcher = Stitcher(np.zeros((1, 2), int), SIDE)
    stitcher.add([np.full((1, SIDE, SIDE), 5 + 0j)], np.zeros((1, SIDE, SIDE)))
    assert np.all(stitcher.merge((SIDE, SIDE)) == 1)


def test_canvases_that_are_missing_are_noticed() -> None:
    with pytest.raises(RuntimeError, match="0 of 25 canvases were added"):
        Stitcher(raster(8), SIDE).merge(SHAPE)


def test_the_number_of_canvases_kept_in_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    obj = make_object()
    whole = stitch(raster(4), obj)
    monkeypatch.setattr(stitching, "CACHED_BYTES", 0)
    assert stitch(raster(4), obj).tobytes() == whole.tobytes()
