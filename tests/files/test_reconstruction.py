"""Reconstructions in files: nothing lost, nothing wrong let in, folders in their order."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fly64_dose_overlap import provenance
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.npz import NpzReader
from fly64_dose_overlap.files.npz_writer import write_npz
from fly64_dose_overlap.files.reconstruction import (
    Reconstruction,
    read_reconstruction,
    read_reconstructions,
    write_reconstruction,
    write_reconstructions,
)

SIDE, OBJECT_SHAPE = 8, (20, 24)


@pytest.fixture
def reconstruction() -> Reconstruction:
    rng = np.random.default_rng(5)
    modes = rng.normal(size=(2, SIDE, SIDE)) + 1j * rng.normal(size=(2, SIDE, SIDE))
    return Reconstruction(
        method="map-tv",
        label="MAP + TV",
        kind="iterative",
        obj=np.exp(1j * rng.uniform(-1, 1, OBJECT_SHAPE)).astype(np.complex64),
        probe=modes.astype(np.complex64),
        # The outermost windows that the object holds, and fractions.
        positions_px=np.array([[4.0, 4.0], [9.25, 11.5], [16.0, 20.0]]),
        loss=np.array([3.0, 2.5, 2.25, 2.0]),
        settings={"epochs": 4, "weight": 0.1, "steps": [1, 2], "prior": None},
        record=provenance.new_record("reconstruct", physics={"object_pixel_m": 57e-9}),
    )


def assert_same(first: Reconstruction, second: Reconstruction) -> None:
    for field in fields(Reconstruction):
        value, other = (getattr(r, field.name) for r in (first, second))
        if isinstance(value, np.ndarray):
            assert value.dtype == other.dtype, field.name
            assert np.array_equal(value, other), field.name
        else:
            assert value == other, field.name


def entries(path: Path) -> dict[str, Any]:
    with NpzReader(path) as reader:
        return {key: reader.load(key) for key in reader}


def test_round_trip_and_identical_rewrite(reconstruction: Reconstruction, tmp_path: Path) -> None:
    write_reconstruction(tmp_path / "a.npz", reconstruction)
    again = read_reconstruction(tmp_path / "a.npz")
    assert_same(reconstruction, again)
    write_reconstruction(tmp_path / "b.npz", again)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_others_find_the_arrays_under_the_names_they_know(
    reconstruction: Reconstruction, tmp_path: Path
) -> None:
    write_reconstruction(tmp_path / "a.npz", reconstruction)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert sorted(file.files) == [
            "_metadata",
            "algorithm",
            "loss",
            "reconstructed_object",
            "reconstructed_probe",
            "xcoords",
            "ycoords",
        ]
        assert file["reconstructed_object"].dtype == np.complex64
        assert file["reconstructed_object"].shape == OBJECT_SHAPE
        assert str(file["algorithm"]) == "MAP + TV"
        assert file["xcoords"].tolist() == [4.0, 11.5, 20.0]
        assert file["ycoords"].tolist() == [4.0, 9.25, 16.0]
        metadata = json.loads(file["_metadata"].item())
    assert metadata["physics_parameters"] == {"object_pixel_m": 57e-9}
    assert metadata["reconstruction"]["kind"] == "iterative"
    assert metadata["reconstruction"]["settings"] == reconstruction.settings


def test_double_precision_is_stored_as_single(reconstruction: Reconstruction, tmp_path: Path) -> None:
    write_reconstruction(tmp_path / "a.npz", reconstruction)
    double: Any = reconstruction.obj.astype(np.complex128)
    write_reconstruction(tmp_path / "b.npz", replace(reconstruction, obj=double))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_method_that_minimises_nothing_has_no_loss(reconstruction: Reconstruction, tmp_path: Path) -> None:
    write_reconstruction(tmp_path / "a.npz", replace(reconstruction, kind="reference", loss=np.zeros(0)))
    assert read_reconstruction(tmp_path / "a.npz").loss.shape == (0,)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("method", "MAP TV", "'MAP TV' is no name of a method; use lower case"),
        ("method", "../up", "is no name of a method"),
        ("kind", "network", "kind must be one of learned, iterative, reference, got 'network'"),
        ("label", "two\nlines", r"the label \('algorithm'\) must be one line of text, got 'two\\nlines'"),
        ("label", " ", r"the label \('algorithm'\) must be one line of text"),
        ("settings", [1], "settings must be a mapping, got list"),
        ("obj", np.ones(OBJECT_SHAPE), "'reconstructed_object' must be complex, got float64"),
        ("obj", np.ones((1, 20, 24), "c8"), r"must have axes \(y, x\), got shape \(1, 20, 24\)"),
        ("obj", np.full(OBJECT_SHAPE, np.nan, "c8"), "'reconstructed_object' has NaN or infinite"),
        ("obj", np.full(OBJECT_SHAPE, 1e200 + 0j), "'reconstructed_object' has NaN or infinite"),
        ("obj", np.ones((19, 24), "c8"), "1 of 3 positions put the 8x8 probe outside the 19x24 object"),
        ("probe", np.ones((8, 8), "c8"), r"'reconstructed_probe' must have axes \(mode, y, x\)"),
        ("probe", np.ones((1, 8, 6), "c8"), r"must be square, got \(1, 8, 6\)"),
        ("probe", np.ones((0, 8, 8), "c8"), r"got shape \(0, 8, 8\)"),
        ("positions_px", np.array([[4.0, np.inf]]), "'xcoords' has NaN or infinite values"),
        ("positions_px", np.array([[3.5, 4.0]]), "1 of 1 positions put the 8x8 probe outside"),
        ("positions_px", np.zeros((0, 2)), "'xcoords' has 0 entries and 'ycoords' 0"),
        ("loss", np.zeros(1_000_001, np.float32), "'loss' has 1000001 entries, at most 1000000 are read"),
        ("loss", np.array([1.0, np.nan]), "'loss' has NaN or infinite values"),
        ("loss", np.ones((2, 1)), r"'loss' must hold real numbers with one axis, got float64 \(2, 1\)"),
    ],
)
def test_what_is_not_sound_is_not_written(
    reconstruction: Reconstruction, tmp_path: Path, name: str, value: Any, message: str
) -> None:
    with pytest.raises(StudyError, match=rf"a\.npz: .*{message}"):
        write_reconstruction(tmp_path / "a.npz", replace(reconstruction, **{name: value}))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_entry_is_named_with_those_present(reconstruction: Reconstruction, tmp_path: Path) -> None:
    write_reconstruction(tmp_path / "a.npz", reconstruction)
    held = entries(tmp_path / "a.npz")
    del held["reconstructed_object"], held["loss"]
    write_npz(tmp_path / "b.npz", held)
    message = (
        r"b\.npz: lacks 'reconstructed_object', 'loss'; "
        "the file holds reconstructed_probe, xcoords, ycoords, algorithm, _metadata$"
    )
    with pytest.raises(StudyError, match=message):
        read_reconstruction(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("reconstructed_object", np.ones(OBJECT_SHAPE, "f4"), "must be complex, got float32"),
        ("reconstructed_object", np.ones(480, "c8"), r"must have axes \(y, x\), got shape \(480,\)"),
        ("ycoords", np.full(2, 9.0), "'xcoords' has 3 entries and 'ycoords' 2"),
        ("xcoords", np.array(["a"] * 3), "'xcoords' must hold real numbers with one axis, got <U1"),
        ("algorithm", np.array(["a", "b"]), r"'algorithm' must be one text, got <U1 \(2,\)"),
        ("_metadata", np.array("{}"), "'_metadata' has no entry 'reconstruction' with method"),
        ("_metadata", np.array('{"reconstruction": {}}'), "'' is no name of a method"),
        ("_metadata", np.array("{"), "'_metadata' is not valid JSON"),
    ],
)
def test_what_is_not_sound_is_not_read(
    reconstruction: Reconstruction, tmp_path: Path, key: str, value: Any, message: str
) -> None:
    write_reconstruction(tmp_path / "a.npz", reconstruction)
    write_npz(tmp_path / "b.npz", {**entries(tmp_path / "a.npz"), key: value})
    with pytest.raises(StudyError, match=rf"b\.npz: .*{message}"):
        read_reconstruction(tmp_path / "b.npz")


def test_a_folder_keeps_its_order(reconstruction: Reconstruction, tmp_path: Path) -> None:
    names = ["network", "map-tv", "lsqml"]
    folder = tmp_path / "new"
    write_reconstructions(folder, (replace(reconstruction, method=name) for name in names))
    assert [r.method for r in read_reconstructions(folder)] == names
    assert json.loads((folder / "manifest.json").read_text()) == {"methods": names}


def test_folders_are_read_one_reconstruction_at_a_time(
    reconstruction: Reconstruction, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        write_reconstructions(tmp_path / name, [replace(reconstruction, method=f"{name}-{i}") for i in "ab"])
    found = read_reconstructions(tmp_path / "first", tmp_path / "second")
    names = ["first-a", "first-b", "second-a", "second-b"]
    assert len(found) == 4
    assert [each.method for each in found] == names
    assert [found[index].method for index in (1, 2)] == names[1:3]
    assert found[-1].method == "second-b"
    (tmp_path / "second/second-a.npz").write_bytes(b"no longer an NPZ file")
    assert found[1].method == "first-b"
    with pytest.raises(StudyError, match=r"second-a\.npz: is not an NPZ file"):
        found[2]


def test_an_unfinished_folder_has_no_manifest(reconstruction: Reconstruction, tmp_path: Path) -> None:
    write_reconstructions(tmp_path, [reconstruction])
    with pytest.raises(StudyError, match="method 'map-tv' comes twice"):
        write_reconstructions(tmp_path, [reconstruction, reconstruction])
    with pytest.raises(MissingFileError, match=r"manifest\.json: no such file; .* not finished"):
        read_reconstructions(tmp_path)
    with pytest.raises(StudyError, match="there is no reconstruction to write"):
        write_reconstructions(tmp_path, [])


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", r'must be {"methods": \[\.\.\.\]} with names of methods'),
        ('{"methods": "map-tv"}', "with names of methods"),
        ('{"methods": ["../map-tv"]}', "with names of methods"),
        ('{"methods": []}', r"must name at least one method, and each once, got \[\]"),
        ('{"methods": ["map-tv", "map-tv"]}', "each once"),
        ('{"methods": ["map-tv", "rpie"]}', "rpie.npz: no such file, though manifest.json names 'rpie'"),
        ('{"methods": ["map-tv"]}', "holds other.npz, which manifest.json does not name"),
        ('{"methods": ["map-tv", "other"]}', "other.npz: holds the method 'map-tv', expected 'other'"),
    ],
)
def test_folders_that_their_manifest_does_not_describe_are_refused(
    reconstruction: Reconstruction, tmp_path: Path, manifest: str, message: str
) -> None:
    write_reconstructions(tmp_path, [reconstruction])
    if "other" in message:
        write_reconstruction(tmp_path / "other.npz", reconstruction)
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(StudyError, match=message) as caught:
        list(read_reconstructions(tmp_path))
    assert "\n" not in str(caught.value)
