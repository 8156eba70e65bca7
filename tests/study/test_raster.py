"""Scan positions: order, pitch, jitter and limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.study.raster import raster_scan


def test_without_jitter_it_is_a_serpentine_raster() -> None:
    positions = raster_scan(4.0, 2.0, 0.0, generator(1, "scan"), origin_px=(10.0, 20.0))
    assert positions.dtype == np.float64
    np.testing.assert_array_equal(
        positions,
        [(10, 20), (10, 22), (10, 24), (12, 24), (12, 22), (12, 20), (14, 20), (14, 22), (14, 24)],
    )


def test_a_raster_that_does_not_fill_the_field_is_centred() -> None:
    positions = raster_scan(5.0, 2.0, 0.0, generator(1, "scan"))
    assert np.unique(positions).tolist() == [0.5, 2.5, 4.5]


def test_jitter_has_its_standard_deviation_and_its_limit() -> None:
    jitter_px = 0.5
    ideal = raster_scan(500.0, 5.0, 0.0, generator(1, "scan"), origin_px=(40.0, 40.0))
    inside = ((ideal > 40.0) & (ideal < 540.0)).all(axis=1)
    shift = (raster_scan(500.0, 5.0, jitter_px, generator(1, "scan"), origin_px=(40.0, 40.0)) - ideal)[inside]
    # About 2e4 draws: the standard error of the deviation is 0.5 %; the cut takes another 0.7 %.
    np.testing.assert_allclose(shift.std(axis=0), jitter_px, rtol=0.03)
    assert abs(shift.mean()) < 0.02
    assert 2.8 * jitter_px < abs(shift).max() <= 3 * jitter_px + 1e-9
    assert abs(float(np.mean(np.prod(shift / shift.std(axis=0), axis=1)))) < 0.05


@given(
    field_px=st.floats(1, 200),
    steps=st.floats(1, 12),
    jitter=st.floats(0, 1 / 6.001),
    origin_px=st.floats(-50, 50),
)
def test_every_position_lies_in_the_field(
    field_px: float, steps: float, jitter: float, origin_px: float
) -> None:
    step_px = field_px / steps
    rng = generator(1, "scan")
    positions = raster_scan(field_px, step_px, jitter * field_px, rng, origin_px=(origin_px, -origin_px))
    assert len(positions) == (math.floor(field_px / step_px) + 1) ** 2
    inside = positions - (origin_px, -origin_px)
    assert inside.min() >= -1e-9
    assert inside.max() <= field_px + 1e-9


def test_the_seed_alone_decides() -> None:
    first = raster_scan(20.0, 2.0, 0.3, generator(1, "scan"))
    np.testing.assert_array_equal(first, raster_scan(20.0, 2.0, 0.3, generator(1, "scan")))
    assert not np.array_equal(first, raster_scan(20.0, 2.0, 0.3, generator(2, "scan")))


@pytest.mark.parametrize("step_px", [0.0, 21.0, math.nan])
def test_a_pitch_out_of_range_is_refused(step_px: float) -> None:
    with pytest.raises(StudyError, match=r"step_px: must be positive and at most field_px=20.0, got"):
        raster_scan(20.0, step_px, 0.3, generator(1, "scan"))


@pytest.mark.parametrize("jitter_px", [-0.1, 4.0])
def test_a_jitter_out_of_range_is_refused(jitter_px: float) -> None:
    with pytest.raises(StudyError, match=r"jitter_px: must lie between 0 and a sixth of field_px=20.0, got"):
        raster_scan(20.0, 2.0, jitter_px, generator(1, "scan"))
