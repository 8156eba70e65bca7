"""Scans made by hand whose counts, probe and truth do not belong together."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fly64_dose_overlap as fdo
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.study.soundness import require_truth


@cache
def case() -> tuple[Scan, NDArray[np.complex64]]:
    """Return a small scan and its truth; do not change their arrays."""
    return fdo.simulate(1e3, seed=1, field_px=30, frame_side_px=32, defocus_um=200)


def with_count(value: float) -> Scan:
    counts = np.array(case()[0].counts[:])
    counts[2, 3, 4] = value
    return replace(case()[0], counts=counts)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"must be finite, but frame 2 has nan at \[3, 4\]"),
        (np.inf, r"must be finite, but frame 2 has inf at \[3, 4\]"),
        (-1, r"must be not negative, but frame 2 has -1.0 at \[3, 4\]"),
        (0.3, r"must be whole numbers, but frame 2 has 0.3\d* at \[3, 4\]"),
    ],
)
def test_counts_that_are_no_counts_are_refused(value: float, message: str, tmp_path: Path) -> None:
    wrong = with_count(value)
    calls: list[Any] = [
        lambda: fdo.reconstruct(wrong, "ml", epochs=1),
        lambda: fdo.thin(wrong, 0.5),
        lambda: fdo.limit(wrong, case()[1]),
        lambda: fdo.train("refined", wrong, tmp_path / "model.safetensors"),
        lambda: fdo.agreement(wrong, "ml", epochs=1),
    ]
    for call in calls:
        with pytest.raises(StudyError, match=message):
            call()


def write_frames(path: Path, key: str, frames: NDArray[Any]) -> Path:
    """Write a file with the probe and the positions of the small scan, but other frames."""
    scan, truth = case()
    y, x = scan.positions_px.T
    arrays: dict[str, Any] = {"objectGuess": truth, "probeGuess": scan.probe, "ycoords": y, "xcoords": x}
    arrays[key] = frames
    np.savez(path, **arrays)
    return path


def test_frames_of_a_file_that_are_no_counts_are_refused(tmp_path: Path) -> None:
    counts = np.array(case()[0].counts[:])
    root = np.sqrt(counts)
    at_sixth, gain = counts.copy(), counts * 2.7
    at_sixth[6, 3, 4] += 0.3
    for key, frames, found in [
        ("diffraction", root / root.max(), "frame 0 has 0.1"),
        ("counts", root, "frame 0 has 1.414 at"),
        ("diffraction", np.sqrt(at_sixth), rf"frame 6 has {at_sixth[6, 3, 4]:.4g} at \[3, 4\]"),
        ("counts", gain, "frame 0 has 2.7"),
        ("counts", counts.astype(np.float64) / counts.sum(), "frame 0 has "),
        ("diffraction", np.full_like(root, 1e30), "frame 0 has inf at"),
    ]:
        path = write_frames(tmp_path / "mine.npz", key, frames)
        message = rf"mine\.npz: frames must be counted photons, but {found}.*; scale them to photons, round"
        with pytest.raises(StudyError, match=message):
            fdo.read_scan(path)


def test_counts_and_their_roots_are_read_as_they_are(tmp_path: Path) -> None:
    few = case()[0].counts[:]
    many = np.random.default_rng(3).poisson(1e6, few.shape).astype(np.float32)
    for counts in (few, few.astype(np.uint8), many, many.astype(np.float64), many.astype(np.int32)):
        real = counts.astype(np.float64)
        for key, frames in (
            ("counts", counts),
            ("diff3d", np.sqrt(real)),
            ("diffraction", np.sqrt(real, dtype="f4")),
        ):
            scan = fdo.read_scan(write_frames(tmp_path / "mine.npz", key, frames))
            np.testing.assert_array_equal(scan.counts, counts)


def test_a_scan_without_a_photon_is_refused() -> None:
    dark = replace(case()[0], counts=np.zeros_like(case()[0].counts[:]))
    with pytest.raises(StudyError, match="there is no photon in 49 frames"):
        fdo.reconstruct(dark, "ml", epochs=1)


def test_frames_without_the_beam_are_warned_of_and_can_be_left_out() -> None:
    counts = np.array(case()[0].counts[:])
    counts[[7, 9]] = 0
    scan = replace(case()[0], counts=counts)
    told = "2 of 49 frames hold no photon, the first is 7, but a frame holds .* on average"
    with pytest.warns(UserWarning, match=told):
        fdo.thin(scan, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fdo.thin(scan.frames(np.flatnonzero(counts.any(axis=(1, 2)))), 0.5)


@pytest.mark.parametrize("factor", [30, 0.1])
def test_a_probe_of_another_power_is_warned_of(factor: float) -> None:
    scan = replace(case()[0], probe=(factor * case()[0].probe).astype(np.complex64))
    with pytest.warns(UserWarning, match="the probe carries .* photons per frame but .* are counted"):
        fdo.reconstruct(scan, "ml", epochs=1)


@pytest.mark.parametrize("dose", [10, 1e5])
def test_a_good_scan_gets_no_warning(dose: float) -> None:
    scan, truth = fdo.simulate(dose, seed=2, field_px=30, frame_side_px=32, defocus_um=200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sound in (scan, fdo.thin(scan, 0.3), fdo.view(scan, 0.6)):
            fdo.reconstruct(sound, "ml", epochs=1)
        require_truth(scan, truth)


def test_a_truth_of_another_scan_is_refused(tmp_path: Path) -> None:
    scan, truth = case()
    other: list[tuple[Any, str]] = [
        (np.pad(truth, 8, mode="edge"), "has the shape"),
        (truth[1:], "has the shape"),
        (np.abs(truth), "must be complex and finite"),
        (np.full_like(truth, np.nan), "must be complex and finite"),
        (5 * truth, "probe and truth give .* photons per frame, but .* are counted"),
    ]
    for wrong, message in other:
        with pytest.raises(StudyError, match=message):
            fdo.limit(scan, wrong)
        with pytest.raises(StudyError, match=message):
            fdo.train("supervised", scan, tmp_path / "model.safetensors", truth=wrong)


def test_a_limit_that_has_not_converged_says_so() -> None:
    scan, truth = fdo.simulate(1e4, seed=1, field_px=60, frame_side_px=32, defocus_um=200)
    with pytest.warns(UserWarning, match="the limit had not converged"):
        assert not fdo.limit(fdo.view(scan, 0.1), truth).converged
