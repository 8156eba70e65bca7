"""What `base.mend` names is put right as a file is read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import pytest

import fly64_dose_overlap as fdo
from fly64_dose_overlap.config import NOTHING_TO_MEND, TurnName
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files import mending
from fly64_dose_overlap.files.mending import FRAME_TURNS, rows_of, subsets, turn_line

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
    for name in ("counts", "probe", "positions_px", "mask", "background"):
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
        found = read(tmp_path, rolled(arrays(), by), turn=[turn])
        assert_same(found, right.frames(kept))
        # Frames keep their own number, whichever position they go with.
        np.testing.assert_array_equal(found.scan_index, kept + by)


def test_bad_pixels_are_the_files_own_and_may_hold_anything(tmp_path: Path) -> None:
    given = arrays()
    counts = given.pop("counts").astype(np.float32)
    mask = given["mask"].copy()
    mask[:, 5, 3] = False
    right = read(tmp_path, given | {"counts": np.where(mask, counts, 0), "mask": mask})
    for value in (-7, np.nan, np.inf, 0.5):
        counts[:, 5, 3] = value
        broken = given | {"diffraction": np.where(given["mask"], counts, 0)}
        with pytest.warns(UserWarning, match="holds whole numbers"):
            assert_same(read(tmp_path, broken, bad_pixels=[[5, 3]]), right)
    counts[:, 5, 3] = -7
    broken = given | {"counts": counts, "mask": np.ones_like(mask)}
    with pytest.raises(StudyError, match=r"has negative counts: .* at \[5, 3\]"):
        read(tmp_path, broken)
    with pytest.raises(StudyError, match=r"has negative counts: .* at \[3, 5\]"):
        read(tmp_path, WRONG["transpose_frames"](broken), turn=["transpose_frames"])
    # However the frames are turned, it is the pixel that the message named.
    turned = WRONG["transpose_frames"](broken)
    found = read(tmp_path, turned, turn=["transpose_frames"], bad_pixels=[[3, 5]])
    assert found.mask is not None
    blind = ~np.asarray(found.mask[:])
    assert np.argwhere(blind.all(axis=0)).tolist() == np.argwhere(blind.any(axis=0)).tolist() == [[5, 3]]


def test_broken_frames_can_be_left_out(tmp_path: Path) -> None:
    given = arrays()
    kept = np.delete(np.arange(FRAMES), 7)
    right = read(tmp_path, given).frames(kept)
    for key, value in (("counts", -1.0), ("counts", np.nan), ("ycoords", np.nan), ("xcoords", 1e4)):
        broken = given | {key: given[key].astype(np.float64)}
        broken[key][7] = value
        assert_same(read(tmp_path, broken, leave_out=[7]), right)
        turned = WRONG["reverse_frames"](broken) | {
            "ycoords": broken["ycoords"],
            "xcoords": broken["xcoords"],
        }
        if key == "counts":
            number = FRAMES - 1 - 7
            assert_same(read(tmp_path, turned, turn=["reverse_frames"], leave_out=[number]), right)


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


def test_advice_holds_what_is_mended_already(tmp_path: Path) -> None:
    given = {key: value for key, value in arrays().items() if key not in ("mask", "background")}
    hot = given["counts"].astype(np.uint32)
    hot[:, 3, 4] += (1000 + np.arange(FRAMES) % 7).astype(np.uint32)
    with pytest.warns(UserWarning, match=r"base\.mend\.bad_pixels: \[\[0, 1\], \[3, 4\]\]$"):
        read(tmp_path, given | {"counts": hot}, bad_pixels=[[0, 1]])
    transposed = WRONG["transpose_frames"](given | {"counts": hot, "mask": hot, "background": hot})
    del transposed["mask"], transposed["background"]
    with pytest.warns(UserWarning, match=r"base\.mend\.bad_pixels: \[\[4, 3\]\]$"):
        read(tmp_path, transposed, turn=["transpose_frames"])


@pytest.mark.parametrize("names", [("swap_positions", "invert_y"), FRAME_TURNS[:3], FRAME_TURNS])
def test_turns_after_others_are_advised_as_one_line(names: tuple[TurnName, ...]) -> None:
    detector = np.random.default_rng(0).random((6, 6))
    for first in subsets(names):
        for then in subsets(names):
            mend = NOTHING_TO_MEND.model_copy(update={"turn": list(first)})
            line = turn_line(then, mend)
            both = (
                line.removeprefix("base.mend.turn: [").removesuffix("]").split(", ")
                if line[-2] != "["
                else []
            )
            np.testing.assert_array_equal(
                mending.turned(detector, cast("list[TurnName]", both)),
                mending.turned(mending.turned(detector, first), then),
            )


@pytest.mark.parametrize(
    "first", [(), ("advance_frames",), ("reverse_frames",), ("delay_frames", "reverse_frames")]
)
@pytest.mark.parametrize("then", ["advance_frames", "delay_frames", "reverse_frames"])
def test_orders_after_others_are_advised_as_one_line(first: tuple[TurnName, ...], then: TurnName) -> None:
    """The pairs of places and frames are those of one order after the other, or it is said what is left."""

    def pairs(turns: Collection[TurnName], frames: int = 9) -> dict[int, int]:
        arrays: dict[str, Any] = {key: np.arange(frames) for key in ("xcoords", "ycoords")}
        mend = NOTHING_TO_MEND.model_copy(update={"turn": list(turns)})
        return dict(zip(*(each.tolist() for each in rows_of(arrays, mend, "here")), strict=True))

    line = turn_line([then], NOTHING_TO_MEND.model_copy(update={"turn": list(first)}))
    if then in first and then != "reverse_frames":
        assert line.endswith("], and move frames on by 1 more in the file")
        return
    given = pairs(first)
    again = pairs([then], len(given))
    places, frames = list(given), list(given.values())
    wanted = {places[place]: frames[frame] for place, frame in again.items()}
    named = line.removeprefix("base.mend.turn: [").removesuffix("]")
    assert wanted.items() <= pairs(cast("list[TurnName]", named.split(", ") if named else [])).items()


def test_what_cannot_be_mended_is_refused_in_one_line(tmp_path: Path) -> None:
    for mend, message in (
        (
            {"leave_out": [99]},
            r"mine\.npz: base\.mend\.leave_out: there is no frame 99; they go from 0 to 29$",
        ),
        ({"leave_out": [*range(FRAMES)]}, r"base\.mend leaves no frame"),
        ({"turn": ["invert_y", "invert_y"]}, "names the same turn twice"),
        ({"bad_pixels": [[3, 40]]}, r"bad_pixels: there is no pixel \[3, 40\]; frames have 32 x 32$"),
        ({"bad_pixels": [[3]]}, r"^read_scan: bad_pixels\.0: "),
        ({"turn": ["upside_down"]}, r"^read_scan: turn\.0: "),
        ({"turn": ["advance_frames", "delay_frames"]}, "undo each other"),
        ({"turns": []}, r"^read_scan: turns: unknown key"),
    ):
        with pytest.raises(StudyError, match=message):
            read(tmp_path, arrays(), **mend)


def test_lists_may_be_those_of_numpy(tmp_path: Path) -> None:
    right = read(tmp_path, arrays(), bad_pixels=[[5, 3]], leave_out=[7])
    found = read(tmp_path, arrays(), bad_pixels=np.array([[5, 3]]), leave_out=(np.int64(7),))
    assert_same(found, right)


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
