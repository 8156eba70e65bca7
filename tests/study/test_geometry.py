"""Discs, probe width and nearest neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.study.geometry import (
    disc_overlap,
    nearest_neighbours,
    probe_fwhm_px,
    resolve_diameter,
)

DISTANCE = st.floats(0, 1e3)
DIAMETER = st.floats(1e-2, 1e3)


def radius_grid(side: int, centre: tuple[float, float]) -> np.ndarray:
    y, x = np.indices((side, side), dtype=np.float64)
    return np.hypot(y - centre[0], x - centre[1])


class TestDiscOverlap:
    @pytest.mark.parametrize(
        ("distance_px", "fraction"),
        [(0, 1.0), (10, 0.672214), (14.142, 0.541912), (19.2, 0.391002), (20, 0.368193), (30, 0.118704)],
    )
    def test_reference_values(self, distance_px: float, fraction: float) -> None:
        assert disc_overlap(distance_px, 38.4) == pytest.approx(fraction, abs=6e-6)

    def test_half_diameter_is_two_thirds_less_a_triangle(self) -> None:
        assert disc_overlap(5.0, 10.0) == pytest.approx(2 / 3 - np.sqrt(3) / (2 * np.pi), abs=1e-14)

    def test_is_exactly_zero_from_the_diameter_on(self) -> None:
        assert disc_overlap([38.4, 38.5, 1e9], 38.4).tolist() == [0.0, 0.0, 0.0]

    @pytest.mark.parametrize("distance", [0.1, 0.7, 1.3, 1.9])
    def test_equals_the_integrated_lens(self, distance: float) -> None:
        half_chords, _ = quad(lambda x: 2 * np.sqrt(1 - x * x), distance / 2, 1)
        assert disc_overlap(distance, 2.0) == pytest.approx(2 * half_chords / np.pi, abs=1e-9)

    def test_keeps_the_shape(self) -> None:
        assert disc_overlap(np.zeros((2, 3, 4)), 1.0).shape == (2, 3, 4)

    @given(DISTANCE, DISTANCE, DIAMETER)
    def test_falls_with_distance_and_stays_a_fraction(
        self, one: float, two: float, diameter_px: float
    ) -> None:
        near, far = disc_overlap(sorted((one, two)), diameter_px)
        assert 0 <= far <= near <= 1

    @given(DISTANCE, DIAMETER, st.floats(0.1, 10))
    def test_depends_on_the_ratio_alone(self, distance_px: float, diameter_px: float, scale: float) -> None:
        scaled = disc_overlap(scale * distance_px, scale * diameter_px)
        assert scaled == pytest.approx(disc_overlap(distance_px, diameter_px), abs=1e-6)

    @pytest.mark.parametrize("diameter_px", [0.0, -1.0, np.nan, np.inf])
    def test_refuses_a_diameter_that_is_not_positive(self, diameter_px: float) -> None:
        with pytest.raises(StudyError, match="probe_diameter_px must be > 0"):
            disc_overlap(1.0, diameter_px)


class TestProbeWidth:
    @pytest.mark.parametrize("sigma_px", [3.0, 6.0, 9.0])
    def test_gaussian(self, sigma_px: float) -> None:
        radius = radius_grid(64, (31.3, 32.4))
        probe = np.exp(-(radius**2) / (4 * sigma_px**2)) * np.exp(0.3j * radius)
        assert probe_fwhm_px(probe[None]) == pytest.approx(2 * np.sqrt(2 * np.log(2)) * sigma_px, rel=0.02)

    def test_ring_is_measured_at_its_outer_rim(self) -> None:
        radius = radius_grid(64, (32, 32))
        ring = np.where((radius > 6) & (radius < 14), 1.0 + 1.0j, 0.0)
        assert probe_fwhm_px(ring[None]) == pytest.approx(28, abs=0.6)

    @pytest.mark.parametrize("spot_intensity", [0.0, 1.5, 5.0])
    def test_spot_on_the_axis_does_not_count(self, spot_intensity: float) -> None:
        radius = radius_grid(64, (32, 32))
        ring = np.exp(-(((radius - 12) / 3) ** 2))
        spot = spot_intensity * np.exp(-(radius**2))
        assert probe_fwhm_px(np.sqrt(ring + spot)[None]) == pytest.approx(
            2 * (12 + 3 * np.sqrt(np.log(2))), abs=0.2
        )

    def test_does_not_depend_on_scale(self) -> None:
        probe = np.exp(-(radius_grid(32, (16, 16)) ** 2) / 50)[None]
        assert probe_fwhm_px(1e3j * probe) == pytest.approx(probe_fwhm_px(probe))

    def test_probe_without_an_edge_has_no_width(self) -> None:
        assert probe_fwhm_px(np.ones((1, 16, 16), dtype=complex)) is None

    def test_width_is_that_of_all_modes_together(self) -> None:
        radius = radius_grid(64, (32, 32))
        modes = np.stack([np.where(radius < 6, 2, 0), np.where((radius >= 6) & (radius < 14), 2, 0)])
        assert probe_fwhm_px(modes) == pytest.approx(28, abs=0.6)

    @pytest.mark.parametrize(
        ("probe", "message"),
        [
            (np.zeros((1, 8, 8)), "must be finite and not zero, its power is 0"),
            (np.full((1, 8, 8), np.nan), "must be finite and not zero, its power is nan"),
            (np.ones((8, 8)), r"must have axes \(mode, y, x\), got shape \(8, 8\)"),
        ],
    )
    def test_refuses_what_is_no_probe(self, probe: np.ndarray, message: str) -> None:
        with pytest.raises(StudyError, match=f"probe: {message}"):
            probe_fwhm_px(probe)


class TestResolveDiameter:
    def test_parameter_comes_first(self) -> None:
        assert resolve_diameter(np.ones((1, 64, 64)), 20.0) == (20.0, "parameter")

    def test_measured_width(self) -> None:
        probe = np.exp(-(radius_grid(32, (16, 16)) ** 2) / 50)[None]
        diameter_px, source = resolve_diameter(probe, None)
        assert diameter_px == pytest.approx(probe_fwhm_px(probe), abs=1e-4)
        assert source == "full width at half maximum"

    def test_dose_does_not_change_the_diameter(self) -> None:
        probe = np.exp(-(radius_grid(32, (16, 16)) ** 2) / 50)[None].astype(np.complex64)
        found = {
            resolve_diameter((np.sqrt(dose) * probe).astype(np.complex64), None) for dose in (1e3, 7e3, 1e5)
        }
        assert len(found) == 1

    def test_share_of_the_frame_when_there_is_no_width(self) -> None:
        assert resolve_diameter(np.ones((1, 64, 64)), None) == (pytest.approx(38.4), "0.6 N")
        assert resolve_diameter(np.ones((1, 128, 128)), None)[0] == pytest.approx(76.8)


class TestNearestNeighbours:
    def test_equals_a_full_search(self) -> None:
        points = np.random.default_rng(1).uniform(0, 50, (200, 2))
        index, distance = nearest_neighbours(points, 7)
        full = np.linalg.norm(points[:, None] - points[None], axis=-1)
        np.testing.assert_array_equal(index, np.argsort(full, axis=1, kind="stable")[:, :7])
        np.testing.assert_allclose(distance, np.sort(full, axis=1)[:, :7], atol=1e-12)

    def test_ties_go_to_the_lower_index(self) -> None:
        raster = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0), indexing="ij"), -1).reshape(-1, 2)
        index, _ = nearest_neighbours(raster, 4)
        assert index[12].tolist() == [12, 7, 11, 13]

    def test_lists_itself_first_among_coincident_points(self) -> None:
        index, distance = nearest_neighbours(np.zeros((60, 2)), 3)
        assert index[:, 0].tolist() == list(range(60))
        assert np.all(index[:, 1:] != index[:, :1])
        assert np.all(distance == 0)

    def test_fewer_points_than_asked_for(self) -> None:
        index, _ = nearest_neighbours(np.array([[0.0, 0], [1, 0]]), 5)
        assert index.tolist() == [[0, 1], [1, 0]]

    def test_blocks_do_not_change_the_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        points = np.random.default_rng(3).uniform(0, 9, (100, 2))
        whole = nearest_neighbours(points, 4)
        monkeypatch.setattr("fly64_dose_overlap.study.geometry.BLOCK_ELEMENTS", 50)
        for one, two in zip(whole, nearest_neighbours(points, 4), strict=True):
            np.testing.assert_array_equal(one, two)
