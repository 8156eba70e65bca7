"""A user's own NPZ becomes a canonical base set, or is refused in one line."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fly64_dose_overlap import provenance
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.dataset import BaseSet, read_base, write_base
from fly64_dose_overlap.files.npz_writer import write_npz
from fly64_dose_overlap.files.own_npz import TOOL, read_user_base
from fly64_dose_overlap.physics.modes import strongest_mode

FRAMES, SIDE, OBJECT_SHAPE = 6, 8, (20, 24)
Arrays = dict[str, Any]


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(4).poisson(300, (FRAMES, SIDE, SIDE)).astype(np.uint16)


@pytest.fixture
def arrays(counts: np.ndarray) -> Arrays:
    rng = np.random.default_rng(5)
    probe = rng.normal(size=(SIDE, SIDE)) + 1j * rng.normal(size=(SIDE, SIDE))
    return {
        "diffraction": np.sqrt(counts.astype(np.float32)),
        "objectGuess": np.exp(1j * rng.uniform(-1, 1, OBJECT_SHAPE)).astype(np.complex64),
        "probeGuess": probe.astype(np.complex64),
        "xcoords": np.linspace(4, 20, FRAMES),
        "ycoords": np.linspace(4, 15.5, FRAMES),
    }


@pytest.fixture
def canonicalise(tmp_path: Path) -> Callable[[Arrays], BaseSet]:
    def run(arrays: Arrays) -> BaseSet:
        write_npz(tmp_path / "mine.npz", arrays)
        return read_user_base(tmp_path / "mine.npz")

    return run


def operations(base: BaseSet) -> dict[str, Any]:
    assert set(provenance.steps(base.record)) == {TOOL}
    return {step["operation"]: step["parameters"] for step in base.record["data_transformations"]}


def test_a_canonical_file_passes_with_one_step(
    arrays: Arrays, canonicalise: Callable[[Arrays], BaseSet], tmp_path: Path
) -> None:
    base = canonicalise(arrays)
    steps = operations(base)
    assert list(steps) == ["read"]
    assert steps["read"]["source_file"] == "mine.npz"
    assert len(steps["read"]["source_sha256"]) == 64
    assert base.amplitude is not None
    assert np.array_equal(base.amplitude[:], arrays["diffraction"])
    assert np.array_equal(base.positions_px, np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1))
    write_base(tmp_path / "base.npz", base)
    assert read_base(tmp_path / "base.npz").record == base.record


@pytest.mark.parametrize("key", ["diff3d", "counts", "diffraction"])
@pytest.mark.parametrize("layout", ["first", "last", "middle", "trailing"])
def test_names_axes_and_integers_are_understood(
    arrays: Arrays, counts: np.ndarray, canonicalise: Callable[[Arrays], BaseSet], key: str, layout: str
) -> None:
    moved = {
        "first": counts,
        "last": np.moveaxis(counts, 0, -1),
        "middle": np.moveaxis(counts, 0, 1),
        "trailing": counts[..., None],
    }
    del arrays["diffraction"]
    base = canonicalise({**arrays, key: moved[layout]})
    assert base.amplitude is not None
    assert base.amplitude.dtype == np.float32
    assert np.allclose(base.amplitude[:].astype(float) ** 2, counts, rtol=1e-6)
    steps = operations(base)
    assert steps["square_root"] == {"key": key, "from_dtype": "uint16", "to_dtype": "float32"}
    assert ("rename" in steps) == (key != "diffraction")
    assert ("move_frame_axis" in steps) == (layout in ("last", "middle"))
    assert ("squeeze" in steps) == (layout == "trailing")


def test_large_integers_do_not_overflow(arrays: Arrays, canonicalise: Callable[[Arrays], BaseSet]) -> None:
    arrays["diffraction"] = np.full((FRAMES, SIDE, SIDE), 65534, np.uint16)
    base = canonicalise(arrays)
    assert base.amplitude is not None
    assert np.allclose(base.amplitude[:], 255.996, rtol=1e-6)


@pytest.mark.parametrize("key", ["diff3d", "diffraction", "counts"])
def test_whole_numbers_are_counts_whatever_their_name_and_type(
    arrays: Arrays, counts: np.ndarray, canonicalise: Callable[[Arrays], BaseSet], key: str
) -> None:
    del arrays["diffraction"]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        base = canonicalise({**arrays, key: counts.astype(np.float64)})
    assert base.amplitude is not None
    np.testing.assert_allclose(base.amplitude[:], np.sqrt(counts), rtol=1e-6)
    assert operations(base)["square_root"]["from_dtype"] == "float64"
    wanted = (
        f"'{key}' holds whole numbers, which are taken for photons and not for their roots; name them counts"
    )
    assert [wanted in str(each.message) for each in said] == ([] if key == "counts" else [True])


NOT_COUNTED: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "roots normalised to one": ("diffraction", lambda n: np.sqrt(n) / np.sqrt(n.max())),
    "roots so small that all would round to zero": ("diffraction", lambda n: 1e-5 * np.sqrt(n)),
    "roots that pass for counts": ("counts", np.sqrt),
    "densities": ("counts", lambda n: n / n.sum()),
    "counts times a gain": ("counts", lambda n: 2.7 * n),
    "means of three exposures": ("diff3d", lambda n: np.sqrt(n / 3)),
    "one fraction": ("diffraction", lambda n: np.sqrt(n + (np.indices(n.shape).sum(axis=0) == 9) * 0.3)),
    "roots beyond single precision": ("diffraction", lambda n: np.where(n == n.max(), 1e30, np.sqrt(n))),
}


@pytest.mark.parametrize("name", list(NOT_COUNTED))
def test_frames_that_are_no_counted_photons_are_refused(
    arrays: Arrays, counts: np.ndarray, canonicalise: Callable[[Arrays], BaseSet], name: str
) -> None:
    key, change = NOT_COUNTED[name]
    del arrays["diffraction"]
    message = (
        rf"mine\.npz: '{key}' must hold counted photons or their square roots: .* in frame .*; scale what"
    )
    with pytest.raises(StudyError, match=message):
        canonicalise({**arrays, key: change(counts.astype(np.float64))})


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32])
def test_the_largest_value_of_a_type_is_no_count(
    arrays: Arrays, counts: np.ndarray, canonicalise: Callable[[Arrays], BaseSet], dtype: Any
) -> None:
    full = np.minimum(counts, 200).astype(dtype)
    full[2:, 3, 4] = np.iinfo(dtype).max
    with pytest.warns(
        UserWarning, match=rf"hold the largest .* in {len(full) - 2} frames, .* \[3, 4\] in frame 2"
    ):
        base = canonicalise({**arrays, "diffraction": full})
    assert base.mask is not None
    assert np.argwhere(~base.mask[:]).tolist() == [[frame, 3, 4] for frame in range(2, len(full))]


OPTICS: dict[str, Any] = {
    "energy_ev": 8800.0,
    "object_pixel_m": 5.6e-8,
    "detector_pixel_m": 75e-6,
    "detector_distance_m": 0.2385,
}


def with_optics(arrays: Arrays, **changes: Any) -> Arrays:
    record = provenance.new_record("beamline", physics={**OPTICS, **changes})
    return {**arrays, "_metadata": np.array(provenance.dumps(record))}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"object_pixel_m": 56.0}, "object_pixel_m must be a number from 1e-12 to 1e-05 metres, got 56.0"),
        (
            {"object_pixel_m": "56 nm"},
            "object_pixel_m must be a number .*, got '56 nm'; mend physics_parameters",
        ),
        ({"energy_ev": 8.8}, "energy_ev must be a number from 30 to 1e.06 electronvolts, got 8.8"),
        (
            {"energy_ev": 40.0, "object_pixel_m": 1e-8},
            "object_pixel_m 1e-08 is .* half the wavelength, .*; is energy_ev in electronv",
        ),
        ({"energy_ev": True}, "energy_ev must be a number"),
        ({"detector_distance_m": 1e4}, "detector_distance_m must be a number"),
        ({"detector_pixel_m": 75}, "detector_pixel_m must be a number"),
    ],
)
def test_lengths_and_energies_in_other_units_are_refused(
    arrays: Arrays, canonicalise: Callable[[Arrays], BaseSet], changes: Arrays, message: str
) -> None:
    with pytest.raises(StudyError, match=rf"mine\.npz: {message}"):
        canonicalise(with_optics(arrays, **changes))


def test_lengths_that_contradict_each_other_are_warned_of(
    arrays: Arrays, canonicalise: Callable[[Arrays], BaseSet]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canonicalise(with_optics(arrays))
    with pytest.warns(
        UserWarning, match="object_pixel_m is 5.6e-08, but energy, .* make it 1.12e-07: are all"
    ):
        canonicalise(with_optics(arrays, detector_distance_m=0.477))


def test_physics_that_are_no_object_are_refused(
    arrays: Arrays, canonicalise: Callable[[Arrays], BaseSet]
) -> None:
    record = {**provenance.new_record("beamline"), "physics_parameters": [1]}
    with pytest.raises(StudyError, match="physics_parameters must be an object, got list"):
        canonicalise({**arrays, "_metadata": np.array(provenance.dumps(record))})


def test_double_precision_and_singletons(arrays: Arrays, canonicalise: Callable[[Arrays], BaseSet]) -> None:
    arrays["objectGuess"] = arrays["objectGuess"].astype(np.complex128)[None, ..., None]
    arrays["probeGuess"] = arrays["probeGuess"].astype(np.complex128)[None, None]
    arrays["xcoords"] = arrays["xcoords"][:, None]
    arrays["ycoords"] = arrays["ycoords"][None]
    base = canonicalise(arrays)
    assert (base.obj.shape, base.obj.dtype) == (OBJECT_SHAPE, np.complex64)
    assert (base.probe.shape, base.probe.dtype) == ((1, SIDE, SIDE), np.complex64)
    assert {"squeeze", "convert_dtype"} <= set(operations(base))


@pytest.mark.parametrize("leading", [(), (1,)])
def test_the_strongest_orthogonal_mode_is_kept(
    arrays: Arrays, canonicalise: Callable[[Arrays], BaseSet], leading: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(6)
    random = rng.normal(size=(SIDE * SIDE, 3)) + 1j * rng.normal(size=(SIDE * SIDE, 3))
    orthogonal = np.linalg.qr(random)[0].T * np.sqrt([[6.0], [3.0], [1.0]])
    mixing = np.linalg.qr(rng.normal(size=(3, 3)) + 1j * rng.normal(size=(3, 3)))[0]
    mixed = (mixing @ orthogonal).reshape(*leading, 3, SIDE, SIDE)
    arrays["probeGuess"] = mixed.astype(np.complex64)
    base = canonicalise(arrays)
    step = operations(base)["keep_strongest_mode"]
    assert step["modes"] == 3
    assert step["kept_power_fraction"] == pytest.approx(0.6, abs=1e-5)
    kept = base.probe.ravel()
    assert np.sum(np.abs(kept) ** 2) == pytest.approx(6, rel=1e-5)
    assert abs(np.vdot(kept, orthogonal[0])) == pytest.approx(6, rel=1e-5)


def test_all_modes_are_kept_where_they_are_asked_for(arrays: Arrays, tmp_path: Path) -> None:
    modes = np.stack([arrays["probeGuess"], 0.5j * arrays["probeGuess"].T])
    write_npz(tmp_path / "mine.npz", {**arrays, "probeGuess": modes})
    base = read_user_base(tmp_path / "mine.npz", modes="all")
    np.testing.assert_array_equal(base.probe, modes)
    assert "keep_strongest_mode" not in operations(base)
    assert read_user_base(tmp_path / "mine.npz").probe.shape == (1, SIDE, SIDE)
    with pytest.raises(StudyError, match=r"^modes: must be strongest or all, got 'first'$"):
        read_user_base(tmp_path / "mine.npz", modes="first")  # pyright: ignore[reportArgumentType] - refused


def test_mode_phase_follows_the_strongest_given_mode() -> None:
    rng = np.random.default_rng(7)
    mode = rng.normal(size=(4, 4)) + 1j * rng.normal(size=(4, 4))
    kept, fraction = strongest_mode(np.stack([mode, np.zeros_like(mode)]))
    assert np.allclose(kept, mode)
    assert fraction == pytest.approx(1)


def test_frames_are_optional(arrays: Arrays, canonicalise: Callable[[Arrays], BaseSet]) -> None:
    del arrays["diffraction"]
    base = canonicalise(arrays)
    assert base.amplitude is None
    assert base.probe.shape == (1, SIDE, SIDE)


def test_unknown_keys_are_listed_and_never_loaded(arrays: Arrays, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", allow_pickle=True, **arrays, zz=np.array([{}], dtype=object), meta="x")
    base = read_user_base(tmp_path / "mine.npz")
    assert operations(base)["ignore_keys"] == {"keys": ["meta", "zz"]}


def test_scan_index_is_kept(arrays: Arrays, canonicalise: Callable[[Arrays], BaseSet]) -> None:
    base = canonicalise({**arrays, "scan_index": np.arange(FRAMES, dtype=np.int32) * 20})
    assert base.scan_index.tolist() == [0, 20, 40, 60, 80, 100]
    assert base.scan_index.dtype == np.int64


def test_an_existing_record_is_continued(arrays: Arrays, canonicalise: Callable[[Arrays], BaseSet]) -> None:
    record = provenance.with_step(provenance.new_record("beamline", run=7), "rebin", "sum", factor=2)
    base = canonicalise({**arrays, "_metadata": np.array(provenance.dumps(record))})
    assert provenance.steps(base.record) == ["rebin", TOOL]
    assert base.record["additional_parameters"] == {"run": 7}


class Payload:
    """Creates a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (os.mkdir, (str(self.target),))


def test_a_pickled_record_is_left_alone_and_said_so(arrays: Arrays, tmp_path: Path) -> None:
    payload = np.array(Payload(tmp_path / "ran"), dtype=object)
    np.savez(tmp_path / "mine.npz", allow_pickle=True, **arrays, _metadata=payload)
    base = read_user_base(tmp_path / "mine.npz")
    assert operations(base)["ignore_metadata"]["reason"] == "pickled objects are never loaded"
    assert not (tmp_path / "ran").exists()


def test_pickled_arrays_are_refused_and_never_run(arrays: Arrays, tmp_path: Path) -> None:
    arrays["objectGuess"] = np.array(Payload(tmp_path / "ran"), dtype=object)
    np.savez(tmp_path / "mine.npz", allow_pickle=True, **arrays)
    with pytest.raises(StudyError, match="'objectGuess' holds pickled objects, which are never loaded"):
        read_user_base(tmp_path / "mine.npz")
    assert not (tmp_path / "ran").exists()


def test_as_many_frames_as_pixels_is_ambiguous(
    arrays: Arrays, canonicalise: Callable[[Arrays], BaseSet], tmp_path: Path
) -> None:
    square = {
        **arrays,
        "diffraction": np.ones((SIDE, SIDE, SIDE), np.float32),
        "xcoords": np.full(SIDE, 8.0),
        "ycoords": np.full(SIDE, 8.0),
    }
    with pytest.raises(StudyError, match=r"frame axis ambiguous: axes \[0, 1, 2\] have length 8"):
        canonicalise(square)
    record = provenance.with_step(provenance.new_record("base"), TOOL, "read")
    base = canonicalise({**square, "_metadata": np.array(provenance.dumps(record))})
    assert base.amplitude is not None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.npz"
    with pytest.raises(MissingFileError) as caught:
        read_user_base(path)
    assert str(caught.value) == f"{path}: no such file"


@pytest.mark.parametrize(
    ("key", "edit", "message"),
    [
        ("objectGuess", None, "has no objectGuess: it is simulated from, and its size is .*; add it as a"),
        (
            "probeGuess",
            None,
            "has no probeGuess: a scan has a known probe .or ones, .*; add it",
        ),
        ("xcoords", None, "has no xcoords: a scan has known positions; add one number per frame"),
        ("ycoords", None, "has no ycoords: .* the file holds diffraction, objectGuess"),
        ("objectGuess", lambda a: a.real, "'objectGuess' must be complex, got float32"),
        ("objectGuess", lambda a: np.stack([a, a]), r"'objectGuess' must have axes \(y, x\)"),
        ("probeGuess", np.abs, "'probeGuess' must be complex"),
        ("probeGuess", lambda a: np.stack([a, a], axis=-1), r"'probeGuess' has shape \(8, 8, 2\)"),
        ("probeGuess", lambda a: np.stack([a, a])[:0], r"'probeGuess' has shape \(0, 8, 8\)"),
        ("probeGuess", lambda a: np.stack([a, a])[:, None], r"'probeGuess' has shape \(2, 1, 8, 8\)"),
        ("probeGuess", lambda a: np.stack([a * np.nan, a]), "'probeGuess' has NaN or infinite"),
        (
            "probeGuess",
            lambda a: np.stack([a, a]).astype(complex) * 1e200,
            "'probeGuess' has NaN or infinite",
        ),
        ("probeGuess", lambda a: np.stack([a * 0, a * 0]), "'probeGuess' is zero everywhere"),
        ("probeGuess", lambda a: a[:6, :6], r"'probeGuess' is \(6, 6\) but frames are \(8, 8\)"),
        ("diffraction", lambda a: a[:5], r"is \(5, 8, 8\) but there are 6 entries in 'xcoords'"),
        ("diffraction", lambda a: a[0], r"must have axes \(frame, y, x\), got shape \(8, 8\)"),
        (
            "diffraction",
            lambda a: a + 0j,
            "must be real: float amplitudes or integer intensities, got complex64",
        ),
        ("diffraction", lambda a: -a.astype(np.int32), "'diffraction' has negative counts"),
        ("diffraction", lambda a: a * np.nan, "'diffraction' has NaN or infinite"),
        ("diffraction", lambda a: np.zeros(a.shape, np.uint8), "all 6 frames are zero"),
        ("xcoords", lambda a: a.reshape(2, 3), r"'xcoords' must hold one position .* \(2, 3\); ravel it"),
        ("ycoords", lambda a: a.reshape(2, 3), r"'ycoords' must hold one position .* \(2, 3\); ravel it"),
        ("ycoords", lambda a: a[:5], "'ycoords' has 5 entries but there are 6 frames"),
        ("ycoords", lambda a: a * 1e-6, "are positions in object pixels"),
    ],
)
def test_what_cannot_be_understood_is_refused(
    arrays: Arrays,
    canonicalise: Callable[[Arrays], BaseSet],
    key: str,
    edit: Callable[[Any], Any] | None,
    message: str,
) -> None:
    if edit is None:
        del arrays[key]
    else:
        arrays[key] = edit(arrays[key])
    with pytest.raises(StudyError, match="mine.npz: .*" + message) as caught:
        canonicalise(arrays)
    assert "\n" not in str(caught.value)
