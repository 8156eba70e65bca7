"""The dataset contract: each rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files import rules

FRAMES, OBJECT_SHAPE = 6, (20, 24)
"""Of the fixture ``arrays``."""
Arrays = dict[str, Any]


def validate_dataset(arrays: Arrays, gridsize: int = 1, neighbor_count: int | None = None) -> None:
    """Apply all rules, as they are applied to a file."""
    rules.check_grouping("x.npz", gridsize, neighbor_count)
    rules.require(arrays, (rules.DIFFRACTION, *rules.BASE_KEYS), "x.npz")
    frames = arrays[rules.DIFFRACTION]
    rules.check_layout(arrays, "x.npz", frames.shape, frames.dtype, gridsize**2)
    for _ in rules.checked_frames("x.npz", [frames[:4], frames[4:]]):
        pass


def put(key: str, value: Any) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.__setitem__(key, value)


def change(key: str, edit: Callable[[Any], Any]) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.__setitem__(key, edit(arrays[key]))


def at(index: Any, value: Any) -> Callable[[Any], Any]:
    def edit(array: Any) -> Any:
        array = array.copy()
        array[index] = value
        return array

    return edit


def test_a_valid_set_passes_and_is_not_changed(arrays: Arrays) -> None:
    before = {key: value.tobytes() for key, value in arrays.items()}
    validate_dataset(arrays)
    validate_dataset(arrays, gridsize=2, neighbor_count=7)
    validate_dataset(arrays, gridsize=2, neighbor_count=4)
    assert {key: value.tobytes() for key, value in arrays.items()} == before


@pytest.mark.parametrize(
    "edit",
    [
        change("objectGuess", lambda a: a.astype(np.complex128)),
        change("probeGuess", lambda a: a.astype(np.clongdouble)),
        change("diffraction", lambda a: a.astype(np.float64)),
        change("xcoords", lambda a: np.round(a).astype(np.int32)),
        change("diffraction", at(2, 0)),
        change("diffraction", np.asfortranarray),
        change("probeGuess", lambda a: a[None]),
        change("probeGuess", lambda a: np.stack([a, 2j * a])),
        put("Y", "an unknown key is ignored"),
        put("scan_index", np.zeros(FRAMES, np.uint8)),
        put("xcoords_start", np.zeros(FRAMES)),
    ],
)
def test_harmless_variants_pass(arrays: Arrays, edit: Callable[[Arrays], None]) -> None:
    edit(arrays)
    validate_dataset(arrays)


def test_spacing_is_not_checked(arrays: Arrays) -> None:
    arrays["xcoords"] = np.full(FRAMES, 10.0)
    arrays["ycoords"] = np.full(FRAMES, 10.0)
    validate_dataset(arrays)


@pytest.mark.parametrize("key", ["diffraction", "objectGuess", "probeGuess", "xcoords", "ycoords"])
def test_a_missing_key_is_listed(arrays: Arrays, key: str) -> None:
    del arrays[key]
    with pytest.raises(StudyError, match=f"^x.npz: lacks '{key}'; required keys: diffraction, "):
        validate_dataset(arrays)


REFUSALS = [
    ("diffraction", lambda a: a.astype(complex), "'diffraction' must be a real float amplitude, got complex"),
    ("diffraction", lambda a: a.astype(np.uint16), "got uint16; .*integer frames are intensities, import"),
    ("diffraction", lambda a: a.astype(bool), "'diffraction' must be a real float amplitude, got bool"),
    ("diffraction", lambda a: a[0], r"must have axes \(frame, y, x\), got shape \(8, 8\)"),
    ("diffraction", lambda a: a[:0], "holds zero frames"),
    ("diffraction", lambda a: a[:, :7], r"frames must be square, got \(7, 8\)"),
    ("diffraction", lambda a: a[:, :6, :6], r"'probeGuess' is \(8, 8\) but frames are \(6, 6\)"),
    ("diffraction", lambda a: a[:5], "'xcoords' has 6 entries but there are 5 frames"),
    ("diffraction", at((3, 1, 1), np.nan), "'diffraction' has NaN or infinite values, first in frame 3"),
    ("diffraction", at((4, 1, 1), np.inf), "NaN or infinite values, first in frame 4"),
    ("diffraction", lambda a: a.astype(np.float64) * 1e60, "NaN or infinite values, first in frame 0"),
    ("diffraction", at((5, 0, 0), -2), r"negative amplitudes, first in frame 5 \(-2\)"),
    ("diffraction", np.zeros_like, "all 6 frames are zero: no photon was detected"),
    ("objectGuess", lambda a: a.real, "'objectGuess' must be complex, got float32"),
    ("objectGuess", at((0, 0), np.nan), "'objectGuess' has NaN or infinite"),
    ("objectGuess", lambda a: a.astype(complex) * 1e50, "'objectGuess' has NaN or infinite"),
    ("objectGuess", lambda a: a[None], r"'objectGuess' must have axes \(y, x\)"),
    ("objectGuess", lambda a: a[:8], r"'objectGuess' is \(8, 24\), not larger than the probe \(8, 8\)"),
    ("probeGuess", np.abs, "'probeGuess' must be complex, got float32"),
    ("probeGuess", lambda a: a[:, :4], r"'probeGuess' is \(8, 4\) but frames are \(8, 8\)"),
    ("probeGuess", lambda a: a[None, None], r"'probeGuess' must have axes \(y, x\) or \(mode, y, x\), got"),
    ("probeGuess", lambda a: a[None][:0], r"'probeGuess' must have axes .* got shape \(0, 8, 8\)"),
    ("probeGuess", lambda a: np.stack([a, a])[:, :4], r"'probeGuess' is \(2, 4, 8\) but frames are \(8, 8\)"),
    ("probeGuess", at((0, 0), complex(0, np.inf)), "'probeGuess' has NaN or infinite"),
    ("probeGuess", np.zeros_like, "'probeGuess' is zero everywhere"),
    ("xcoords", lambda a: a[:5], "'xcoords' has 5 entries but there are 6 frames"),
    ("ycoords", lambda a: a[:4], "'ycoords' has 4 entries but there are 6 frames"),
    ("ycoords", lambda a: a[:, None], "'ycoords' must have one axis"),
    ("ycoords", at(2, np.nan), "'ycoords' has NaN or infinite"),
    ("xcoords", lambda a: a.astype("U5"), "'xcoords' must hold real numbers with one axis, got <U5"),
]


@pytest.mark.parametrize(("key", "edit", "message"), REFUSALS)
def test_each_violation_is_refused(
    arrays: Arrays, key: str, edit: Callable[[Any], Any], message: str
) -> None:
    change(key, edit)(arrays)
    with pytest.raises(StudyError, match="^x.npz: .*" + message) as caught:
        validate_dataset(arrays)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("scan_index", np.zeros(5, int), "'scan_index' has 5 entries but there are 6 frames"),
        ("scan_index", np.zeros(6), "'scan_index' must hold integers from 0 up, got float64"),
        (
            "scan_index",
            np.arange(6) - 1,
            r"'scan_index' must hold integers from 0 up to 2\^63 - 1, got -1 to 4",
        ),
        ("scan_index", np.full(6, "a"), "'scan_index' must hold integers from 0 up, got <U1"),
        ("ycoords_start", np.zeros(7), "'ycoords_start' has 7 entries"),
        ("groups", np.zeros((2, 4)), "'groups' must hold integers"),
        (
            "groups",
            np.zeros((0, 4), int),
            "'groups' must hold integers with axes .group, C., got int64 .0, 4",
        ),
        ("groups", np.array([[0, 1, 2]]), "'groups' has 3 frames per group, expected C=4"),
        ("groups", np.array([[0, 1, 2, 6]]), "'groups' refers to frames 0 to 6, but there are 0 to 5"),
        ("groups", np.array([[0, 1, -2, 3]]), "'groups' refers to frames -2 to 3"),
        (
            "groups",
            np.array([[0, 1, 2, 3], [4, 5, 0, 4]]),
            "group 1 of 'groups' holds a frame more than once",
        ),
    ],
)
def test_optional_arrays_are_checked_where_present(
    arrays: Arrays, key: str, value: Any, message: str
) -> None:
    arrays[key] = value
    with pytest.raises(StudyError, match=message):
        validate_dataset(arrays, gridsize=2, neighbor_count=7)


@pytest.mark.parametrize(
    ("gridsize", "neighbor_count", "message"),
    [
        (2, 3, r"neighbor_count=3 < C=4.*OVERSAMPLING-001"),
        (2, None, "gridsize=2 needs a neighbor_count, got none; give K >= C=4"),
        (0, 7, "gridsize must be at least 1, got 0"),
    ],
)
def test_neighbours_must_fill_a_group(
    arrays: Arrays, gridsize: int, neighbor_count: int | None, message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        validate_dataset(arrays, gridsize=gridsize, neighbor_count=neighbor_count)


@pytest.mark.parametrize(
    ("axis", "value", "message"),
    [
        ("ycoords", 16.0, None),
        ("ycoords", 15.999, None),
        ("ycoords", 4.0, None),
        ("xcoords", 20.0, None),
        (
            "ycoords",
            16.01,
            r"1 of 6 positions put the 8x8 probe outside the 20x24 object \(largest y 16.0, limit",
        ),
        ("ycoords", 17.0, r"\(largest y 17.0, limit 16\); are positions in object pixels\?"),
        ("ycoords", 3.5, r"\(smallest y 3.5, limit 4\)"),
        ("xcoords", 21.0, r"\(largest x 21.0, limit 20\)"),
        ("xcoords", -1e9, r"\(smallest x -1000000000.0, limit 4\)"),
    ],
)
def test_windows_stay_inside_the_object(arrays: Arrays, axis: str, value: float, message: str | None) -> None:
    arrays[axis][1] = value
    if message is None:
        rows = np.arange(np.floor(value) - 4, np.floor(value) + 4 + (value % 1 > 0))
        assert rows[0] >= 0
        assert rows[-1] < OBJECT_SHAPE[axis == "xcoords"]
        validate_dataset(arrays)
    else:
        with pytest.raises(StudyError, match=message):
            validate_dataset(arrays)


def test_a_base_needs_no_frames(arrays: Arrays) -> None:
    del arrays["diffraction"]
    rules.check_base(arrays, "x.npz")
    for key, value, message in [
        ("probeGuess", arrays["probeGuess"][:, :4], "'probeGuess' must be square"),
        ("ycoords", arrays["ycoords"][:3], "'ycoords' has 3 entries but there are 6 frames"),
        ("xcoords", np.zeros(0), "'xcoords' holds no position"),
        ("xcoords", np.array(5.0), "'xcoords' must have one axis"),
    ]:
        with pytest.raises(StudyError, match=message):
            rules.check_base({**arrays, key: value}, "x.npz")
