"""What is wrong with the instrument is named by the frames alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.diagnosis import DEFOCUS_ERROR, DEFOCUS_UM, FALL, counts_of, drift_of, faulty

import fly64_dose_overlap as fdo
from fly64_dose_overlap.diagnosis import dead_pixels

SEED = 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (None, "nothing is surely wrong"),
        ("modes", "lacks modes: refine.probe: true, refine.modes: auto"),
        ("drift", "refine.positions: 1.0"),
        ("focus", "out of focus by "),
        ("dead pixels", "base.mend.bad_pixels: [["),
        ("fall", "refine.flux: 0.1"),
    ],
)
def test_a_fault_is_named(name: str | None, sentence: str) -> None:
    found = fdo.diagnose(faulty(name, SEED, 1e4))
    assert found.fault == name
    assert sentence in str(found)
    if name == "drift":
        angle = np.random.default_rng([SEED, 7]).uniform(0, 2 * np.pi)
        np.testing.assert_allclose(found.drift_px, drift_of(angle), atol=0.15)
    if name == "focus":
        assert found.distance_um is not None
        assert abs(found.distance_um) == pytest.approx(DEFOCUS_ERROR * DEFOCUS_UM, rel=0.1)
    if name == "fall":
        assert found.fall == pytest.approx(FALL, abs=0.03)


@pytest.mark.slow
def test_a_sound_scan_of_few_frames_is_sound() -> None:
    """A wider probe explains few frames better, and photons that were held out no better."""
    scan, _ = fdo.simulate(1e4, field_px=30, frame_side_px=32, defocus_um=200)
    assert fdo.diagnose(scan).fault is None


def test_a_dead_line_is_found_and_dim_pixels_are_none() -> None:
    few, many = (
        fdo.simulate(dose, seed=1, field_px=30, frame_side_px=32, defocus_um=200)[0] for dose in (100, 1e4)
    )
    assert (few.counts[:].sum(axis=0) == 0).any()
    assert len(dead_pixels(few)) == 0
    counts = many.counts[:].copy()
    # Through the bright ring that a zone plate sends to the detector.
    column = int(counts.sum(axis=(0, 1)).argmax())
    counts[:, 12:20, column] = 0
    assert dead_pixels(replace(many, counts=counts)).tolist() == [[y, column] for y in range(12, 20)]


@pytest.mark.slow
def test_the_same_scan_has_the_same_diagnosis() -> None:
    scan, _ = fdo.simulate(1e3, seed=1, field_px=30, frame_side_px=32, defocus_um=200)
    first, second = (fdo.diagnose(scan).described() for _ in range(2))
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("frames", [2, 49])
def test_what_is_known_of_a_scan_is_heeded(frames: int) -> None:
    """Masks of each frame, a background and light that is told are no faults."""
    scan, truth = fdo.simulate(1e4, seed=1, field_px=30, frame_side_px=32, defocus_um=200)
    rng = np.random.default_rng(1)
    dark, flux = np.full((32, 32), 0.5, np.float32), np.exp(0.2 * rng.normal(size=len(scan)))
    mask = rng.random(scan.counts.shape) > 0.05
    told = replace(scan, background=dark, flux=flux, mask=mask)
    found = fdo.diagnose(replace(told, counts=counts_of(told, truth, rng)).frames(np.arange(frames)))
    assert found.fault is None
    assert all(np.isfinite(gain) for gain in found.gains.values())
