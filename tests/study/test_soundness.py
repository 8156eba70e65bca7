"""Scans made by hand whose counts, probe and truth do not belong together."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fly64_dose_overlap as fdo
import tiny_scan
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.study.dose import Simulation, draw_counts
from fly64_dose_overlap.study.gauge import in_standard_gauge
from fly64_dose_overlap.study.measured import examined, orientation_doubt, require_truth
from fly64_dose_overlap.study.soundness import defects, remarks_on_object
from fly64_dose_overlap.study.star_bench import make_star_bench


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


def test_counts_and_their_roots_are_read_as_they_are(tmp_path: Path) -> None:
    few = case()[0].counts[:]
    many = np.random.default_rng(3).poisson(1e6, few.shape).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the many are of no object
        for counts in (few, few.astype(np.uint8), many, many.astype(np.float64), many.astype(np.int32)):
            real = counts.astype(np.float64)
            for key, frames in (
                ("counts", counts),
                ("diff3d", np.sqrt(real)),
                ("diffraction", np.sqrt(real, dtype="f4")),
            ):
                scan = fdo.read_scan(write_frames(tmp_path / "mine.npz", key, frames))
                np.testing.assert_array_equal(scan.counts, counts)


def changed(scan: Scan, change: Callable[[NDArray[Any]], Any]) -> Scan:
    counts = np.array(scan.counts[:])
    change(counts)
    return replace(scan, counts=counts)


@pytest.mark.parametrize("value", [65535, 2**32 - 1, 3])
def test_a_gap_that_is_filled_with_one_value_is_refused(value: float) -> None:
    gap = changed(case()[0], lambda n: n[:, :, 5:7].fill(value))
    message = r"64 pixels hold the same value in all 49 frames, such as \[0, 5\] with .*: a mask\?; name them"
    with pytest.raises(StudyError, match=message):
        fdo.reconstruct(gap, "ml", epochs=1)


SOME = np.arange(1000)[:, None, None] % 7
DEFECTS: dict[str, tuple[Callable[[Scan], Scan], str]] = {
    "a hot pixel": (
        lambda scan: changed(scan, lambda n: n[:, 3, 4].__iadd__(1000 + np.arange(len(n)) % 7)),
        r"1 detector pixels are far .* such as \[3, 4\] .*: mask it, base\.mend\.bad_pixels: \[\[3, 4\]\]$",
    ),
    "a frame a thousand times too bright": (
        lambda scan: changed(scan, lambda n: n[7].__imul__(1000)),
        r"1 of 49 frames are far .* such as frame 7 .*: leave it out, base\.mend\.leave_out: \[7\]$",
    ),
    "counts in units of a detector": (
        lambda scan: changed(scan, lambda n: n.__imul__(4)),
        r"every count is a multiple of 4, .* state base.counts_per_photon: 4",
    ),
    "the zero frequency in a corner": (
        lambda scan: replace(scan, counts=np.fft.fftshift(scan.counts[:], axes=(1, 2))),
        r"detector pixels count no photon, such as .*: name them .*, base\.mend\.turn: \[shift_frames\]$",
    ),
    "a probe in the corners": (
        lambda scan: replace(scan, probe=np.fft.fftshift(scan.probe, axes=(1, 2))),
        r"the probe's power lies at the edge .* along y and x: state base\.mend\.turn: \[shift_probe\]",
    ),
    "a mask that is inverted": (
        lambda scan: replace(scan, mask=np.arange(scan.side)[:, None] + 0 * np.arange(scan.side) < 4),
        r"88% of the pixels do not count: a mask is true where a pixel counts; is it inverted\?",
    ),
    "a detector that saturates": (
        lambda scan: changed(scan, lambda n: np.minimum(20 * n + SOME[: len(n)], 400, out=n)),
        r"\d+ counts are 400, and none is more: the detector saturates there",
    ),
    "a mode without power": (
        lambda scan: replace(scan, probe=np.concatenate([scan.probe, 0 * scan.probe])),
        r"probe mode 1 is zero everywhere: leave it out",
    ),
    "all frames at one place": (
        lambda scan: replace(scan, positions_px=20 + 1e-6 * scan.positions_px),
        r"all 49 frames lie within .*e-0.* object pixels: where positions have .*, base.fields: {.* unit: um",
    ),
    "a probe half a frame off": (
        lambda scan: replace(scan, probe=np.roll(scan.probe, 16, axis=2)),
        r"the probe's power lies at the edge of its frame along x: roll it",
    ),
}


@pytest.mark.parametrize("name", list(DEFECTS))
def test_what_no_photon_does_is_found(name: str) -> None:
    change, message = DEFECTS[name]
    scan, _ = fdo.simulate(1e4, seed=1, field_px=30, frame_side_px=32, defocus_um=200)
    assert sum(re.search(message, each) is not None for each in defects(change(scan))) == 1


def test_a_warning_comes_once_and_not_for_every_half() -> None:
    scan = DEFECTS["a hot pixel"][0](case()[0])
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fdo.agreement(scan, epochs=1)
    assert sum("far brighter than" in str(each.message) for each in found) == 1


@pytest.mark.parametrize("kind", ["star", "texture"])
def test_a_good_scan_has_no_defect_at_any_dose(kind: str) -> None:
    for dose in (10, 100, 1e4, 1e6):
        scan, truth = fdo.simulate(
            dose, seed=3, object_kind=kind, field_px=30, frame_side_px=32, defocus_um=200
        )
        positions = scan.positions_px.copy()
        positions[4] = positions[3]
        one_dim_frame = changed(scan, lambda n: np.floor_divide(n[5], 10, out=n[5]))
        for each in (scan, fdo.thin(scan, 0.3), one_dim_frame, replace(scan, positions_px=positions)):
            assert defects(each) == []
            assert orientation_doubt(each, truth) == ""


@pytest.mark.slow
def test_the_star_test_case_has_no_defect() -> None:
    base = in_standard_gauge(make_star_bench("sparse", 1))
    for dose in (1000, 100000):
        dosed, _ = Simulation(base).with_dose(dose)
        counts = np.concatenate(list(draw_counts(dosed, seed=1, dose=dose)))
        scan, found = examined(
            replace(dosed, amplitude=np.sqrt(counts, dtype="f4")), "star", probe_in_photons=True
        )
        assert (len(scan), found) == (len(base.positions_px), [])


def test_a_base_set_may_have_a_probe_of_any_power() -> None:
    scan = replace(case()[0], probe=(30 * case()[0].probe).astype(np.complex64))
    assert len(defects(scan)) == 1
    assert defects(scan, probe_in_photons=False) == []


def test_an_object_that_is_no_transmission_or_wraps_is_remarked_on() -> None:
    base = tiny_scan.base_set()
    plain = base.obj / np.abs(base.obj).max()
    y = np.arange(len(plain))[:, None]
    factors = (1, 1.4, np.exp(8j * np.exp(-((y - 50) ** 2) / 300)))
    none, brighter, wrapped = (
        remarks_on_object(replace(base, obj=(plain * factor).astype(np.complex64))) for factor in factors
    )
    assert none == []
    assert [each[:34] for each in brighter] == ["the object's modulus reaches 1.4, "]
    assert re.match(r"the object's phase spans \d\.\d* rad, more than 2 pi", wrapped[0])


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


@pytest.mark.parametrize("dose", [100, 1e5])
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


def test_an_object_that_is_the_same_everywhere_is_nothing_to_simulate() -> None:
    base = tiny_scan.base_set()
    with pytest.raises(
        StudyError, match=r"^object: is the same everywhere: .*; fdo\.read_scan and fdo\.agreement"
    ):
        remarks_on_object(replace(base, obj=np.full_like(base.obj, 0.5 - 0.1j)))


def test_what_a_mask_leaves_out_is_neither_dead_nor_hot_nor_dark() -> None:
    scan = fdo.simulate(1e4, seed=1, field_px=30, frame_side_px=32, defocus_um=200)[0]
    mask = np.ones(scan.counts.shape, bool)
    mask[:, 12:20, 12:20] = False  # dead
    mask[3, 5, 5] = False  # saturated once
    mask[7] = False
    assert defects(replace(scan, counts=scan.counts[:] * mask, mask=mask)) == []
    few = np.zeros((32, 32), bool)
    few[10:14, 10:14] = True
    (found,) = defects(replace(scan, counts=scan.counts[:] * few, mask=few))
    assert found.startswith("98% of the pixels do not count")


def test_a_background_that_exceeds_the_counts_is_named() -> None:
    scan = case()[0]
    found = defects(replace(scan, background=np.full((scan.side, scan.side), 1e3, np.float32)))
    assert found[-1].startswith("the background has 1.024e+06 photons per frame, more than the ")


@pytest.mark.parametrize("left", [np.nan, np.inf, 1e30, -1.0])
def test_what_lies_behind_a_mask_does_not_matter(left: float) -> None:
    scan = case()[0]
    mask = np.ones((scan.side, scan.side), bool)
    mask[3, 4] = False
    counts = scan.counts[:].copy()
    counts[:, 3, 4] = left
    hidden = replace(scan, mask=mask)
    wanted = fdo.reconstruct(hidden, "ml", epochs=2)
    found = fdo.reconstruct(replace(hidden, counts=counts), "ml", epochs=2)
    np.testing.assert_array_equal(found.obj, wanted.obj)
    thinned = fdo.thin(replace(hidden, counts=counts), 0.5).counts[:]
    np.testing.assert_array_equal(thinned, fdo.thin(hidden, 0.5).counts[:])


def test_a_background_is_no_light_of_the_probe() -> None:
    scan = fdo.simulate(1e4, seed=1, field_px=30, frame_side_px=32, defocus_um=200)[0]
    background = np.full((32, 32), 20, np.float32)
    counts = scan.counts[:] + np.random.default_rng(2).poisson(background, scan.counts.shape)
    assert defects(replace(scan, counts=counts.astype(np.float32), background=background)) == []


def test_a_probe_of_another_scale_is_told_behind_a_mask_and_over_a_background() -> None:
    scan = fdo.simulate(1e4, seed=1, field_px=30, frame_side_px=32, defocus_um=200)[0]
    mask = np.ones((32, 32), bool)
    mask[:4] = False
    background = np.ones((32, 32), np.float32)
    counts = scan.counts[:] + np.random.default_rng(2).poisson(background, scan.counts.shape)
    covered = replace(scan, counts=(counts * mask).astype(np.float32), mask=mask, background=background)
    assert defects(covered) == []
    (message,) = defects(replace(covered, probe=0.1 * scan.probe))
    assert message.startswith("the probe carries 99.14 photons per frame but 7806 are counted")


def test_counts_that_no_double_holds_are_refused() -> None:
    scan = fdo.simulate(1e4, seed=1, field_px=30, frame_side_px=32, defocus_um=200)[0]
    with pytest.raises(StudyError, match=r"must be at most 9\.01e\+15, but frame 0 has"):
        defects(replace(scan, counts=scan.counts[:] * np.float32(2.0**60)))
