"""pty-chi as methods of the study: geometry, scale, isolation."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache
from importlib import import_module
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.methods._torchvision import GaussianBlur, torchvision_for_import
from fly64_dose_overlap.methods.ptychi import PtychiIteration, _GlobalState, build_task, image_proc, maths
from fly64_dose_overlap.methods.registry import make_method
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.scores.align import align_to
from fly64_dose_overlap.scores.region import scan_region
from fly64_dose_overlap.seeding import torch_seed

SIDE, SHAPE = 32, (53, 56)
NAMES = ("lsqml", "lsqml_compact", "rpie", "epie", "ad_poisson")
one_of_each_model = pytest.mark.parametrize("name", ["lsqml", "ad_poisson"])


def method(name: str, batch_frames: int | None = None) -> PtychiIteration:
    """Return a method by its name, with other batches if they are given."""
    found = make_method(name)
    assert isinstance(found, PtychiIteration)
    if batch_frames is not None:
        vars(found)["batch_frames"] = batch_frames
    return found


@cache
def case() -> tuple[Scan, NDArray[np.complex64]]:
    """Return 36 noise-free frames at fractional positions, some at the object's edge, and the object."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    # The curved phase of a defocused probe makes the problem well posed.
    probe = np.exp(-((y - 0.6) ** 2 + x**2) / 40 + 0.09j * (y**2 + x**2) + 0.1j * y)
    probe *= np.sqrt(1e6 / np.sum(np.abs(probe) ** 2))
    lowest, highest = SIDE / 2, np.array(SHAPE) - SIDE / 2
    grid = np.indices((6, 6)).transpose(1, 2, 0).reshape(-1, 2) * (highest - lowest) / 5 + lowest
    jitter = np.random.default_rng(1).uniform(-1.3, 1.3, grid.shape)
    positions = np.clip(grid + jitter, lowest, highest)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    phase = 0.5 * np.sin(rows / 3 + columns / 7) + 0.4 * (np.hypot(rows - 23, columns - 33) < 6)
    truth = ((0.85 + 0.15 * np.cos(columns / 4)) * np.exp(1j * phase)).astype(np.complex64)
    empty = np.zeros((len(positions), SIDE, SIDE), np.float32)
    scan = Scan(empty, probe.astype(np.complex64)[None], positions, SHAPE)
    return with_frames_of(scan, truth), truth


def with_frames_of(scan: Scan, obj: NDArray[np.complex64]) -> Scan:
    """Return the scan with what its own forward model expects of an object."""
    found = [scan.model.expected(torch.from_numpy(obj), frames) for frames in scan.model.batches()]
    return replace(scan, counts=torch.cat(found).numpy())


def objects(name: str, scan: Scan, seed: int = 1) -> Iterator[Tensor]:
    return (state.obj for state in method(name).run(scan, seed))


def object_after(name: str, epochs: int, seed: int = 1) -> Tensor:
    made = method(name, 6 if "pie" in name else 18)
    return next(islice(made.run(case()[0], seed), epochs - 1, None)).obj


def residual(name: str, scan: Scan, obj: NDArray[np.complex64]) -> float:
    """Return how far the forward model inside pty-chi is from the counts for an object, relatively."""
    with _GlobalState(1).swapped_in(), torch.no_grad():
        task = build_task(method(name), scan, 1)
        task.object.set_data(torch.from_numpy(obj)[None])
        found = task.reconstructor.forward_model(torch.arange(len(scan)))
    wanted = torch.from_numpy(np.fft.ifftshift(scan.counts[:], axes=(-2, -1)))
    return float((found - wanted).norm() / wanted.norm())


@one_of_each_model
def test_its_forward_model_is_ours_at_fractional_positions(name: str) -> None:
    scan, truth = case()
    assert np.abs(scan.positions_px - np.rint(scan.positions_px)).max() > 0.4
    assert residual(name, scan, truth) < 1e-4


@pytest.mark.parametrize("side", [30, 31, 32])
@pytest.mark.parametrize("offset", [0.0, 0.5, 0.49, 0.51, 1.5, -0.5])
def test_its_forward_model_is_ours_where_positions_are_rounded(offset: float, side: int) -> None:
    """Half a pixel is rounded to the even one here, and may be otherwise there."""
    scan, truth = case()
    low = (SIDE - side) // 2
    probe = scan.probe[:, low : low + side, low : low + side]
    whole = np.array([[20, 20], [21, 20], [20, 21], [27, 30], [33, 34]], np.float64)
    small = Scan(np.zeros((5, side, side), np.float32), probe, whole + offset, SHAPE)
    small = with_frames_of(small, truth)
    assert residual("lsqml", small, truth) < 1e-4
    moved = replace(small, positions_px=small.positions_px + 0.25)
    assert residual("lsqml", moved, truth) > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_every_mode_of_a_probe_is_at_the_fractional_position(name: str) -> None:
    scan, truth = case()
    second = 0.4 * np.roll(scan.probe, (3, -2), axis=(1, 2)) * np.exp(0.3j * np.arange(SIDE))
    modes = with_frames_of(
        replace(scan, probe=np.concatenate([scan.probe, second]).astype(np.complex64)), truth
    )
    assert residual(name, modes, truth) < 1e-4
    assert residual(name, replace(modes, probe=modes.probe[:1]), truth) > 0.01


@one_of_each_model
def test_pixels_that_do_not_count_have_no_part(name: str) -> None:
    scan, _ = case()
    masks = np.random.default_rng(2).random(scan.counts.shape) > 0.01
    always = masks.all(axis=0)
    found: list[Tensor] = []
    for mask, gap in ((always, 0.0), (always, 1e5), (masks, 1e5)):
        counts = np.where(mask, scan.counts[:], gap).astype(np.float32)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found.append(next(islice(objects(name, replace(scan, counts=counts, mask=mask)), 2, None)))
        message = "takes one mask for all frames, which leaves out"
        assert any(message in str(each.message) for each in said) == (mask is masks)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_mask_of_each_frame_that_leaves_nothing_is_refused() -> None:
    scan = case()[0]
    mask = np.ones(scan.counts.shape, bool)
    mask.reshape(len(mask), -1)[np.arange(SIDE**2) % len(mask), np.arange(SIDE**2)] = False
    with pytest.raises(StudyError, match=r"^LSQML: takes one mask for all frames, which leaves out 100%"):
        next(objects("lsqml", replace(scan, mask=mask)))


def test_a_background_is_said_to_be_ignored() -> None:
    scan = replace(case()[0], background=np.ones((SIDE, SIDE), np.float32))
    with pytest.warns(UserWarning, match="^LSQML: pty-chi knows no background, and takes it for light that"):
        next(objects("lsqml", scan))


@pytest.mark.parametrize(
    ("name", "epochs", "most"),
    [
        ("lsqml", 40, 0.05),
        ("lsqml_compact", 40, 0.03),
        ("rpie", 80, 0.06),
        ("epie", 50, 0.1),
        ("ad_poisson", 60, 0.03),
    ],
)
def test_noise_free_frames_give_the_truth_in_its_place(name: str, epochs: int, most: float) -> None:
    scan, truth = case()
    found = object_after(name, epochs)
    region = scan_region(scan.illumination(), scan.positions_px, 0.2)
    aligned = align_to(truth, found.numpy(), region, upsampling=50)
    wanted = truth[region.mask]
    # A position read half a pixel off would show as such a shift.
    assert aligned.shift_px == pytest.approx((0, 0), abs=0.1)
    # Neither the probe nor the object was rescaled.
    assert abs(aligned.scale) == pytest.approx(1, abs=0.01)
    assert np.linalg.norm(aligned.field[region.mask] - wanted) < most * np.linalg.norm(wanted)


@pytest.mark.parametrize("name", NAMES)
def test_steps_of_one_epoch_are_one_run(name: str) -> None:
    seed = torch_seed(1, "ptychi", name)
    with _GlobalState(seed).swapped_in():
        task = build_task(method(name), case()[0], seed)
        task.run(7)
        whole = task.get_data("object")[0]
    steps = list(islice(objects(name, case()[0]), 7))
    assert steps[-1].dtype == torch.complex64
    assert torch.equal(steps[-1], whole)
    assert not torch.equal(steps[-2], whole)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_alone(name: str) -> None:
    first, second = objects(name, case()[0]), objects(name, case()[0])
    mixed = [(next(first), next(second)) for _ in range(2)]
    assert torch.equal(mixed[1][0], mixed[1][1])
    assert torch.equal(mixed[1][0], next(islice(objects(name, case()[0]), 1, None)))


def test_the_fit_of_a_line_is_the_same_in_every_call() -> None:
    x, generator = torch.arange(3.0), torch.Generator().manual_seed(1)
    for _ in range(20):
        y = torch.randn(3, generator=generator)
        with _GlobalState(1).swapped_in():
            fits = {tuple(maths.polyfit(x, y, deg=1).tolist()) for _ in range(20)}
        assert len(fits) == 1
        assert fits.pop() == pytest.approx(np.polyfit(x.numpy(), y.numpy(), 1), abs=1e-5)


def test_the_faster_shift_is_ptychis_own() -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(5, 8, 10, dtype=torch.complex64, generator=generator)
    shifts = torch.rand(5, 2, generator=generator) - 0.5
    own = image_proc.fourier_shift
    with _GlobalState(1).swapped_in():
        faster = image_proc.fourier_shift
        assert faster is not own
        for given in (images, images.real):
            torch.testing.assert_close(faster(given, shifts), own(given, shifts), atol=2e-6, rtol=0)
    assert image_proc.fourier_shift is own


def test_its_import_leaves_the_global_generator_alone() -> None:
    code = (
        "import random; random.seed(1); before = random.getstate(); "
        "from fly64_dose_overlap.methods import ptychi; assert random.getstate() == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_seed_takes_other_batches() -> None:
    assert not torch.equal(object_after("lsqml", 1, seed=1), object_after("lsqml", 1, seed=2))


def test_the_caller_keeps_the_global_state(
    random_state_guard: Callable[[], AbstractContextManager[None]], capfd: pytest.CaptureFixture[str]
) -> None:
    dtype, threads, handlers = torch.get_default_dtype(), torch.get_num_threads(), list(logging.root.handlers)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"), torch.no_grad():
            for name in NAMES:
                with random_state_guard():
                    found = objects(name, case()[0])
                    assert next(found).dtype == torch.complex64, name
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
    scan, _ = case()
    broken = replace(scan, counts=np.full_like(scan.counts[:], np.nan))
    with pytest.raises(StudyError, match="pty-chi rpie: the object is not finite after epoch 1; do probe"):
        next(objects("rpie", broken))


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
