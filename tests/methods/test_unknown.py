"""What is not right of a probe, of positions and of the light of frames is found with the object."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import fly64_dose_overlap as fdo
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.methods.registry import make_method
from fly64_dose_overlap.methods.searches import about_middle, defocused, focused, with_probe_of_data
from fly64_dose_overlap.physics.illumination import bare_far_field

SMALL: dict[str, Any] = {"seed": 1, "field_px": 80}
QUICK: dict[str, Any] = {"seed": 1, "field_px": 30, "frame_side_px": 32, "defocus_um": 200}
TOO_FAR: dict[str, Any] = {**QUICK, "defocus_um": 360}
PROBE = fdo.Unknown(probe=True)


@cache
def case(size: str = "quick") -> tuple[fdo.Scan, NDArray[np.complex64]]:
    return fdo.simulate(1e4, **(QUICK if size == "quick" else SMALL))


@cache
def other_probe() -> NDArray[np.complex64]:
    """Return the probe as it would be 80 % further from the focus."""
    return fdo.simulate(1e4, **TOO_FAR)[0].probe


def phase_db(result: fdo.Result, scan: fdo.Scan, truth: NDArray[np.complex64]) -> float:
    """Return the score against the truth of the right scan."""
    found = fdo.score(replace(result, scan=scan), truth).phase_psnr_db
    assert found is not None
    return found


def alike(first: NDArray[np.complex64], second: NDArray[np.complex64]) -> float:
    """Return the overlap of two probes, 1 if they are the same but for a factor."""
    return float(np.abs(np.vdot(first, second)) / np.linalg.norm(first) / np.linalg.norm(second))


def optics_curvature(scan: fdo.Scan) -> float:
    """Return what `defocused` takes of a metre."""
    assert scan.optics is not None
    return scan.optics.wavelength_m / scan.optics.object_pixel_m**2


def flickering(spread: float) -> tuple[fdo.Scan, NDArray[np.float64]]:
    """Return the scan with frames of more and less light, and that light."""
    scan, truth = case()
    rng = np.random.default_rng(3)
    flux = np.exp(spread * rng.normal(size=len(scan)))
    model, obj = replace(scan, flux=flux).model, torch.from_numpy(truth)
    expected = torch.cat([model.expected(obj, frames) for frames in model.batches()]).numpy()
    return replace(scan, counts=rng.poisson(expected).astype(np.float32)), flux


def test_a_scan_of_which_all_is_known_is_given_as_it_is() -> None:
    assert make_method("map").taken(case()[0]) is case()[0]


@pytest.mark.slow
def test_a_probe_is_made_of_the_frames_alone() -> None:
    scan, truth = case()
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, *scan.probe.shape)).astype(np.float32)
    blind = replace(scan, probe=noise[0] + 1j * noise[1], unknown=fdo.Unknown(probe="anew"))
    found = fdo.reconstruct(blind, "map")
    assert alike(found.probe[0], scan.probe[0]) > 0.99
    known = phase_db(fdo.reconstruct(scan, "map"), scan, truth)
    assert phase_db(found, scan, truth) > known - 1.5


def test_pixels_that_each_frame_masks_anew_are_no_hole_in_the_lens() -> None:
    scan, _ = case()
    masked = np.random.default_rng(0).random(scan.counts.shape) > 0.1
    assert replace(scan, mask=masked).always_counting.mean() < 0.02
    found = with_probe_of_data(replace(scan, mask=masked))
    assert alike(found.probe[0], scan.probe[0]) > 0.9


def test_a_lens_that_is_told_comes_into_focus() -> None:
    scan = about_middle(case("small")[0], 100)
    off = replace(scan, probe=fdo.lens_probe(scan, rim_mrad=1.41, stop_mrad=0.47, defocus_um=760))
    assert alike(off.probe, scan.probe) < 0.3
    assert alike(focused(off).probe, scan.probe) > 0.9


def test_a_focus_is_told_beside_a_stop_that_hides_the_lens() -> None:
    scan, _ = case()
    far = bare_far_field(scan.probe)
    hidden = replace(scan, mask=far < 0.05 * np.quantile(far, 0.95))
    assert alike(focused(hidden).probe, scan.probe) > 0.9


@pytest.mark.slow
def test_a_background_that_cannot_be_is_warned_of() -> None:
    scan, _ = case()
    dark = np.full((scan.side, scan.side), 100, np.float32)
    with pytest.warns(UserWarning, match="explains the frames little better than their own mean"):
        fdo.calibrate(replace(scan, background=dark), PROBE)


@pytest.mark.slow
def test_a_probe_out_of_focus_is_found() -> None:
    scan, truth = case()
    wrong = replace(scan, probe=other_probe())
    blind = fdo.reconstruct(replace(wrong, unknown=fdo.Unknown(probe=True)), "map")
    known, told = (phase_db(fdo.reconstruct(each, "map"), scan, truth) for each in (scan, wrong))
    found = phase_db(blind, scan, truth)
    assert found > known - 1
    assert found > told + 2
    power = (np.abs(blind.probe) ** 2).sum(), (np.abs(scan.probe) ** 2).sum()
    assert power[0] == pytest.approx(power[1], rel=0.05)


@pytest.mark.slow
def test_the_focus_of_a_probe_in_other_units_is_found() -> None:
    scan, _ = case()
    found = fdo.calibrate(replace(scan, probe=other_probe() * np.float32(0.01)), PROBE)
    assert alike(found.probe, scan.probe) > 0.95 > alike(other_probe(), scan.probe)


@pytest.mark.slow
def test_positions_that_are_wrong_are_found() -> None:
    scan, truth = case("small")
    error = np.random.default_rng(0).normal(size=scan.positions_px.shape)
    low, high = scan.positions_px.min(axis=0), scan.positions_px.max(axis=0)
    wrong = replace(scan, positions_px=np.clip(scan.positions_px + error, low, high))
    found = fdo.reconstruct(replace(wrong, unknown=fdo.Unknown(positions_px=1.0)), "map")
    left = found.positions_px - scan.positions_px
    assert (left - left.mean(axis=0)).std() < 0.1
    assert phase_db(found, scan, truth) > phase_db(fdo.reconstruct(wrong, "map"), scan, truth) + 5
    np.testing.assert_array_equal(found.probe, scan.probe)


@pytest.mark.slow
def test_positions_that_are_far_off_are_found_with_a_probe_out_of_focus() -> None:
    """No part of the object settles a whole pixel from the rest."""
    scan, truth = fdo.simulate(1e5, **SMALL)
    error = 2 * np.random.default_rng(0).normal(size=scan.positions_px.shape)
    low, high = scan.positions_px.min(axis=0), scan.positions_px.max(axis=0)
    moved = np.clip(scan.positions_px + error, low, high)
    probe = defocused(scan.probe, 0.3 * 910e-6 * optics_curvature(scan)) * np.float32(1.3**0.5)
    wrong = replace(scan, positions_px=moved, probe=probe)
    found = fdo.reconstruct(replace(wrong, unknown=fdo.Unknown(probe=True, positions_px=2.0)), "map")
    left = found.positions_px - scan.positions_px
    assert np.median(np.hypot(*(left - left.mean(axis=0)).T)) < 0.1
    assert phase_db(found, scan, truth) > phase_db(fdo.reconstruct(scan, "map"), scan, truth) - 3


def test_the_light_of_each_frame_is_found() -> None:
    scan, flux = flickering(0.1)
    found = fdo.reconstruct(replace(scan, unknown=fdo.Unknown(flux=0.1)), "map")
    assert found.flux is not None
    assert np.log(found.flux).mean() == pytest.approx(0, abs=1e-6)
    assert np.corrcoef(np.log(found.flux), np.log(flux))[0, 1] > 0.9
    given = fdo.reconstruct(scan, "map")
    assert given.flux is None
    right, truth = case()
    errors = [fdo.score(replace(each, scan=right), truth).complex_nrmse for each in (found, given)]
    assert errors[0] < 0.6 * errors[1]
    np.testing.assert_array_equal(found.probe, scan.probe)
    np.testing.assert_array_equal(found.positions_px, scan.positions_px)


@pytest.mark.slow
def test_what_was_found_can_be_used_for_other_frames_of_the_object() -> None:
    """A calibrated scan is known: no method looks again, and none of what it is given changes."""
    scan, _ = case()
    found = fdo.calibrate(replace(scan, probe=other_probe()), fdo.Unknown(True, 0.3, 0.02))
    assert not found.unknown
    assert make_method("map").taken(found) is found
    dim = replace(fdo.thin(scan, 0.2), probe=found.probe * np.float32(0.2**0.5))
    np.testing.assert_array_equal(fdo.reconstruct(dim, "ml", epochs=2).probe, dim.probe)


@pytest.mark.slow
def test_modes_are_orthogonal_and_the_strongest_first() -> None:
    scan, _ = case()
    second = 0.3 * np.roll(scan.probe, 3, axis=1)
    modes = np.concatenate([second, scan.probe]).astype(np.complex64)
    found = fdo.calibrate(replace(scan, probe=modes), PROBE).probe
    powers = (np.abs(found) ** 2).sum(axis=(1, 2))
    assert powers[0] > powers[1]
    assert abs((found[0].conj() * found[1]).sum()) < 1e-3 * np.sqrt(powers.prod())


@pytest.mark.slow
def test_a_network_is_given_what_was_found() -> None:
    wrong = replace(case()[0], probe=other_probe(), unknown=fdo.Unknown(probe=True))
    found = fdo.reconstruct(wrong, "refined", epochs=1, steps_per_epoch=2, iterations=3, width=4, crop_px=32)
    assert alike(found.probe, case()[0].probe) > alike(found.probe, other_probe())


@pytest.mark.slow
def test_halves_of_the_data_find_probes_of_their_own() -> None:
    scan = replace(case()[0], probe=other_probe(), unknown=fdo.Unknown(probe=True))
    with pytest.warns(UserWarning, match="halves of the frames only to"):
        found = fdo.agreement(scan, "ml", epochs=5)
    first, second = (each.probe for each in found.halves["thinned"])
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("name", ["lsqml", "rpie", "epie"])
@pytest.mark.slow
def test_pty_chi_looks_for_what_is_unknown_by_itself(name: str) -> None:
    scan, _ = case()
    wrong = replace(scan, positions_px=scan.positions_px.round())
    found = fdo.reconstruct(replace(wrong, unknown=fdo.Unknown(positions_px=0.3)), name, epochs=20)
    assert not np.array_equal(found.positions_px, wrong.positions_px)
    np.testing.assert_array_equal(found.probe, scan.probe)
    blind = replace(scan, probe=other_probe(), unknown=fdo.Unknown(probe=True))
    found = fdo.reconstruct(blind, name, epochs=20)
    assert alike(found.probe, scan.probe) > alike(other_probe(), scan.probe)
    np.testing.assert_array_equal(found.positions_px, scan.positions_px)


def test_a_focus_that_is_about_right_stays_so() -> None:
    scan = replace(case()[0], unknown=fdo.Unknown(probe=True))
    found = focused(scan).probe
    assert alike(found, scan.probe) > 0.98
    assert alike(found, scan.probe) > alike(other_probe(), scan.probe)


def test_a_probe_propagated_there_and_back_is_the_same() -> None:
    probe = case()[0].probe
    there = defocused(probe, 5.0)
    assert np.abs(there - probe).max() > 0.1 * np.abs(probe).max()
    np.testing.assert_allclose(defocused(there, -5.0), probe, atol=1e-5 * np.abs(probe).max())


@pytest.mark.parametrize(
    "wrong", [{"positions_px": -1.0}, {"positions_px": 11.0}, {"flux": 1.5}, {"flux": np.nan}]
)
def test_spreads_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(StudyError, match=f"{next(iter(wrong))} must be from 0"):
        fdo.Unknown(**wrong)


def test_a_search_for_nothing_is_refused() -> None:
    with pytest.raises(StudyError, match="nothing is unknown; set its probe"):
        fdo.calibrate(case()[0], fdo.Unknown())


@pytest.mark.parametrize("flux", [np.zeros(49), np.full(49, np.nan)])
def test_light_that_is_none_is_refused(flux: NDArray[np.float64]) -> None:
    with pytest.raises(StudyError, match="flux"):
        replace(case()[0], flux=flux)


@pytest.mark.slow
def test_a_probe_at_the_edge_of_its_frame_is_moved_to_the_middle(capsys: pytest.CaptureFixture[str]) -> None:
    scan, truth = case()
    turned = replace(scan, probe=np.fft.fftshift(scan.probe, axes=(1, 2)))
    with pytest.warns(UserWarning, match="lies at the edge"):
        found = fdo.calibrate(turned, PROBE)
    assert "is moved to the middle" in capsys.readouterr().err
    assert alike(found.probe, scan.probe) > 0.95
    image = fdo.reconstruct(replace(scan, probe=found.probe), "map")
    assert phase_db(image, scan, truth) > 28


@pytest.mark.slow
def test_modes_that_are_one_become_several(capsys: pytest.CaptureFixture[str]) -> None:
    scan, _ = case()
    found = fdo.calibrate(replace(scan, probe=np.concatenate([scan.probe, scan.probe])), PROBE)
    assert "1 of its modes are none of their own" in capsys.readouterr().err
    assert ((np.abs(found.probe) ** 2).sum(axis=(1, 2)) > 0).all()


@pytest.mark.slow
def test_positions_of_other_frames_are_warned_of() -> None:
    """No start leads from there: what is found would look like an object and be none."""
    wider: dict[str, Any] = {**QUICK, "field_px": 60}
    scan, _ = fdo.simulate(1e6, **wider)
    order = np.random.default_rng(0).permutation(len(scan))
    with pytest.warns(UserWarning, match="explains the frames little better than their own mean"):
        fdo.calibrate(replace(scan, positions_px=scan.positions_px[order]), fdo.Unknown(True, 1.0))


@pytest.mark.slow
def test_positions_that_too_few_frames_tell_of_are_warned_of() -> None:
    scan, _ = case()
    errors = np.random.default_rng(0).normal(size=scan.positions_px.shape)
    off = replace(scan, positions_px=scan.on_grid(scan.positions_px + errors))
    with pytest.warns(UserWarning, match="foretells frames that were left out no better"):
        found = fdo.calibrate(off, fdo.Unknown(positions_px=1.0))
    assert np.std(found.positions_px - scan.positions_px) > 0.5


@pytest.mark.slow
def test_modes_are_as_many_as_are_asked_for() -> None:
    scan, _ = case()
    assert fdo.calibrate(scan, fdo.Unknown(True, modes=3)).probe.shape[0] == 3
    assert fdo.calibrate(scan, fdo.Unknown(True, modes="auto")).probe.shape[0] == 1
