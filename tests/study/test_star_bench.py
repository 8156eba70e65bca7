"""The star bench: the object, the probe and the rasters that the peers were measured on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.star_bench_counts import star_bench_region, star_bench_scan
from numpy.typing import NDArray
from scipy.spatial import KDTree

from fly64_dose_overlap import provenance
from fly64_dose_overlap.config import NOTHING_TO_MEND, BaseParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import BaseSet, read_scan, write_base, write_scan
from fly64_dose_overlap.physics.illumination import illumination
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.study.base import make_synthetic_base
from fly64_dose_overlap.study.dose import draw_counts
from fly64_dose_overlap.study.star_bench import bench_star, make_star_bench

VIEWS = ("baseline", "dense", "sparse")


@pytest.fixture(scope="module")
def sets() -> dict[str, BaseSet]:
    return {view: make_star_bench(view, 42) for view in VIEWS}


@pytest.fixture(scope="module")
def sparse() -> Scan:
    return star_bench_scan("sparse", 1000, 42)[0]


def _intensity(base: BaseSet) -> NDArray[np.float64]:
    return np.abs(base.probe[0].astype(np.complex128)) ** 2


def test_object_has_36_spokes_of_one_material(sets: dict[str, BaseSet]) -> None:
    obj = sets["baseline"].obj
    modulus, phase = np.abs(obj), np.angle(obj)
    assert obj.shape == (320, 320)
    assert (modulus.min(), modulus.max()) == (pytest.approx(0.7), 1)
    assert (phase.min(), phase.max()) == (pytest.approx(-1), 0)
    np.testing.assert_allclose(1 - modulus, -0.3 * phase, atol=1e-6)
    y, x = np.mgrid[:320, :320] - 159.5
    ring = np.abs(np.hypot(y, x) - 75) < 12
    harmonics = [abs(np.sum(phase[ring] * np.exp(-1j * n * np.arctan2(y, x)[ring]))) for n in range(1, 37)]
    assert int(np.argmax(harmonics)) + 1 == 36
    assert phase[ring].mean() == pytest.approx(-0.5, abs=0.01)


@pytest.mark.parametrize(("radius", "thickness"), [(2, 0), (15, 0.5), (30, 0), (45, 0.5), (90, 0), (152, 0)])
def test_object_has_a_hub_gaps_and_a_rim(radius: float, thickness: float) -> None:
    y, x = np.mgrid[:320, :320] - 159.5
    ring = np.abs(np.hypot(y, x) - radius) < 0.8
    assert -np.angle(bench_star(320)[ring]).mean() == pytest.approx(thickness, abs=0.02)


def test_object_does_not_hang_on_the_rounding_of_angles(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = bench_star(64)
    sine = np.sin
    for error in (1e-13, -1e-13):
        monkeypatch.setattr(np, "sin", lambda angle, error=error: sine(angle) + error)
        np.testing.assert_array_equal(bench_star(64), exact)


def test_probe_holds_its_power_within_the_known_radii(sets: dict[str, BaseSet]) -> None:
    power = _intensity(sets["baseline"])
    assert power.sum() == pytest.approx(1, abs=1e-6)
    radius = np.hypot(*(np.mgrid[:64, :64] - 32)).ravel()
    order = np.argsort(radius, kind="stable")
    inside = np.cumsum(power.ravel()[order])
    found = [float(np.interp(part, inside, radius[order])) for part in (0.5, 0.8, 0.9, 0.95)]
    assert found == pytest.approx([8.94, 12.37, 14.29, 16.12], abs=0.1)


def test_probe_is_an_annulus_of_soft_rims_in_the_pupil(sets: dict[str, BaseSet]) -> None:
    pupil = np.abs(np.fft.fft2(sets["baseline"].probe[0]))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64, 1 / 64), np.fft.fftfreq(64, 1 / 64)))
    plateau = np.median(pupil[np.abs(frequency - 7) < 1])
    assert pupil[frequency < 2].max() < 0.1 * plateau
    assert pupil[frequency > 13].max() < 0.05 * plateau
    assert np.median(pupil[np.abs(frequency - 10) < 0.3]) == pytest.approx(0.5 * plateau, rel=0.3)


@pytest.mark.parametrize(
    ("view", "frames", "pitch_px", "neighbour_px", "photons_per_pixel"),
    [
        ("baseline", 2500, 5.0, 4.26, 5111.2),
        ("dense", 784, 8.92, 6.47, 1609.5),
        ("sparse", 169, 19.6, 17.2, 334.5),
    ],
)
def test_rasters_give_the_known_spacing_and_fluence(
    sets: dict[str, BaseSet],
    view: str,
    frames: int,
    pitch_px: float,
    neighbour_px: float,
    photons_per_pixel: float,
) -> None:
    """Fluences are those of the test case at 1e5 detected photons per frame."""
    base = sets[view]
    positions = base.positions_px
    assert positions.shape == (frames, 2)
    lines = round(frames**0.5)
    assert np.ptp(positions, axis=0) == pytest.approx([(lines - 1) * pitch_px] * 2, abs=6)
    np.testing.assert_allclose(positions.mean(axis=0), 160, atol=0.5)
    nearest = KDTree(positions).query(positions, k=2)[0][:, 1]
    assert nearest.mean() == pytest.approx(neighbour_px, rel=0.06)
    # Of 130,424 photons in the probe 1e5 leave the object.
    fluence = illumination(base.probe * np.sqrt(130424), positions, (320, 320))
    assert fluence[48:272, 48:272].mean() == pytest.approx(photons_per_pixel, rel=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_coarser_rasters_keep_distinct_frames_of_the_scan(seed: int) -> None:
    scan = make_star_bench("baseline", seed)
    kept_frames: dict[str, int] = {"dense": 784, "sparse": 169}
    for view, frames in kept_frames.items():
        kept = make_star_bench(view, seed)
        assert len(kept.scan_index) == frames
        assert np.all(np.diff(kept.scan_index) > 0)
        np.testing.assert_array_equal(kept.positions_px, scan.positions_px[kept.scan_index])


def test_seed_draws_the_jitter_alone(sets: dict[str, BaseSet]) -> None:
    base, same, other = sets["baseline"], make_star_bench("baseline", 42), make_star_bench("baseline", 43)
    np.testing.assert_array_equal(base.positions_px, same.positions_px)
    for name in ("obj", "probe"):
        np.testing.assert_array_equal(getattr(base, name), getattr(other, name))
    moved = base.positions_px - other.positions_px
    assert moved.std() == pytest.approx(0.5 * np.sqrt(2), rel=0.05)


def test_sets_obey_the_data_contract(sets: dict[str, BaseSet], tmp_path: Path) -> None:
    for view, base in sets.items():
        write_base(tmp_path / f"{view}.npz", base)
        record = json.loads(provenance.dumps(base.record))
        assert record["additional_parameters"] == {"object_kind": "star", "seed": 42, "source": "star-bench"}
        assert record["data_transformations"][0]["parameters"]["view"] == view
        assert record["physics_parameters"]["defocus_m"] == -1.85e-3


def test_base_source_star_bench_gives_the_baseline_raster(sets: dict[str, BaseSet]) -> None:
    params = BaseParams(
        source="star-bench",
        frames="auto",
        fields=None,
        counts_per_photon=None,
        mend=NOTHING_TO_MEND,
        noise="counts",
        seed=42,
        frame_side_px=64,
        object_kind="texture",
        field_px=480.0,
        step_px=3.0,
        jitter_px=0.1,
        defocus_um=910.0,
    )
    made = make_synthetic_base(params)
    for name in ("obj", "probe", "positions_px", "scan_index"):
        np.testing.assert_array_equal(getattr(made, name), getattr(sets["baseline"], name))


def test_rasters_share_the_counts_of_the_scans_frames(sets: dict[str, BaseSet], sparse: Scan) -> None:
    scan = replace(sets["baseline"], probe=sparse.probe)
    counts = next(draw_counts(scan, seed=42, dose=1000))
    shared = sparse.scan_index[sparse.scan_index < len(counts)]
    assert len(shared) > 10
    np.testing.assert_array_equal(sparse.counts[: len(shared)], counts[shared])
    # 2 % less than with a bilinear object, which loses light at the edges of the spokes.
    assert np.sum(np.abs(sparse.probe) ** 2) == pytest.approx(1279.59, rel=1e-4)


def test_dataset_is_written_and_says_how_it_was_made(sparse: Scan, tmp_path: Path) -> None:
    write_scan(tmp_path / "sparse.npz", sparse, make_star_bench("sparse", 42).obj)
    again = read_scan(tmp_path / "sparse.npz")
    np.testing.assert_array_equal(again.scan_index, make_star_bench("sparse", 42).scan_index)
    assert provenance.steps(again.record) == ["star-bench", "simulate", "star-bench"]
    physics = again.record["physics_parameters"]
    assert physics["photons_per_frame_nominal"] == 1000
    photons = again.counts[:].sum(axis=(1, 2), dtype=np.float64)
    assert physics["photons_per_frame_measured"] == pytest.approx(photons.mean(), rel=1e-9)
    assert photons.mean() == pytest.approx(1000, abs=25)


def test_region_is_the_same_square_for_all_rasters() -> None:
    region = star_bench_region()
    assert region.rectangle == (slice(48, 272), slice(48, 272))
    assert region.pixels == 224 * 224
    assert region.mask.shape == (320, 320)


def test_bad_arguments_are_refused() -> None:
    wrong: Any = "sparser"
    with pytest.raises(
        StudyError, match="star bench: view must be one of baseline, dense, sparse, got 'sparser'"
    ):
        make_star_bench(wrong, 42)
    with pytest.raises(StudyError, match="dose: must be > 0 photons per frame, got 0"):
        star_bench_scan("sparse", 0, 42)
