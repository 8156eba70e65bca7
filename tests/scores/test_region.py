"""The scored region: inside the scan and illuminated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.scores.region import edge_taper, scan_region

CORNERS = np.array([[2.0, 3.0], [8.0, 10.0]])


def test_lit_box_is_taken_whole_with_both_ends() -> None:
    region = scan_region(np.ones((12, 15)), CORNERS, 0.1)
    expected = np.zeros((12, 15), dtype=bool)
    expected[2:9, 3:11] = True
    assert np.array_equal(region.mask, expected)
    assert region.rectangle == (slice(2, 9), slice(3, 11))
    assert region.shape == (7, 8)
    assert (region.pixels, region.threshold, region.covered_fraction) == (56, 0.1, 1.0)


def test_fractional_positions_keep_the_pixels_between_them() -> None:
    region = scan_region(np.ones((12, 15)), np.array([[1.2, 3.0], [5.9, 4.0]]), 0.1)
    assert region.rectangle == (slice(2, 6), slice(3, 5))


def test_threshold_is_strict_and_relative_to_the_maximum_inside_the_box() -> None:
    illumination = np.full((12, 15), 5.0)
    illumination[0, 0] = 1e9
    illumination[2:9, 3] = 0.5
    illumination[5, 6] = 0.51
    region = scan_region(illumination, CORNERS, 0.1)
    assert region.rectangle == (slice(2, 9), slice(4, 11))
    assert region.mask[5, 6]
    assert region.pixels == 49
    assert region.covered_fraction == pytest.approx(49 / 56)


def test_positions_beyond_the_object_are_clipped() -> None:
    region = scan_region(np.ones((12, 15)), np.array([[-3.0, 2.0], [40.0, 4.0]]), 0.0)
    assert region.rectangle == (slice(0, 12), slice(2, 5))


def test_shape_of_another_grid_is_refused() -> None:
    region = scan_region(np.ones((12, 15)), CORNERS, 0.1)
    with pytest.raises(
        StudyError, match=r"prediction: must have the region's shape \(12, 15\), got \(15, 12\)"
    ):
        region.require_shape("prediction", np.ones((15, 12)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"illumination": np.zeros((12, 15))}, r"no light falls on the \(7, 8\) pixels inside the scan"),
        (
            {"positions_px": np.array([[2.3, 3.0], [2.6, 9.0]])},
            r"between the 2 scan positions, from \[2.3, 3.0\] to \[2.6, 9.0\] \(y, x\); keep more frames",
        ),
        ({"positions_px": CORNERS + 100}, "are positions in object pixels"),
        ({"positions_px": np.zeros((0, 2))}, r"must be \(frame, 2\) with at least one frame, got \(0, 2\)"),
        ({"positions_px": CORNERS[:, :1]}, r"must be \(frame, 2\) with at least one frame, got \(2, 1\)"),
        ({"positions_px": CORNERS * np.nan}, "positions_px: must be finite"),
        ({"illumination": -np.ones((12, 15))}, "illumination: must be finite and not negative"),
        ({"illumination": np.full((12, 15), np.nan)}, "illumination: must be finite and not negative"),
        ({"illumination": np.ones((12, 15), dtype=complex)}, r"must be real \(y, x\), got complex128"),
        ({"threshold": 1.0}, r"must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_input_is_refused(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"illumination": np.ones((12, 15)), "positions_px": CORNERS, "threshold": 0.1}
    with pytest.raises(StudyError, match=message):
        scan_region(**(good | change))


@pytest.mark.parametrize("length", [8, 9])
def test_taper_over_half_the_length_is_the_hann_window(length: int) -> None:
    n = np.arange(length) + 0.5
    np.testing.assert_allclose(edge_taper(length, length / 2), 0.5 - 0.5 * np.cos(2 * np.pi * n / length))
    assert edge_taper(20, 3)[3:-3].tolist() == [1.0] * 14
