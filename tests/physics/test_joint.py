"""Gradients of the likelihood by all that is unknown, against those of others and differences."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import fly64_dose_overlap as fdo
from fly64_dose_overlap.physics.fisher import FisherInformation
from fly64_dose_overlap.physics.illumination import whole_and_rest
from fly64_dose_overlap.physics.joint import Unknowns, joint_likelihood
from fly64_dose_overlap.physics.joint_fisher import JointInformation
from fly64_dose_overlap.physics.likelihood import scan_likelihood

BACKGROUND = 0.1


@cache
def case() -> tuple[fdo.Scan, Unknowns]:
    """Return a scan with two modes, a mask and a background, and a guess that is far from it."""
    scan, truth = fdo.simulate(1e4, seed=1, field_px=30, frame_side_px=32, defocus_um=200)
    second = 0.3 * np.roll(scan.probe, 3, axis=1) * np.linspace(-1, 1, scan.side)
    mask = np.random.default_rng(1).random((scan.side, scan.side)) > 0.1
    dark = np.full((scan.side, scan.side), 0.2, np.float32)
    counts = scan.counts[:] * mask
    probe = np.concatenate([scan.probe, second]).astype(np.complex64)
    scan = replace(scan, probe=probe, mask=mask, background=dark, counts=counts)
    shifts = whole_and_rest(scan.positions_px, scan.side)[1]
    obj = torch.from_numpy((0.6 * truth**0.5).astype(np.complex64))
    flux = 0.1 * np.random.default_rng(3).normal(size=len(scan))
    scan = replace(scan, flux=np.exp(flux))
    return scan, Unknowns(obj, torch.from_numpy(probe), shifts, flux)


def value(at: Unknowns) -> float:
    scan, _ = case()
    return joint_likelihood(scan.model, scan.counts, at, BACKGROUND)[0]


def test_value_and_gradient_by_the_object_are_those_of_the_likelihood() -> None:
    scan, at = case()
    wanted, slope = scan_likelihood(scan.model, scan.counts, at.obj, BACKGROUND)
    found, gradient = joint_likelihood(scan.model, scan.counts, at, BACKGROUND)
    assert found == pytest.approx(wanted, rel=1e-6)
    torch.testing.assert_close(gradient.obj, slope, rtol=0, atol=1e-5 * float(slope.abs().max()))


@pytest.mark.parametrize("name", ["obj", "probe", "shifts_px", "log_flux"])
def test_the_gradient_is_what_the_value_changes_by(name: str) -> None:
    scan, at = case()
    gradient = joint_likelihood(scan.model, scan.counts, at, BACKGROUND)[1]
    own = getattr(at, name)
    rng = np.random.default_rng(2)
    if name in ("shifts_px", "log_flux"):
        step = 0.02 * rng.normal(size=own.shape)
        change = float((getattr(gradient, name) * step).sum())
    else:
        noise = rng.normal(size=own.shape) + 1j * rng.normal(size=own.shape)
        step = torch.from_numpy((1e-3 * float(own.abs().max()) * noise).astype(np.complex64))
        change = float((getattr(gradient, name).conj() * step).real.sum(dtype=torch.float64))
    there, back = (value(replace(at, **{name: own + sign * step})) for sign in (1, -1))
    assert (there - back) / 2 == pytest.approx(change, rel=0.01)


def test_one_thread_and_two_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    scan, at = case()
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        found.append(joint_likelihood(scan.model, scan.counts, at, BACKGROUND))
    (first, one), (second, other) = found
    assert first == second
    for name in ("obj", "probe", "shifts_px", "log_flux"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def changes(at: Unknowns) -> Unknowns:
    """Return a small change of everything."""
    rng = np.random.default_rng(4)

    def noise(like: torch.Tensor) -> torch.Tensor:
        values = rng.normal(size=like.shape) + 1j * rng.normal(size=like.shape)
        return torch.from_numpy((1e-3 * float(like.abs().max()) * values).astype(np.complex64))

    shifts, light = (1e-3 * rng.normal(size=each.shape) for each in (at.shifts_px, at.log_flux))
    return Unknowns(noise(at.obj), noise(at.probe), shifts, light)


@pytest.mark.parametrize("name", ["obj", "probe", "shifts_px", "log_flux", "all"])
def test_information_on_a_change_is_what_it_does_to_the_counts(name: str) -> None:
    """The sum of the squared change of expected photons over them, by a difference quotient."""
    scan, at = case()
    step = changes(at)
    if name != "all":
        still = {
            key: 0 * getattr(step, key) for key in ("obj", "probe", "shifts_px", "log_flux") if key != name
        }
        step = replace(step, **still)

    def expected(sign: int) -> torch.Tensor:
        moved = replace(
            scan,
            probe=(at.probe + sign * step.probe).numpy(),
            positions_px=scan.positions_px + sign * step.shifts_px,
            flux=np.exp(at.log_flux + sign * step.log_flux),
        )
        model, obj = moved.model, at.obj + sign * step.obj
        return torch.cat([model.expected(obj, frames) for frames in model.batches()]).double()

    mask = torch.from_numpy(np.asarray(scan.mask))
    change = (expected(1) - expected(-1)) / 2
    wanted = float((change.square() / expected(0))[:, mask].sum())
    found = JointInformation(scan.model, at).product(step)
    inner = sum(
        float((getattr(step, key).conj() * getattr(found, key)).real.sum()) for key in ("obj", "probe")
    )
    inner += float((step.shifts_px * found.shifts_px).sum() + (step.log_flux * found.log_flux).sum())
    assert inner == pytest.approx(wanted, rel=0.01)


def test_the_object_s_own_block_is_that_of_a_known_instrument() -> None:
    scan, at = case()
    step = changes(at)
    nothing = Unknowns(step.obj, 0 * step.probe, 0 * step.shifts_px, 0 * step.log_flux)
    found = JointInformation(scan.model, at).product(nothing).obj
    wanted = FisherInformation(scan.model, at.obj).product(step.obj)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))
