"""The scan: all that a method may see, divided, thinned and cropped."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch

import tiny_scan
from factories import small_scan
from fly64_dose_overlap import provenance
from fly64_dose_overlap import scan as scan_module
from fly64_dose_overlap.arrays import DiskArray, spool
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.outcome import Result, Scores
from fly64_dose_overlap.physics.fit import Fit
from fly64_dose_overlap.scan import Scan, embedded
from fly64_dose_overlap.scores.frc import FrcCurve
from fly64_dose_overlap.scores.limit import Limit
from fly64_dose_overlap.trust import Agreement


def poisson_scan(rate: float = 5.0, frames: int = 300) -> Scan:
    """Return frames of one expected count in every pixel."""
    scan = small_scan(frames=frames, side=16)[0]
    counts = np.random.default_rng(0).poisson(rate, (frames, 16, 16)).astype(np.float32)
    return replace(scan, counts=counts)


def test_no_object_can_leak_from_a_scan() -> None:
    scan = tiny_scan.scan()
    truth = tiny_scan.truth()
    held = [value for value in vars(scan).values() if isinstance(value, np.ndarray)]
    assert not any(array.shape == truth.shape for array in held)


def test_divided_photons_are_two_independent_poisson_sets() -> None:
    scan = poisson_scan()
    first, second = scan.divide(0.3, np.random.default_rng(1))
    np.testing.assert_array_equal(first.counts[:] + second.counts[:], scan.counts)
    for part, mean in ((first, 1.5), (second, 3.5)):
        assert isinstance(part.counts, DiskArray)
        counts = part.counts[:].astype(np.float64)
        # 76,800 pixels: four standard errors.
        assert counts.mean() == pytest.approx(mean, abs=4 * (mean / counts.size) ** 0.5)
        assert counts.var() == pytest.approx(mean, rel=4 * (2 / counts.size) ** 0.5 + 0.01)
    apart = np.corrcoef(first.counts[:].ravel(), second.counts[:].ravel())[0, 1]
    assert abs(apart) < 4 / (300 * 16 * 16) ** 0.5


def test_the_probes_of_both_parts_are_those_of_their_photons() -> None:
    scan = tiny_scan.scan()
    obj = torch.from_numpy(tiny_scan.truth())
    expected = scan.model.expected(obj, slice(0, 5))
    for part, fraction in zip(scan.divide(0.25, np.random.default_rng(1)), (0.25, 0.75), strict=True):
        seen = part.model.expected(obj, slice(0, 5))
        torch.testing.assert_close(seen, fraction * expected, rtol=1e-4, atol=1e-4)
        assert part.photons_per_frame == pytest.approx(fraction * scan.photons_per_frame, rel=0.01)


def test_thinned_is_the_first_of_the_two_parts() -> None:
    scan = poisson_scan(frames=20)
    first, _ = scan.divide(0.3, np.random.default_rng(1))
    thinned = scan.thin(0.3, np.random.default_rng(1))
    np.testing.assert_array_equal(thinned.counts[:], first.counts[:])
    np.testing.assert_array_equal(thinned.probe, first.probe)


@pytest.mark.parametrize("margin_px", [0, 3, 1000])
def test_cropped_then_embedded_is_the_identity_where_the_scan_reaches(margin_px: int) -> None:
    scan, truth = tiny_scan.scan(), tiny_scan.truth()
    cropped, window = scan.cropped(margin_px)
    assert truth[window].shape == cropped.object_shape
    whole = embedded(truth[window], window, scan.object_shape)
    np.testing.assert_array_equal(whole[window], truth[window])
    outside = np.ones(scan.object_shape, bool)
    outside[window] = False
    assert np.all(whole[outside] == 1)
    assert outside.any() == (margin_px == 0)
    np.testing.assert_array_equal(scan.illumination()[window], cropped.illumination())
    assert not scan.illumination()[outside].any()
    frames = slice(0, len(scan))
    given, found = (
        each.model.expected(torch.from_numpy(obj), frames)
        for each, obj in ((scan, truth), (cropped, np.ascontiguousarray(truth[window])))
    )
    torch.testing.assert_close(found, given, rtol=1e-3, atol=1e-3)


def test_frames_stay_with_all_that_is_theirs() -> None:
    scan = tiny_scan.scan()
    chosen = np.array([40, 3, 7])
    for counts in (scan.counts, spool(scan.counts.shape, np.float32, [scan.counts[:]])):
        some = replace(scan, counts=counts, scan_index=np.arange(100, 181)).frames(chosen)
        np.testing.assert_array_equal(some.counts[:], scan.counts[chosen])
        np.testing.assert_array_equal(some.positions_px, scan.positions_px[chosen])
        assert some.scan_index.tolist() == [140, 103, 107]
        assert some.groups is None
        assert len(some) == 3


def test_photons_of_a_frame_are_the_mean_of_all() -> None:
    scan = poisson_scan(frames=300)
    assert scan.photons_per_frame == pytest.approx(scan.counts[:].sum(axis=(1, 2)).mean(), rel=1e-6)


def test_frames_are_numbered_if_they_are_not() -> None:
    assert small_scan(1, frames=4)[0].scan_index.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": np.zeros((8, 8), bool)}, "the mask leaves no pixel; True stands for pixels that count"),
        ({"background": -np.ones((8, 8))}, "the background must be finite and not negative; give expected"),
        ({"counts": np.ones((6, 9, 9), np.float32)}, r"frames are \(9, 9\) and the probe is \(1, 8, 8\)"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=f"^scan: .*{message}") as caught:
        replace(small_scan()[0], **changes)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def unchecked() -> Any:
    """Return the module of scans as it is outside of tests, where nothing else looks at types."""
    spec = importlib.util.spec_from_file_location("unchecked_scan", scan_module.__file__)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mask": np.ones((8, 9), bool)},
            r"mask is ndarray of bool \(8, 9\), .*; it must be boolean numbers",
        ),
        ({"mask": np.ones((8, 8))}, r"mask is ndarray of float64 \(8, 8\), frames are"),
        ({"background": np.ones((3, 8, 8))}, r"background is ndarray of float64 \(3, 8, 8\), frames are"),
        *(
            ({name: [[1, 2]]}, rf"^scan: {name} must be an array of \w+ numbers \(.*\), got list; convert")
            for name in ("counts", "probe", "positions_px", "scan_index", "groups")
        ),
        (
            {"counts": np.ones((6, 8, 8), complex)},
            "counts must be an array of real numbers .*got ndarray of complex",
        ),
        ({"counts": np.ones((6, 8, 8), ">f4")}, "counts must be .*got ndarray of >f4"),
        (
            {"counts": np.ones((6, 64), np.float32)},
            "counts must be an array of real numbers .frame, y, x., got",
        ),
        (
            {"counts": np.ones((0, 8, 8)), "positions_px": np.ones((0, 2))},
            "^positions_px: .*at least one frame",
        ),
        (
            {"probe": np.ones((1, 8, 8))},
            "probe must be an array of complex numbers .*, got ndarray of float64",
        ),
        (
            {"probe": np.ones((8, 8), complex)},
            r"probe must be .*\(mode, y, x\), got ndarray of complex128 \(8, 8\)",
        ),
        ({"probe": np.ones((1, 8, 9), complex)}, r"^scan: frames are \(8, 8\) and the probe is \(1, 8, 9\)"),
        (
            {"probe": np.full((1, 8, 8), np.nan + 0j)},
            "^scan: the probe must be finite and not zero everywhere$",
        ),
        ({"probe": np.zeros((1, 8, 8), complex)}, "^scan: the probe must be finite and not zero everywhere$"),
        (
            {"positions_px": np.full((6, 2), np.nan)},
            "^positions_px: must be finite, found 6 of 6 that are not$",
        ),
        ({"positions_px": np.full((6, 3), 9.0)}, r"^scan: 6 frames have positions of shape \(6, 3\)$"),
        (
            {"positions_px": np.full((6, 2), 3.4)},
            r"^scan: 6 of 6 positions put the probe \(8 px\) outside \(24, 24\)",
        ),
        ({"positions_px": np.full((6, 2), 1e300)}, "^scan: 6 of 6 positions put the probe"),
        ({"scan_index": np.arange(5)}, r"^scan: 6 frames have a scan_index of shape \(5,\)$"),
        ({"scan_index": np.arange(6.0)}, "scan_index must be an array of whole numbers"),
        (
            {"groups": np.zeros((2, 4))},
            "groups must be an array of whole numbers .group, C., got ndarray of float64",
        ),
        ({"groups": np.arange(4)}, "groups must be an array of whole numbers"),
        (
            {"groups": np.array([[0, 1, 2, 6]])},
            "^scan: 'groups' refers to frames 0 to 6, but there are 0 to 5$",
        ),
        ({"groups": np.array([[-1]])}, "^scan: 'groups' refers to frames -1 to -1"),
        ({"groups": np.array([[0, 1]])}, "^scan: 'groups' has 2 frames per group, expected C=1$"),
        ({"groups": np.array([[0, 1, 2, 2]])}, "^scan: group 0 of 'groups' holds a frame more than once$"),
        *(
            (change, "^scan: optics must be Optics and a record must be a dict; or leave them out$")
            for change in ({"optics": 1e-10}, {"record": None})
        ),
        *(
            ({"object_shape": shape}, "^scan: object_shape must be a tuple of rows and columns, got")
            for shape in ([24, 24], (24,), (24, 24, 1), (24.0, 24.0), 24)
        ),
    ],
)
def test_arrays_of_ones_own_that_make_no_scan_are_refused(
    unchecked: Any, changes: dict[str, Any], message: str
) -> None:
    sound = small_scan()[0]
    given = {
        name: getattr(sound, name) for name in ("counts", "probe", "positions_px", "object_shape", "groups")
    }
    assert len(unchecked.Scan(**given)) == 6
    with pytest.raises(StudyError, match=message) as caught:
        unchecked.Scan(**{**given, **changes})
    assert "\n" not in str(caught.value)


def test_every_number_that_methods_can_work_with_makes_a_scan(unchecked: Any) -> None:
    sound = small_scan()[0]
    for counts in (np.uint16, np.int64, np.float64):
        made = unchecked.Scan(
            sound.counts[:].astype(counts),
            sound.probe.astype(complex),
            np.full((6, 2), 12.0),
            tuple(np.array(sound.object_shape)),
        )
        assert [(type(each), each) for each in made.object_shape] == [(int, 24), (int, 24)]


def test_no_count_is_looked_at_when_a_scan_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = small_scan()[0]
    counts = spool(scan.counts.shape, np.float32, [scan.counts[:]])
    monkeypatch.setattr(DiskArray, "__getitem__", None)
    assert replace(scan, counts=counts).lent().counts is counts


def test_every_frame_has_a_position() -> None:
    scan = small_scan()[0]
    with pytest.raises(StudyError, match=r"^scan: 6 frames have positions of shape \(5, 2\)$"):
        Scan(scan.counts, scan.probe, scan.positions_px[1:], scan.object_shape)


def test_a_probe_without_an_axis_of_modes_is_no_probe() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="probe"):
        replace(small_scan()[0], probe=np.ones((8, 8), np.complex64))


def test_what_the_front_door_gives_is_shown_on_one_screen() -> None:
    scan = replace(tiny_scan.scan(), record=provenance.new_record("base", note="x" * 5000))
    images = (tiny_scan.truth(), scan.probe, scan.positions_px, np.arange(500.0))
    found = Result("ml", "ML", *images, 12.3456789, {"epochs": 500}, scan, {})
    curve = FrcCurve(*(np.linspace(0.01, 1, 99) for _ in range(3)))
    misfit = Fit(1e6, 1.0, 1.0, 0.1234567, 0.1, 1.0, 0.0, np.ones(500), np.ones((64, 64)))
    whole = replace(found, others={"other": found})
    reached = Agreement(whole, misfit, 0.5, {"frames": curve}, None, misfit, {}, {})
    scores = Scores("ML", 20.0, None, 0.5, 0.1, 0.5, 1000, {"phase": {"psnr_db": 20.0}, "curve": [0.5] * 99})
    limit = Limit({}, [1.0] * 99, {"phase": [1.0] * 99}, {}, {}, 1.0, [0.1] * 99, [], [], "hann", {}, {})
    for shown, words in [
        (scan, f"Scan(counts={scan.counts.shape} float32, probe={scan.probe.shape} complex64"),
        (scan, f"side=32, photons_per_frame={scan.photons_per_frame:.6g})"),
        (found, "seconds=12.3457, settings={epochs: 500}, scan=Scan(...), others={})"),
        (curve, "FrcCurve(frequency=(99,) float64, frc=(99,) float64"),
        (reached, "fit=Fit(...), r_empty=0.5, frc={frames: FrcCurve(...)}, unseen=Fit(...), halves={}"),
        (misfit, "r_factor=0.123457, r_floor=0.1, chi_square=1, divergence=0, by_frame=(500,) float64"),
        (scores, "details={phase: {...}, curve: list of 99})"),
        (limit, "doses=list of 99, bayesian={phase: list of 99}"),
    ]:
        assert words in repr(shown)
        assert len(repr(shown)) < 800


def test_a_mask_and_a_background_come_along_with_the_photons() -> None:
    scan, rng = tiny_scan.scan(), np.random.default_rng(1)
    shape = scan.counts.shape
    masks, dark = rng.random(shape) > 0.1, rng.random(shape[1:]).astype(np.float32)
    for mask in (masks, spool(shape, np.bool_, [masks]), masks[0]):
        masked = replace(scan, mask=mask, background=dark)
        first, second = masked.divide(0.25, rng)
        for part, share in ((first, 0.25), (second, 0.75)):
            assert part.background is not None
            np.testing.assert_allclose(part.background, dark * share)
        assert first.mask is mask
        some = masked.frames(np.array([5, 2]))
        assert some.mask is not None
        np.testing.assert_array_equal(some.mask[:], masks[0] if mask.ndim == 2 else masks[[5, 2]])
        counted = np.where(mask[:], scan.counts[:], 0)
        np.testing.assert_array_equal(np.concatenate(list(masked.blocks())), counted)
        assert masked.photons_per_frame == pytest.approx(counted.sum() / len(scan), rel=1e-6)
        assert masked.model.detector.mask is mask
