"""pty-chi behind the study's interface: geometry, scale, isolation."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache
from importlib import import_module
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from fly64_dose_overlap.methods.problem import Problem
from fly64_dose_overlap.methods.ptychi_solver import (
    METHODS,
    PtychiMethod,
    _GlobalState,
    build_task,
    ptychi_maths,
)
from torch import Tensor

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.methods._torchvision import GaussianBlur, torchvision_for_import
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.scores.align import align_to
from fly64_dose_overlap.scores.region import scan_region
from fly64_dose_overlap.seeding import torch_seed

SIDE, SHAPE = 32, (53, 56)
one_of_each_model = pytest.mark.parametrize("name", ["lsqml", "ad_poisson"])


@cache
def case(modes: int = 1) -> tuple[Problem, Tensor]:
    """Return 36 noise-free frames at fractional positions, some at the object's edge, and the object."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    # The curved phase of a defocused probe makes the problem well posed.
    main = np.exp(-((y - 0.6) ** 2 + x**2) / 40 + 0.09j * (y**2 + x**2) + 0.1j * y)
    probe = np.stack([main, 0.1 * main * np.exp(0.5j * x) * (x + 1)][:modes])
    probe *= np.sqrt(1e6 / np.sum(np.abs(probe) ** 2))
    lowest, highest = SIDE / 2, np.array(SHAPE) - SIDE / 2
    grid = np.indices((6, 6)).transpose(1, 2, 0).reshape(-1, 2) * (highest - lowest) / 5 + lowest
    jitter = np.random.default_rng(1).uniform(-1.3, 1.3, grid.shape)
    positions = np.clip(grid + jitter, lowest, highest)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    phase = 0.5 * np.sin(rows / 3 + columns / 7) + 0.4 * (np.hypot(rows - 23, columns - 33) < 6)
    truth = torch.from_numpy((0.85 + 0.15 * np.cos(columns / 4)) * np.exp(1j * phase))
    counts = expected(ScanModel(torch.from_numpy(probe), positions, SHAPE), truth)
    problem = Problem(counts.float(), torch.from_numpy(probe.astype(np.complex64)), positions, SHAPE)
    return problem, truth.to(torch.complex64)


def expected(scan: ScanModel, obj: Tensor) -> Tensor:
    return torch.cat([scan.expected(obj, frames) for frames in scan.batches()])


def object_after(name: str, epochs: int, seed: int = 1, modes: int = 1) -> Tensor:
    batch_frames = 6 if "pie" in name else 18
    method = replace(METHODS[name], batch_frames=batch_frames)
    return next(islice(method(case(modes)[0], seed), epochs - 1, None))


def amplitude_residual(method: PtychiMethod, problem: Problem, obj: Tensor) -> float:
    """Return how far the forward model inside pty-chi is from the frames for an object."""
    with _GlobalState(1).swapped_in(), torch.no_grad():
        task = build_task(method, problem, 1)
        task.object.set_data(obj[None])
        found = task.reconstructor.forward_model(torch.arange(len(problem.counts)))
    wanted = problem.counts[:].sqrt()
    return float((found.sqrt() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("modes", [1, 2])
@one_of_each_model
def test_the_truth_explains_the_frames(name: str, modes: int) -> None:
    assert amplitude_residual(METHODS[name], *case(modes)) < 1e-5


@one_of_each_model
def test_a_shifted_probe_is_another_model_between_pixels(name: str) -> None:
    problem, truth = case()
    method = replace(METHODS[name], subpixel="probe")
    whole = replace(problem, positions_px=problem.positions_px.round())
    whole = replace(whole, counts=expected(whole.model(), truth))
    assert amplitude_residual(method, whole, truth) < 1e-5
    assert amplitude_residual(method, problem, truth) > 0.01


@pytest.mark.parametrize(
    ("name", "epochs", "modes", "most"),
    [
        ("lsqml", 40, 1, 0.05),
        ("lsqml", 40, 2, 0.12),
        ("lsqml_compact", 40, 1, 0.03),
        ("rpie", 80, 1, 0.06),
        ("rpie", 80, 2, 0.06),
        ("epie", 50, 1, 0.1),
        ("ad_poisson", 60, 1, 0.03),
    ],
)
def test_noise_free_frames_give_the_truth_in_its_place(
    name: str, epochs: int, modes: int, most: float
) -> None:
    problem, truth = case(modes)
    found = object_after(name, epochs, modes=modes)
    region = scan_region(problem.model().illumination().numpy(), problem.positions_px, 0.2)
    aligned = align_to(truth.numpy(), found.numpy(), region, upsampling=50)
    wanted = truth.numpy()[region.mask]
    # A position read half a pixel off would show as such a shift.
    assert aligned.shift_px == pytest.approx((0, 0), abs=0.1)
    # Neither the probe nor the object was rescaled.
    assert abs(aligned.scale) == pytest.approx(1, abs=0.01)
    assert np.linalg.norm(aligned.field[region.mask] - wanted) < most * np.linalg.norm(wanted)


@pytest.mark.parametrize("name", list(METHODS))
def test_steps_of_one_epoch_are_one_run(name: str) -> None:
    seed = torch_seed(1, "ptychi", name)
    with _GlobalState(seed).swapped_in():
        task = build_task(METHODS[name], case()[0], seed)
        task.run(7)
        whole = task.get_data("object")[0]
    steps = list(islice(METHODS[name](case()[0], 1), 7))
    assert steps[-1].dtype == torch.complex64
    assert torch.equal(steps[-1], whole)
    assert not torch.equal(steps[-2], whole)


@pytest.mark.parametrize("name", ["lsqml", "lsqml_compact"])
def test_the_seed_decides_alone(name: str) -> None:
    first, second = METHODS[name](case()[0], 1), METHODS[name](case()[0], 1)
    mixed = [(next(first), next(second)) for _ in range(2)]
    assert torch.equal(mixed[1][0], mixed[1][1])
    assert torch.equal(mixed[1][0], next(islice(METHODS[name](case()[0], 1), 1, None)))


def test_the_fit_of_a_line_is_the_same_in_every_call() -> None:
    x, generator = torch.arange(3.0), torch.Generator().manual_seed(1)
    for _ in range(20):
        y = torch.randn(3, generator=generator)
        with _GlobalState(1).swapped_in():
            fits = {tuple(ptychi_maths.polyfit(x, y, deg=1).tolist()) for _ in range(20)}
        assert len(fits) == 1
        assert fits.pop() == pytest.approx(np.polyfit(x.numpy(), y.numpy(), 1), abs=1e-5)


def test_another_seed_takes_other_batches() -> None:
    assert not torch.equal(object_after("lsqml", 1, seed=1), object_after("lsqml", 1, seed=2))


def test_the_caller_keeps_the_global_state(
    random_state_guard: Callable[[], AbstractContextManager[None]], capfd: pytest.CaptureFixture[str]
) -> None:
    dtype, threads, handlers = torch.get_default_dtype(), torch.get_num_threads(), list(logging.root.handlers)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"), torch.no_grad():
            for name, method in METHODS.items():
                with random_state_guard():
                    objects = method(case()[0], 1)
                    assert next(objects).dtype == torch.complex64, name
                    np.random.default_rng(1).random()
                assert not torch.is_grad_enabled()
                assert torch.get_default_device().type == "meta"
                assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(dtype)
    assert torch.get_num_threads() == threads
    assert logging.root.handlers == handlers
    assert capfd.readouterr() == ("", "")


def test_an_object_that_is_not_finite_is_reported() -> None:
    problem, _ = case()
    broken = replace(problem, counts=torch.full_like(problem.counts[:], torch.nan))
    with pytest.raises(StudyError, match="pty-chi rpie: the object is not finite after epoch 1; do probe"):
        next(METHODS["rpie"](broken, 1))


def write_torchvision(folder: Path, transforms: str) -> None:
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").touch()
    (folder / "torchvision" / "transforms.py").write_text(transforms)


@pytest.fixture
def without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget a torchvision that was loaded, until after the test."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)


def loaded() -> set[str]:
    return {name for name in sys.modules if name.split(".")[0] == "torchvision"}


@pytest.mark.usefixtures("without_torchvision")
@pytest.mark.parametrize("fault", ["ImportError", "OSError", "RuntimeError"])
def test_a_broken_torchvision_is_replaced_for_the_import_only(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_torchvision(tmp_path, f"raise {fault}('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    with torchvision_for_import():
        assert import_module("torchvision.transforms").GaussianBlur is GaussianBlur
    assert loaded() == set()


@pytest.mark.usefixtures("without_torchvision")
def test_a_torchvision_that_loads_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_torchvision(tmp_path, "GaussianBlur = 'its own'")
    monkeypatch.syspath_prepend(tmp_path)
    with torchvision_for_import():
        assert import_module("torchvision.transforms").GaussianBlur == "its own"
    assert loaded() == {"torchvision", "torchvision.transforms"}
    for name in loaded():
        del sys.modules[name]


def test_the_stand_in_refuses_to_blur() -> None:
    with pytest.raises(StudyError, match="pty-chi asks for a Gaussian blur, but torchvision does not load"):
        GaussianBlur(3, sigma=1.0)
