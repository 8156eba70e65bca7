"""Photons that fall on the object."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.physics.fluence import fluence_map, fluence_summary


class TestFluence:
    PROBE = np.random.default_rng(5).normal(size=(8, 8)) + 1j * np.random.default_rng(6).normal(size=(8, 8))

    def test_equals_the_sum_of_shifted_probes(self) -> None:
        positions_px = np.array([[10, 12], [11, 12], [20, 17]], dtype=np.float64)
        expected = np.zeros((30, 40))
        for y, x in positions_px.astype(int):
            expected[y - 4 : y + 4, x - 4 : x + 4] += np.abs(self.PROBE) ** 2
        np.testing.assert_allclose(fluence_map(self.PROBE, positions_px, (30, 40)), expected, atol=1e-9)

    def test_fractions_are_shared_bilinearly(self) -> None:
        between = fluence_map(self.PROBE, np.array([[10.25, 12.0]]), (30, 40))
        ends = [fluence_map(self.PROBE, np.array([[y, 12.0]]), (30, 40)) for y in (10.0, 11.0)]
        np.testing.assert_allclose(between, 0.75 * ends[0] + 0.25 * ends[1], atol=1e-9)

    @settings(max_examples=20, deadline=None)
    @given(arrays(np.float64, (6, 2), elements=st.floats(8, 22)))
    def test_photons_are_conserved(self, positions_px: np.ndarray) -> None:
        total = fluence_map(self.PROBE, positions_px, (32, 32)).sum()
        assert total == pytest.approx(6 * np.sum(np.abs(self.PROBE) ** 2))

    def test_uniform_scan_gets_dose_per_step_squared(self) -> None:
        axis = np.arange(20.0, 80.0, 2.0)
        positions_px = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
        dose = 1000.0
        probe = self.PROBE * np.sqrt(dose / np.sum(np.abs(self.PROBE) ** 2))
        summary = fluence_summary(probe, positions_px, (100, 100))
        assert summary["photons_per_pixel_median"] == pytest.approx(dose / 4, rel=0.3)
        assert summary["photons_per_pixel_mean"] == pytest.approx(dose / 4, rel=0.1)
        assert summary["photons_per_pixel_max"] >= summary["photons_per_pixel_median"]
        assert summary["covered_fraction"] == 1.0

    def test_holes_are_not_covered(self) -> None:
        corners = np.array([[10, 10], [10, 50], [50, 10], [50, 50]], dtype=np.float64)
        summary = fluence_summary(np.ones((8, 8)), corners, (60, 60))
        assert summary["covered_fraction"] == pytest.approx(4 * 20 / 41**2, rel=0.3)
        assert summary["photons_per_pixel_max"] == pytest.approx(1.0)
        assert summary["photons_per_pixel_median"] == pytest.approx(0.0, abs=1e-9)

    def test_edge_of_the_object(self) -> None:
        inside = fluence_map(np.ones((4, 4)), np.array([[0.0, 0.0], [9.0, 9.0]]), (10, 10))
        assert inside.sum() == pytest.approx(4 + 9)

    def test_refuses_positions_outside_the_object(self) -> None:
        with pytest.raises(StudyError, match="1 of 2 positions lie outside the 30x40 object"):
            fluence_map(self.PROBE, np.array([[10.0, 10.0], [10.0, 39.5]]), (30, 40))
