"""Classical iterations on single groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fly64_dose_overlap.physics.groups import GroupModel
from fly64_dose_overlap.physics.likelihood import poisson_deviance
from fly64_dose_overlap.physics.start import group_start

SIDE, CANVAS = 16, 24


def one_group() -> tuple[GroupModel, torch.Tensor]:
    """Return a group of 25 strongly overlapping frames, and its object."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    # The curved phase of a defocused probe makes the problem well posed.
    probe = 300 * np.exp(-(y**2 + x**2) / 18 + 0.12j * (y**2 + x**2) + 0.2j * y)
    steps = np.array([0, 2, 4, 6, 8])
    corners = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(1, -1, 2)
    rows, columns = np.mgrid[:CANVAS, :CANVAS] / 3.5
    obj = (0.8 + 0.2 * np.cos(rows)) * np.exp(0.7j * np.sin(columns + rows))
    probes = torch.from_numpy(probe.astype(np.complex64)).expand(1, 25, 1, SIDE, SIDE)
    model = GroupModel(probes, corners, SIDE, CANVAS)
    return model, torch.from_numpy(obj.astype(np.complex64))[None]


def test_noise_free_data_give_the_truth_up_to_a_phase() -> None:
    model, truth = one_group()
    counts = model.expected(truth)
    found = group_start(model, counts, 150)[1][0].numpy()
    lit = (model.illumination[0] > 0.2 * model.illumination.max()).numpy()
    seen, wanted = found[lit], truth[0].numpy()[lit]
    phase = np.vdot(seen, wanted)
    error = np.linalg.norm(seen * phase / abs(phase) - wanted) / np.linalg.norm(wanted)
    start = np.linalg.norm(np.abs(np.vdot(wanted, np.ones_like(wanted))) / wanted.size - wanted)
    assert error < 0.02 < start / np.linalg.norm(wanted)


def test_data_misfit_falls_from_empty_to_early_to_late() -> None:
    model, truth = one_group()
    rng = np.random.default_rng(0)
    counts = torch.from_numpy(rng.poisson(model.expected(truth)).astype(np.float32))
    early, late = group_start(model, counts, 12)
    empty = torch.ones_like(truth)
    misfits = [float(poisson_deviance(model.expected(canvas), counts)) for canvas in (empty, early, late)]
    assert misfits[2] < misfits[1] < 0.5 * misfits[0]


def test_early_is_the_state_after_a_quarter_of_the_iterations() -> None:
    model, truth = one_group()
    counts = model.expected(truth)
    assert torch.equal(group_start(model, counts, 12)[0], group_start(model, counts, 3)[1])


@pytest.mark.parametrize("iterations", [0, 2])
def test_the_object_stays_empty_where_no_photon_falls(iterations: int) -> None:
    model, truth = one_group()
    counts = model.expected(truth)
    probe = torch.from_numpy(np.pad(np.full((4, 4), 90, np.complex64), 6))
    narrow = GroupModel(probe.expand(1, 25, 1, SIDE, SIDE), np.full((1, 25, 2), 4), SIDE, CANVAS)
    late = group_start(narrow, counts, iterations)[1][0]
    dark = narrow.illumination[0] == 0
    assert dark.sum() == CANVAS**2 - 16
    assert torch.all(late[dark] == 1)
    assert bool(torch.any(late != 1)) == (iterations > 0)
