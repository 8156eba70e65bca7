"""What is wrong with the instrument is named by the frames alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import fly64_dose_overlap as fdo
from fly64_dose_overlap.diagnosis import dead_pixels
from fly64_dose_overlap.methods.searches import with_modes
from fly64_dose_overlap.study.calibration import propagate

Truth = NDArray[np.complex64]
SEED = 3
DEFOCUS_UM = 910.0


@cache
def case() -> tuple[fdo.Scan, Truth]:
    return fdo.simulate(1e4, seed=SEED, defocus_um=DEFOCUS_UM)


def time(scan: fdo.Scan) -> NDArray[np.float64]:
    """Return where each frame lies between the first and the last, from -1/2 to 1/2."""
    return np.linspace(-0.5, 0.5, len(scan))


def seen(true: fdo.Scan, truth: Truth) -> NDArray[np.float32]:
    """Return counts of a scan as it really is."""
    model, obj = true.model, torch.from_numpy(truth)
    rng = np.random.default_rng([SEED, 7])
    expected = [model.expected(obj, frames).double().numpy() for frames in model.batches()]
    return np.concatenate([rng.poisson(each) for each in expected]).astype(np.float32)


def nothing(scan: fdo.Scan, truth: Truth) -> fdo.Scan:
    return scan


def two_modes_more(scan: fdo.Scan, truth: Truth) -> fdo.Scan:
    three = with_modes(scan, 3).probe
    powers = (np.abs(three) ** 2).sum(axis=(1, 2))
    shares = np.array([0.75, 0.15, 0.1], np.float32) * powers.sum() / powers
    true = replace(scan, probe=three * np.sqrt(shares)[:, None, None])
    return replace(scan, counts=seen(true, truth))


def drift(scan: fdo.Scan, truth: Truth) -> fdo.Scan:
    wide = np.pad(truth, 2, mode="edge")
    moved = scan.positions_px + 2 + np.outer(time(scan), [0.6, -0.8])
    true = replace(scan, positions_px=moved, object_shape=wide.shape)
    return replace(scan, counts=seen(true, wide))


def defocus(scan: fdo.Scan, truth: Truth) -> fdo.Scan:
    optics = scan.optics
    assert optics is not None
    further = 0.3 * DEFOCUS_UM * 1e-6
    probe = propagate(scan.probe.astype(np.complex128), further, optics.wavelength_m, optics.object_pixel_m)
    return replace(scan, probe=probe.astype(np.complex64))


def dead_pixel(scan: fdo.Scan, truth: Truth) -> fdo.Scan:
    counts = scan.counts[:].copy()
    counts[:, 30, 41] = 0
    return replace(scan, counts=counts)


def falling_light(scan: fdo.Scan, truth: Truth) -> fdo.Scan:
    return replace(scan, counts=seen(replace(scan, flux=0.95 - 0.1 * time(scan)), truth))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "name", "sentence"),
    [
        (nothing, None, "nothing is surely wrong"),
        (two_modes_more, "modes", "lacks modes: refine.probe: true, refine.modes: auto"),
        (drift, "drift", "refine.positions: 1.0"),
        (defocus, "focus", "out of focus by -2"),
        (dead_pixel, "dead pixels", "base.mend.bad_pixels: [[30, 41]]"),
        (falling_light, "fall", "refine.flux: 0.1"),
    ],
)
def test_a_fault_is_named(
    fault: Callable[[fdo.Scan, Truth], fdo.Scan], name: str | None, sentence: str
) -> None:
    found = fdo.diagnose(fault(*case()))
    assert found.fault == name
    assert sentence in str(found)
    if name == "drift":
        np.testing.assert_allclose(found.drift_px, [0.6, -0.8], atol=0.15)
    if name == "focus":
        assert found.distance_um == pytest.approx(-0.3 * DEFOCUS_UM, rel=0.1)
    if name == "fall":
        assert found.fall == pytest.approx(0.1, abs=0.03)


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
