"""Measured frames without ground truth: how well they are fitted, and how well their halves agree."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fly64_dose_overlap as fdo
import tiny_scan
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import write_scan
from fly64_dose_overlap.physics.fit import fit
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.study.measured import halves

FLAT = np.ones_like(tiny_scan.truth())


def two_modes(photons: float = 1.0, *, noise: bool = True) -> fdo.Scan:
    """Return a scan whose probe has two modes, with a multiple of the photons of the tiny one."""
    scan = tiny_scan.scan()
    first = scan.probe[0] * np.float32(photons**0.5)
    second = 0.5 * np.rot90(first) * np.linspace(-1, 1, scan.side, dtype=np.float32)
    scan = replace(scan, probe=np.stack([first, second]).astype(np.complex64), groups=None)
    expected = expected_photons(scan)
    counts = np.random.default_rng(0).poisson(expected) if noise else np.rint(expected)
    return replace(scan, counts=counts.astype(np.float32))


def few_frames() -> fdo.Scan:
    """Return every frame of a corner of the scan, where all that counts is what is done with them."""
    return two_modes().frames(np.arange(81).reshape(9, 9)[:5, :5].ravel())


def expected_photons(scan: fdo.Scan) -> np.ndarray:
    return scan.model.expected(torch.from_numpy(tiny_scan.truth()), slice(0, len(scan))).numpy()


def r_factor_of_the_truth(scan: fdo.Scan) -> float:
    return fit(scan.model, scan.counts, torch.from_numpy(tiny_scan.truth()), generator(1)).r_factor


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file with a scan of two modes; the object in it gives the size of the grid."""
    write_scan(tmp_path / "scan.npz", two_modes(), FLAT)
    return tmp_path / "scan.npz"


def test_the_true_object_leaves_the_r_factor_of_noise_alone() -> None:
    scan = two_modes()
    expected = expected_photons(scan)
    other = np.sqrt(np.random.default_rng(1).poisson(expected))
    noise = np.abs(other - np.sqrt(expected)).sum() / other.sum()
    # 83,000 pixels, of which the brightest hold most of the sums.
    assert r_factor_of_the_truth(scan) == pytest.approx(noise, rel=0.01)
    assert r_factor_of_the_truth(two_modes(1e4, noise=False)) < 1e-3


def test_a_fit_explains_its_own_noise_too_and_halves_agree_in_coarse_detail() -> None:
    # Twice the photons, since halves by chance cover the scan less evenly than every other frame of it does.
    scan = two_modes(2)
    found = fdo.agreement(scan, epochs=10)
    assert 0.8 * r_factor_of_the_truth(scan) < found.fit.r_factor < r_factor_of_the_truth(scan)
    obj = torch.from_numpy(found.result.obj)
    assert found.fit.by_frame.tolist() == fit(scan.model, scan.counts, obj, generator(1)).by_frame.tolist()
    assert found.fit.r_factor < found.fit.r_floor == pytest.approx(r_factor_of_the_truth(scan), rel=0.1)
    assert list(found.frc) == ["frames", "thinned"]
    for curve in found.frc.values():
        assert curve.frc[:6].min() > 0.7
        assert abs(curve.frc[-6:].mean()) < 0.2


def test_frames_that_an_object_was_not_made_of_pay_for_fitted_noise() -> None:
    scan = two_modes()
    found = fdo.agreement(scan, epochs=10).unseen
    one, other = dict(halves(scan, 42))["frames"]
    obj = torch.from_numpy(fdo.reconstruct(one, "ml", epochs=10).obj)
    assert found is not None
    assert found.chi_square == fit(other.model, other.counts, obj, generator(1)).chi_square
    own = fit(one.model, one.counts, obj, generator(1))
    assert own.deviance < own.deviance_floor < found.deviance


def test_the_epoch_that_held_out_photons_choose_is_compared_too() -> None:
    scan = two_modes()
    found = fdo.agreement(scan, epochs=30)
    (name,) = found.others
    chosen = found.others[name]
    assert (name, chosen.result.label) == ("ml_held_out", "ML held-out")
    assert chosen.result.obj is found.result.others[name].obj
    stops = [each.settings["epochs"] for pair in chosen.halves.values() for each in pair]
    assert max(stops) < 30
    assert chosen.unseen is not None
    assert found.unseen is not None
    assert chosen.unseen.deviance < found.unseen.deviance
    assert chosen.fit.r_factor > found.fit.r_factor


def test_a_result_is_held_against_other_frames_at_any_dose() -> None:
    bright, obj = two_modes(10), tiny_scan.truth()
    dim = fdo.thin(bright, 0.2)
    result = replace(fdo.reconstruct(dim, "ml", epochs=1), obj=obj)
    for scan in (dim, bright, bright.frames(np.arange(0, 81, 3))):
        found = fdo.misfit(result, scan)
        assert found.photons == scan.counts[:].sum()
        assert found.chi_square == pytest.approx(1, abs=0.02)
    assert fdo.misfit(result).photons == dim.counts[:].sum()
    # What a result has found of its own frames holds for these alone, in whatever order.
    moved = replace(result, positions_px=result.positions_px + 1)
    own = fdo.misfit(moved).by_frame
    assert own.mean() > 1.1
    backwards = fdo.misfit(moved, dim.frames(np.arange(80, 9, -1))).by_frame
    assert np.corrcoef(backwards, own[:9:-1])[0, 1] > 0.99
    numbered = replace(bright, scan_index=bright.scan_index + 1000)
    assert fdo.misfit(moved, numbered).chi_square < 1.02


def test_frames_that_a_result_does_not_fit_are_refused_or_told() -> None:
    scan = two_modes(10)
    left = scan.frames(np.flatnonzero(scan.positions_px[:, 1] < 40))
    result = fdo.reconstruct(left, "ml", epochs=2)
    other = fdo.simulate(1e3, field_px=30, frame_side_px=32, defocus_um=200)[0]
    one, turned = replace(scan, probe=scan.probe[:1]), replace(scan, probe=scan.probe.conj())
    for wrong, message in (
        (other, "grid and probe are"),
        (one, "grid and probe are"),
        (turned, "probe is another"),
    ):
        with pytest.raises(StudyError, match=f"^misfit: .*{message}.*; give frames of the same scan"):
            fdo.misfit(result, wrong)
    with pytest.warns(UserWarning, match=r"\d+ of 81 frames look mostly where the result had no light"):
        fdo.misfit(result, scan)


def test_halves_of_frames_without_noise_agree_in_fine_detail_too() -> None:
    found = fdo.agreement(two_modes(1000, noise=False), epochs=20)
    assert found.fit.r_factor < 0.01
    for curve in found.frc.values():
        assert curve.frc[: len(curve.frc) // 2].min() > 0.98
    assert min(value for each in found.cutoffs_nyquist.values() for value in each.values()) > 0.8


def test_halves_of_the_photons_that_halves_of_the_frames_do_not_bear_out_are_doubted() -> None:
    scan, _ = fdo.simulate(1e5, seed=1, field_px=60, frame_side_px=32, defocus_um=200)
    message = r"photons agree to 1\.00 of Nyquist, halves of the frames only to 0\.1\d: the former"
    with pytest.warns(UserWarning, match=message):
        early = fdo.agreement(scan, epochs=1)
    assert early.cutoffs_nyquist["frames"]["half-bit"] < 0.2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        late = fdo.agreement(scan, epochs=10)
    assert late.cutoffs_nyquist["frames"]["half-bit"] > 0.7
    assert late.doubt == replace(early, frc={"thinned": early.frc["thinned"]}).doubt == ""


def test_the_two_halves_have_every_frame_and_every_photon_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from fly64_dose_overlap import trust

    seen: list[fdo.Scan] = []

    def reconstruct(scan: fdo.Scan, *arguments: Any) -> fdo.Result:
        seen.append(scan)
        return original(scan, *arguments)

    original = trust.reconstructed
    monkeypatch.setattr(trust, "reconstructed", reconstruct)
    scan = few_frames()
    fdo.agreement(scan, epochs=1)
    whole, one, other, first, second = seen
    assert whole is scan
    both = np.sort(np.concatenate([one.scan_index, other.scan_index]))
    np.testing.assert_array_equal(both, scan.scan_index)
    # Of every two frames one is in either half, and which is by chance.
    assert abs(len(one) - len(other)) == 1
    places = np.searchsorted(scan.scan_index, one.scan_index[: len(other) - 1])
    np.testing.assert_array_equal(places // 2, np.arange(len(places)))
    assert 0 < (places % 2).mean() < 1
    np.testing.assert_array_equal(first.counts[:] + second.counts[:], scan.counts)
    np.testing.assert_allclose(first.probe, scan.probe / 2**0.5, rtol=1e-6)


def test_no_half_of_a_raster_is_a_raster() -> None:
    """Every other frame of even rows is one of twice the pitch: its waves are opposite in both objects."""
    shape: dict[str, Any] = {"field_px": 75, "jitter_px": 0, "frame_side_px": 32, "defocus_um": 200}
    there_and_back, _ = fdo.simulate(1e3, seed=1, **shape)
    scan = there_and_back.frames(np.lexsort(there_and_back.positions_px.T[::-1]))
    assert len(scan) == 16 * 16

    def order(part: fdo.Scan) -> float:
        """Return how far positions are in step with a wave of twice the pitch of 5 px, from 0 to 1."""
        return float(np.abs(np.exp(2j * np.pi * part.positions_px[:, 1] / 10).mean()))

    assert order(scan.frames(np.arange(0, len(scan), 2))) == pytest.approx(1)
    for half in dict(halves(scan, 42))["frames"]:
        assert order(half) < 0.2


def test_no_resolution_is_given_of_frames_that_nothing_explains() -> None:
    scan = two_modes()
    counts = np.array(scan.counts[:])
    counts[:, 3, 4] += 1e6 + np.arange(len(counts), dtype=np.float32)
    with pytest.warns(UserWarning, match="the frames are not fitted: R-factor .* of an empty object"):
        found = fdo.agreement(replace(scan, counts=counts), epochs=1)
    assert found.fit.r_factor > found.r_empty
    assert str(found).startswith("ML: no resolution, since the frames are not fitted")
    assert "half-bit" not in str(found)


def test_few_photons_alone_are_no_reason_to_give_no_resolution() -> None:
    scan, _ = fdo.simulate(60, seed=1, field_px=30, frame_side_px=32, defocus_um=200)
    assert replace(fdo.agreement(scan, epochs=3), r_empty=0.0).is_fit


def test_it_is_said_in_one_line_and_drawn() -> None:
    plain = fdo.agreement(replace(two_modes(), optics=None), epochs=3)
    assert plain.pixel_nm is None
    assert plain.cutoffs_nm["thinned"] == {"half-bit": None, "one-seventh": None}
    found = replace(plain, pixel_nm=50.0)
    at = found.cutoffs_nyquist["frames"]["half-bit"]
    assert found.cutoffs_nm["frames"]["half-bit"] == 50 / at
    for each, unit in ((plain, ""), (found, f" ({50 / at:.3g} nm)")):
        misfit = f"R-factor {each.fit.r_factor:.4f} (noise {each.fit.r_floor:.4f})"
        assert each.unseen is not None
        unseen = f"{each.unseen.deviance:.4f} (noise {each.unseen.deviance_floor:.4f})"
        misfit += f", deviance of unseen frames {unseen}"
        line = f"ML: {misfit}, frames half-bit at {at:.2f}{unit}, frames one-seventh"
        assert str(each).startswith(line)
        assert "\n" not in str(each)
    (axes,) = found.plot().axes
    assert axes.get_legend_handles_labels()[1] == ["frames", "thinned", "half-bit", "one-seventh"]


def test_a_pixel_is_as_large_as_the_caller_or_the_file_says(file: Path) -> None:
    scan = replace(few_frames(), optics=fdo.read_scan(file).optics)
    assert scan.optics is not None
    assert fdo.agreement(scan, epochs=1).pixel_nm == pytest.approx(scan.optics.object_pixel_m * 1e9)
    assert fdo.agreement(scan, epochs=1, pixel_nm=7.0).pixel_nm == 7


def test_all_modes_of_a_file_are_kept_or_the_strongest(file: Path) -> None:
    scan = fdo.read_scan(file)
    np.testing.assert_array_equal(scan.probe, two_modes().probe)
    np.testing.assert_array_equal(scan.counts, two_modes().counts)
    assert fdo.read_scan(file, modes="strongest").probe.shape == (1, 32, 32)


def test_what_cannot_be_done_is_refused_in_one_line() -> None:
    scan = two_modes()
    with pytest.raises(
        StudyError, match=r"^agreement: halves that share a network agree in .*; leave model out"
    ):
        fdo.agreement(scan, "refined", model="refined.safetensors")
    with pytest.raises(StudyError, match=r"^agreement: a scan of 1 frames has no halves$"):
        fdo.agreement(scan.frames(np.array([3])))


def test_a_learned_method_is_trained_on_each_half(monkeypatch: pytest.MonkeyPatch) -> None:
    from fly64_dose_overlap.methods.refined import Refined

    trained: list[str] = []

    def trained_on(method: Any, *arguments: Any) -> Any:
        outcome, timing = original(method, *arguments)
        trained.append(outcome["sha256"])
        return outcome, timing

    original = Refined.trained
    monkeypatch.setattr(Refined, "trained", trained_on)
    found = fdo.agreement(two_modes(), "refined", **tiny_scan.SETTINGS["refined"])
    assert found.result.name == "refined"
    assert len(set(trained)) == 5
    assert found.frc["thinned"].frc[:3].min() > 0.5
