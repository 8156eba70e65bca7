"""What `base.mend` names is put right as a file is read."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import fly64_dose_overlap as fdo
from fly64_dose_overlap.errors import StudyError

Arrays = dict[str, Any]
FRAMES, SIDE = 30, 32


@cache
def scan() -> fdo.Scan:
    return fdo.simulate(1e4, seed=1, field_px=30, frame_side_px=SIDE, defocus_um=200)[0].frames(
        np.arange(FRAMES)
    )


def arrays() -> Arrays:
    """Return the scan as a file has it, on an oblong grid, with a mask of every frame and a background."""
    y, x = scan().positions_px.T
    rng = np.random.default_rng(1)
    return {
        "counts": scan().counts[:].astype(np.uint16),
        "probeGuess": scan().probe,
        "objectGuess": np.ones(scan().object_shape, np.complex64),
        "ycoords": y.copy(),
        "xcoords": x.copy(),
        "mask": rng.random((FRAMES, SIDE, SIDE)) > 0.1,
        "background": rng.random((SIDE, SIDE)).astype(np.float32),
    }


def read(folder: Path, found: Arrays, **mend: Any) -> fdo.Scan:
    np.savez(folder / "mine.npz", **found)
    return fdo.read_scan(folder / "mine.npz", mend=mend or None)


def of_frames(change: Callable[[Any], Any]) -> Callable[[Arrays], Arrays]:
    return lambda found: found | {key: change(found[key]) for key in ("counts", "mask", "background")}


def rolled(found: Arrays, by: int) -> Arrays:
    return found | {key: np.roll(found[key], by, axis=0) for key in ("counts", "mask")}


def inverted(found: Arrays, key: str) -> Arrays:
    at = found[key]
    return found | {key: at.min() + at.max() - at}


def swapped(found: Arrays) -> Arrays:
    turned = {"ycoords": found["xcoords"], "xcoords": found["ycoords"], "objectGuess": found["objectGuess"].T}
    return found | turned


WRONG: dict[str, Callable[[Arrays], Arrays]] = {
    "swap_positions": swapped,
    "invert_y": lambda found: inverted(found, "ycoords"),
    "invert_x": lambda found: inverted(found, "xcoords"),
    "transpose_frames": of_frames(lambda images: np.swapaxes(images, -1, -2)),
    "flip_frames_y": of_frames(lambda images: images[..., ::-1, :]),
    "flip_frames_x": of_frames(lambda images: images[..., ::-1]),
    "shift_frames": of_frames(lambda images: np.fft.fftshift(images, axes=(-2, -1))),
    "reverse_frames": lambda found: found | {key: found[key][::-1] for key in ("counts", "mask")},
    "conjugate_probe": lambda found: found | {"probeGuess": found["probeGuess"].conj()},
    "shift_probe": lambda found: found | {"probeGuess": np.fft.fftshift(found["probeGuess"], axes=(1, 2))},
}


def assert_same(found: fdo.Scan, wanted: fdo.Scan) -> None:
    for name in ("counts", "probe", "positions_px", "mask", "background", "scan_index"):
        one, other = (np.asarray(getattr(each, name)[:]) for each in (found, wanted))
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9, err_msg=name)
    assert found.object_shape == wanted.object_shape


@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_turned_is_turned_back(name: str, tmp_path: Path) -> None:
    right = read(tmp_path, arrays())
    assert_same(read(tmp_path, WRONG[name](arrays()), turn=[name]), right)


def test_several_turns_are_turned_back_at_once(tmp_path: Path) -> None:
    right = read(tmp_path, arrays())
    wrong = arrays()
    turns = ["swap_positions", "invert_x", "transpose_frames", "flip_frames_y", "shift_frames"]
    turns.append("reverse_frames")
    for name in reversed(turns):
        wrong = WRONG[name](wrong)
    assert_same(read(tmp_path, wrong, turn=turns), right)


def test_frames_one_place_off_lose_the_one_without_a_position(tmp_path: Path) -> None:
    right = read(tmp_path, arrays())
    for turn, by, kept in (
        ("advance_frames", 1, np.arange(FRAMES - 1)),
        ("delay_frames", -1, np.arange(1, FRAMES)),
    ):
        assert_same(read(tmp_path, rolled(arrays(), by), turn=[turn]), right.frames(kept))


def test_bad_pixels_are_those_of_turned_frames_and_may_hold_anything(tmp_path: Path) -> None:
    given = arrays()
    counts = given.pop("counts").astype(np.float32)
    counts[:, 5, 3] = -7
    mask = given["mask"].copy()
    mask[:, 5, 3] = False
    right = read(tmp_path, given | {"counts": np.maximum(counts, 0), "mask": mask})
    broken = given | {"counts": counts}
    with pytest.raises(StudyError, match="has negative counts"):
        read(tmp_path, broken)
    assert_same(read(tmp_path, broken, bad_pixels=[[5, 3]]), right)
    turned = WRONG["transpose_frames"](broken)
    assert_same(read(tmp_path, turned, turn=["transpose_frames"], bad_pixels=[[5, 3]]), right)
    del broken["mask"], broken["background"]
    found = read(tmp_path, broken, bad_pixels=[[5, 3], [0, 1]])
    assert found.mask is not None
    assert np.argwhere(~np.asarray(found.mask)).tolist() == [[0, 1], [5, 3]]
    assert not np.asarray(found.counts[:])[:, 5, 3].any()


def test_frames_keep_their_numbers_when_others_are_left_out(tmp_path: Path) -> None:
    wanted = read(tmp_path, arrays()).frames(np.delete(np.arange(FRAMES), [3, 7]))
    found = read(tmp_path, arrays(), leave_out=[7, 3])
    assert_same(found, wanted)
    assert found.scan_index[3] == 4
    numbered = arrays() | {"scan_index": np.arange(FRAMES) + 100}
    assert read(tmp_path, numbered, leave_out=[103, 107]).scan_index[3] == 104


def test_the_advice_of_a_warning_silences_it(tmp_path: Path) -> None:
    given = {key: value for key, value in arrays().items() if key not in ("mask", "background")}
    hot, bright = given["counts"].astype(np.uint32), given["counts"].astype(np.uint32)
    hot[:, 3, 4] += (1000 + np.arange(FRAMES) % 7).astype(np.uint32)
    bright[7] *= 1000
    for counts, mend, told in (
        (hot, {"bad_pixels": [[3, 4]]}, r"base\.mend\.bad_pixels: \[\[3, 4\]\]$"),
        (bright, {"leave_out": [7]}, r"base\.mend\.leave_out: \[7\]$"),
    ):
        with pytest.warns(UserWarning, match=told):
            read(tmp_path, given | {"counts": counts})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read(tmp_path, given | {"counts": counts}, **mend)


def test_what_cannot_be_mended_is_refused_in_one_line(tmp_path: Path) -> None:
    for mend, message in (
        (
            {"leave_out": [99]},
            r"mine\.npz: base\.mend\.leave_out: there is no frame 99; they go from 0 to 29$",
        ),
        ({"leave_out": [*range(FRAMES)]}, r"leave_out: no frame is left"),
        ({"bad_pixels": [[3, 40]]}, r"bad_pixels: there is no pixel \[3, 40\]; frames have 32 x 32$"),
        ({"bad_pixels": [[3]]}, r"^read_scan: bad_pixels\.0: "),
        ({"turn": ["upside_down"]}, r"^read_scan: turn\.0: "),
        ({"turn": ["advance_frames", "delay_frames"]}, "undo each other"),
        ({"turns": []}, r"^read_scan: turns: unknown key"),
    ):
        with pytest.raises(StudyError, match=message):
            read(tmp_path, arrays(), **mend)


def test_a_grid_that_was_laid_about_positions_is_swapped_with_them(tmp_path: Path) -> None:
    y, x = scan().positions_px.T
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        for name, value in (("n", scan().counts[:]), ("a", x), ("b", y), ("p", scan().probe)):
            file[name] = value
    fields = {"frames": "n", "y": "a", "x": "b", "unit": "px", "probe": "p"}
    wrong = fdo.read_scan(tmp_path / "mine.h5", fields=fields)
    found = fdo.read_scan(tmp_path / "mine.h5", fields=fields, mend={"turn": ["swap_positions"]})
    assert found.object_shape == wrong.object_shape[::-1]
    assert found.object_shape[0] != found.object_shape[1]
    step = found.positions_px - scan().positions_px
    np.testing.assert_allclose(step - step[0], 0, atol=1e-9)
