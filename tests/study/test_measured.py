"""Measured frames against the object in their own file: axes, order and orientation told at import."""

from __future__ import annotations

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
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline import cli
from fly64_dose_overlap.study.measured import orientation_doubt, orientations, require_truth

Case = tuple[fdo.Scan, NDArray[np.complex64]]


@cache
def case() -> Case:
    """Return a scan of a texture, which has no symmetry; do not change its arrays."""
    return fdo.simulate(1e5, seed=1, object_kind="texture", field_px=30, frame_side_px=32, defocus_um=200)


def frames(change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Callable[[Case], Case]:
    return lambda case: (replace(case[0], counts=np.ascontiguousarray(change(case[0].counts[:]))), case[1])


def positions(change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Callable[[Case], Case]:
    return lambda case: (replace(case[0], positions_px=change(case[0].positions_px.copy())), case[1])


def inverted(at: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    at[:, axis] = at[:, axis].min() + at[:, axis].max() - at[:, axis]
    return at


TOLD = "its own object explains the frames better with base.mend.turn: ["
WORSE = "its own object explains the frames worse than their mean does, misfit "
TURNED: dict[str, tuple[Callable[[Case], Case], str]] = {
    "x and y swapped": (
        positions(lambda at: np.ascontiguousarray(at[:, ::-1])),
        TOLD + "swap_positions",
    ),
    "y inverted": (positions(lambda at: inverted(at, 0)), TOLD + "invert_y"),
    "x inverted": (positions(lambda at: inverted(at, 1)), TOLD + "invert_x"),
    "frames transposed": (frames(lambda n: n.transpose(0, 2, 1)), TOLD + "transpose_frames"),
    "frames upside down": (frames(lambda n: n[:, ::-1]), TOLD + "flip_frames_y"),
    "frames mirrored": (frames(lambda n: n[:, :, ::-1]), TOLD + "flip_frames_x"),
    "zero frequency in a corner": (
        frames(lambda n: np.fft.fftshift(n, axes=(1, 2))),
        TOLD + "shift_frames",
    ),
    "one frame too many at the start": (
        frames(lambda n: np.roll(n, 1, axis=0)),
        TOLD + "advance_frames",
    ),
    "frames in reverse": (frames(lambda n: n[::-1]), TOLD + "reverse_frames"),
    "probe conjugated": (
        lambda case: (replace(case[0], probe=case[0].probe.conj()), case[1]),
        TOLD + "conjugate_probe",
    ),
    "object conjugated": (
        lambda case: (case[0], case[1].conj()),
        "its own object is the conjugate",
    ),
    "frames shuffled": (frames(lambda n: np.random.default_rng(1).permutation(n)), WORSE),
    "positions in half pixels": (positions(lambda at: at.mean(axis=0) / 2 + at / 2), WORSE),
    "object of another scan": (lambda case: (case[0], np.roll(case[1], 20, axis=1)), WORSE),
}


@pytest.mark.parametrize("name", list(TURNED))
def test_one_fact_turned_is_told_by_its_name(name: str) -> None:
    change, wanted = TURNED[name]
    assert orientation_doubt(*change(case())).startswith(wanted)


def test_the_right_file_has_the_least_misfit_of_all_and_far_less_than_one() -> None:
    given, *others = orientations(*case())
    assert given.changes == ()
    assert given.misfit < 0.3
    assert given.misfit <= min(each.misfit for each in others)
    assert len(others) == 16 * 19 - 1


def test_neither_the_unit_of_the_probe_nor_an_object_of_ones_is_doubted() -> None:
    scan, truth = case()
    assert orientation_doubt(replace(scan, probe=(1e3 * scan.probe).astype(np.complex64)), truth) == ""
    assert orientation_doubt(scan, np.full_like(truth, 0.5j)) == ""
    assert orientation_doubt(scan.frames(np.array([3])), truth) == ""


def write(path: Path, scan: fdo.Scan, truth: NDArray[np.complex64]) -> Path:
    y, x = scan.positions_px.T
    arrays: dict[str, Any] = {"objectGuess": truth, "probeGuess": scan.probe, "xcoords": x, "ycoords": y}
    np.savez(path, counts=scan.counts[:].astype(np.uint32), **arrays)
    return path


def test_a_file_is_warned_of_when_it_is_read_and_a_right_one_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fdo.read_scan(write(tmp_path / "right.npz", *case()))
    cli.inspect(tmp_path / "right.npz", find=True)
    said = capsys.readouterr().out.splitlines()
    after = said.index("nothing speaks against counts, probe and positions")
    assert "as it is (best) (the file)" in said[after + 1]

    wrong = write(tmp_path / "wrong.npz", *TURNED["frames transposed"][0](case()))
    with pytest.warns(UserWarning, match=r"wrong\.npz: its own .* \[transpose_frames\], misfit"):
        fdo.read_scan(wrong)
    cli.inspect(wrong, find=True)
    said = capsys.readouterr().out.splitlines()
    assert any("[transpose_frames] (best)" in line for line in said)
    assert any(line.endswith("as it is (the file)") for line in said)


def test_a_truth_belongs_to_a_scan_behind_a_mask_and_over_a_background() -> None:
    scan, truth = fdo.simulate(1e4, seed=1, field_px=50, frame_side_px=32, defocus_um=200)
    mask = np.ones((32, 32), bool)
    mask[:, 16:] = False
    half = replace(scan, counts=scan.counts[:] * mask, mask=mask)
    background = np.full((32, 32), 10, np.float32)
    counts = scan.counts[:] + np.random.default_rng(2).poisson(background, scan.counts.shape)
    over = replace(scan, counts=counts.astype(np.float32), background=background)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for each in (half, over):
            require_truth(each, truth)
            assert orientation_doubt(each, truth) == ""
    with pytest.raises(StudyError, match="probe and truth give"):
        require_truth(replace(half, counts=half.counts[:] * 2), truth)
