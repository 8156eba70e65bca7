"""What no frame can tell is fixed once: scale, phase and phase ramp of the object."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import factories
import fly64_dose_overlap as fdo
import tiny_scan
from fly64_dose_overlap.files.dataset import BaseSet
from fly64_dose_overlap.physics.illumination import illumination
from fly64_dose_overlap.provenance import steps
from fly64_dose_overlap.scores.limit import PARTS
from fly64_dose_overlap.study.base import make_synthetic_base
from fly64_dose_overlap.study.dose import Simulation, draw_counts
from fly64_dose_overlap.study.gauge import LIT_FRACTION_OF_MAXIMUM, in_standard_gauge, lit_pixels


@pytest.fixture(scope="module")
def base() -> BaseSet:
    shape = {"frame_side_px": tiny_scan.SIDE, "field_px": tiny_scan.FIELD_PX, "step_px": tiny_scan.STEP_PX}
    made = make_synthetic_base(factories.study_params().base.model_copy(update=shape))
    # A probe that ends inside its frame and below the Nyquist frequency.
    y, x = np.indices((tiny_scan.SIDE, tiny_scan.SIDE)) - tiny_scan.SIDE / 2
    probe = np.exp(-(y**2 + x**2) / 14 + 0.05j * (y**2 + x**2) + 0.3j * y)
    return replace(made, probe=np.stack([probe, 0.2 * (x + 1j * y) * probe]).astype(np.complex64))


def scaled(base: BaseSet, factor: complex) -> BaseSet:
    """Return the same frames from an object times a factor and a probe over it."""
    return replace(
        base,
        obj=(base.obj * factor).astype(np.complex64),
        probe=(base.probe / factor).astype(np.complex64),
    )


def tilted(base: BaseSet, slopes: tuple[float, float]) -> BaseSet:
    """Return the same frames from an object with a phase ramp and a probe with the opposite one."""

    def ramp(shape: tuple[int, ...]) -> np.ndarray:
        y, x = np.indices(shape[-2:])
        return np.exp(1j * (slopes[0] * y + slopes[1] * x))

    return replace(
        base,
        obj=(base.obj * ramp(base.obj.shape)).astype(np.complex64),
        probe=(base.probe * np.conj(ramp(base.probe.shape))).astype(np.complex64),
    )


GAUGES: dict[str, Callable[[BaseSet], BaseSet]] = {
    "as it is": lambda base: base,
    "a thirtieth": lambda base: scaled(base, 1 / 30),
    "thirty times": lambda base: scaled(base, 30),
    "turned by two": lambda base: scaled(base, np.exp(2j)),
    "tilted": lambda base: tilted(base, (0.11, -0.07)),
    "all at once": lambda base: tilted(scaled(base, 3 * np.exp(-1j)), (-0.2, 0.05)),
}


@pytest.mark.parametrize("name", list(GAUGES))
def test_every_gauge_of_the_same_frames_gives_the_same_object(base: BaseSet, name: str) -> None:
    wanted = in_standard_gauge(base)
    found = in_standard_gauge(GAUGES[name](base))
    assert found.obj.dtype == found.probe.dtype == np.complex64
    np.testing.assert_allclose(found.obj, wanted.obj, rtol=0, atol=2e-5)
    assert np.linalg.norm(np.abs(found.probe) - np.abs(wanted.probe)) < 1e-5 * np.linalg.norm(wanted.probe)


@pytest.mark.parametrize("name", list(GAUGES))
def test_no_frame_is_changed(base: BaseSet, name: str) -> None:
    given = GAUGES[name](base)
    frames = slice(0, len(base.positions_px))
    before = Simulation(given).expected(frames)
    after = Simulation(in_standard_gauge(given)).expected(frames)
    assert np.linalg.norm(after - before) < 1e-5 * np.linalg.norm(before)


@pytest.mark.parametrize("name", list(GAUGES))
def test_the_lit_object_has_mean_modulus_one_and_neither_phase_nor_ramp(base: BaseSet, name: str) -> None:
    found = in_standard_gauge(GAUGES[name](base))
    rows, columns = found.obj.shape
    light = illumination(found.probe, np.rint(found.positions_px), (rows, columns))
    lit = light > LIT_FRACTION_OF_MAXIMUM * light.max()
    obj = found.obj.astype(np.complex128)
    assert np.abs(obj[lit]).mean() == pytest.approx(1, abs=1e-5)
    assert np.angle(obj[lit].sum()) == pytest.approx(0, abs=1e-5)
    for axis in (0, 1):
        here, there = np.moveaxis(lit, axis, 0)[:-1], np.moveaxis(lit, axis, 0)[1:]
        turned = np.moveaxis(obj, axis, 0)
        step = np.sum((turned[1:] * turned[:-1].conj())[here & there])
        assert np.angle(step) == pytest.approx(0, abs=1e-5)


def test_twice_is_once(base: BaseSet) -> None:
    once = in_standard_gauge(base)
    np.testing.assert_allclose(in_standard_gauge(once).obj, once.obj, rtol=0, atol=1e-6)


def test_the_change_is_recorded(base: BaseSet) -> None:
    found = in_standard_gauge(scaled(in_standard_gauge(base), 2 * np.exp(0.5j)))
    assert steps(found.record)[-1] == "gauge"
    recorded = found.record["data_transformations"][-1]["parameters"]
    assert recorded["modulus"] == pytest.approx(2, rel=1e-4)
    assert recorded["phase_rad"] == pytest.approx(0.5, abs=1e-4)
    assert recorded["ramp_rad_per_px"] == pytest.approx([0, 0], abs=1e-5)


def test_an_object_without_light_is_left_as_it_is(base: BaseSet) -> None:
    dark = replace(base, obj=np.zeros_like(base.obj))
    assert in_standard_gauge(dark) is dark


@pytest.mark.parametrize("factor", [1e-25, 1e-18, 1e18, 1e25])
def test_a_probe_of_any_unit_gives_the_same_object(base: BaseSet, factor: float) -> None:
    found = in_standard_gauge(replace(base, probe=(base.probe.astype(complex) * factor).astype(np.complex64)))
    np.testing.assert_allclose(found.obj, in_standard_gauge(base).obj, rtol=0, atol=1e-6)


def test_scores_are_those_of_every_gauge_of_the_truth(base: BaseSet) -> None:
    scan, truth = scan_of(base)
    result = fdo.reconstruct(scan, "ml", epochs=3)
    wanted = fdo.score(result, truth)
    for change in GAUGES.values():
        found = fdo.score(result, change(replace(base, obj=truth)).obj)
        for score in ("phase_psnr_db", "amplitude_psnr_db", "phase_ssim", "complex_nrmse", "frc50_nyquist"):
            assert getattr(found, score) == pytest.approx(getattr(wanted, score), rel=1e-4)


def test_the_limit_is_that_of_every_gauge_of_probe_and_truth() -> None:
    scan, truth = fdo.simulate(1e4, seed=1, field_px=20, step_px=5, frame_side_px=32, defocus_um=200)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the probe carries")
        given = scaled(replace(tiny_scan.base_set(), obj=truth, probe=scan.probe), 3 * np.exp(-1j))
        wanted, found = fdo.limit(scan, truth), fdo.limit(replace(scan, probe=given.probe), given.obj)
    for part in PARTS:
        assert found.unbiased[part] == pytest.approx(wanted.unbiased[part], rel=1e-3)
        np.testing.assert_allclose(found.bayesian[part], wanted.bayesian[part], rtol=1e-3)
    assert found.peak == pytest.approx(wanted.peak, rel=1e-4)


def test_a_file_in_any_gauge_gives_the_same_reconstruction(base: BaseSet, tmp_path: Path) -> None:
    scan, truth = scan_of(base)
    found: list[np.ndarray] = []
    for change in GAUGES.values():
        given = change(replace(base, obj=truth, probe=scan.probe))
        y, x = given.positions_px.T
        arrays: dict[str, Any] = {"counts": scan.counts, "objectGuess": given.obj, "probeGuess": given.probe}
        np.savez(tmp_path / "mine.npz", xcoords=x, ycoords=y, **arrays)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found.append(fdo.reconstruct(fdo.read_scan(tmp_path / "mine.npz"), "ml", epochs=2).obj)
        apart = np.abs(found[-1] - found[0])[lit_pixels(scan.probe, scan.positions_px, scan.object_shape)]
        # A third iteration may decide otherwise at a difference in the last digit.
        assert np.sqrt(np.mean(apart**2)) < 1e-5


def scan_of(base: BaseSet) -> tuple[fdo.Scan, np.ndarray]:
    """Return photons counted of the base set, and the object."""
    dosed = Simulation(in_standard_gauge(base)).with_dose(1e4)[0]
    counts = np.concatenate(list(draw_counts(dosed, seed=1, dose=10000))).astype(np.float32)
    rows, columns = base.obj.shape
    return fdo.Scan(counts, dosed.probe, base.positions_px, (rows, columns)), dosed.obj
