"""Safe, streamed, reproducible NPZ files and atomic writing."""

from __future__ import annotations

import io
import json
import os
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files import npz
from fly64_dose_overlap.files.atomic import atomic_path, sha256_of, write_json_atomic, write_text_atomic
from fly64_dose_overlap.files.npz import NpzReader
from fly64_dose_overlap.files.npz_writer import write_npz
from fly64_dose_overlap.files.stream import ArrayStream

DTYPES = ["<f4", ">f8", "<c8", ">c16", "<i4", ">u2", "|b1", "<U3", ">U2"]


def npy_bytes(array: Any, *, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(array), allow_pickle=allow_pickle)
    return buffer.getvalue()


def write_zip(path: Path, entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def header_bytes(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (os.mkdir, (str(self.target),))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_round_trip_keeps_values_in_native_c_order(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))
    stored = np.array(array, order="F") if data.draw(st.booleans()) else array
    write_npz(path, {"mine": stored})
    np.savez(path.with_name("b.npz"), numpys=stored)
    for file, key in ((path, "mine"), (path.with_name("b.npz"), "numpys")):
        with NpzReader(file) as reader:
            loaded = reader.load(key)
            assert reader.header(key)[0] == array.shape
            if array.ndim:
                blocks = list(reader.stream(key, data.draw(st.integers(1, 6))))
                streamed = np.concatenate([loaded[:0], *blocks])
                assert np.array_equal(streamed.view(np.uint8), loaded.view(np.uint8))
        assert loaded.dtype == dtype.newbyteorder("=")
        assert loaded.flags.c_contiguous
        assert loaded.tobytes() == array.astype(loaded.dtype, order="C").tobytes()
    with np.load(path, allow_pickle=False) as numpys_own:
        assert numpys_own["mine"].shape == array.shape


def test_same_input_gives_same_bytes_at_a_fixed_date(tmp_path: Path) -> None:
    values = np.arange(6000.0).reshape(20, 300)
    for name, layout in (("a", values), ("b", np.asfortranarray(values)), ("c", values.astype(">f8"))):
        write_npz(tmp_path / f"{name}.npz", {"v": layout, "text": np.array("é")})
    first = (tmp_path / "a.npz").read_bytes()
    assert first == (tmp_path / "b.npz").read_bytes() == (tmp_path / "c.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert [info.filename for info in archive.infolist()] == ["v.npy", "text.npy"]
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_local_headers_do_not_depend_on_the_release_of_python(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", {"v": np.arange(6000.0)})
    needed, flags, method, *_, extra = struct.unpack("<HHHHHIIIHH", (tmp_path / "a.npz").read_bytes()[4:30])
    assert (needed, flags, method, extra) == (20, 0, zipfile.ZIP_DEFLATED, 0)


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
def test_streaming_writes_the_bytes_of_the_whole(tmp_path: Path, rows: int) -> None:
    frames = np.random.default_rng(1).poisson(3, (1000, 20, 20)).astype(np.float32)
    blocks = (frames[i : i + rows] for i in range(0, 1000, rows))
    write_npz(tmp_path / "whole.npz", {"v": frames})
    write_npz(tmp_path / "streamed.npz", {"v": ArrayStream(frames.shape, np.float32, blocks)})
    assert (tmp_path / "whole.npz").read_bytes() == (tmp_path / "streamed.npz").read_bytes()


def test_streams_need_memory_for_one_block_only(tmp_path: Path) -> None:
    def blocks() -> Iterator[np.ndarray]:
        for _ in range(40):
            yield np.ones((1, 512, 512), np.float32)

    tracemalloc.start()
    try:
        write_npz(tmp_path / "a.npz", {"v": ArrayStream((40, 512, 512), np.float32, blocks())})
        with NpzReader(tmp_path / "a.npz") as reader:
            total = sum(float(block.sum()) for block in reader.stream("v", 1))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 40 * 512 * 512
    assert peak < 12e6  # the whole is 42 MB


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([np.zeros((2, 3), np.float32)], "'v': 2 rows were streamed, expected 4"),
        ([np.zeros((5, 3), np.float32)], "'v': more than 4 rows were streamed, expected 4"),
        ([np.zeros((4, 2), np.float32)], "a block is float32 .4, 2., expected float32 rows"),
        ([np.zeros((4, 3), np.float64)], "a block is float64"),
    ],
)
def test_a_stream_that_breaks_its_promise_leaves_no_file(
    tmp_path: Path, chunks: list[Any], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        write_npz(tmp_path / "a.npz", {"v": ArrayStream((4, 3), np.float32, chunks)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("../v", np.zeros(2), "'../v' is not a plain name"),
        ("v", np.array([{}], dtype=object), "'v' is object, which cannot be stored without pickle"),
        ("v", np.zeros(2, "M8[s]"), "cannot be stored without pickle"),
    ],
)
def test_what_cannot_be_read_back_is_not_written(tmp_path: Path, key: str, value: Any, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        write_npz(tmp_path / "a.npz", {key: value})
    assert list(tmp_path.iterdir()) == []


def test_a_pickled_payload_is_refused_and_never_runs(tmp_path: Path) -> None:
    target = tmp_path / "ran"
    array = np.array([Payload(target)], dtype=object)
    path = write_zip(tmp_path / "a.npz", [("v.npy", npy_bytes(array, allow_pickle=True))])
    with NpzReader(path) as reader:
        assert reader.is_pickled("v")
        with pytest.raises(StudyError, match="never loaded"):
            reader.header("v")
        with pytest.raises(StudyError, match="'v' holds pickled objects, which are never loaded; save it as"):
            reader.load("v")
        with pytest.raises(StudyError, match="never loaded"):
            next(reader.stream("v", 1))
    assert not target.exists()
    np.load(path, allow_pickle=True)["v"]
    assert target.exists()  # the payload works where pickle is allowed


@pytest.mark.parametrize("name", ["../v.npy", "a/v.npy", "a\\v.npy", ".v.npy", "v.txt", "v\x00.npy", ".npy"])
def test_members_that_are_not_plain_names_are_refused(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "a.npz", [("x" * len(name), npy_bytes(np.zeros(2)))])
    path.write_bytes(path.read_bytes().replace(b"x" * len(name), name.encode()))
    with pytest.raises(StudyError, match=r"is not a plain array name\.npy"):
        NpzReader(path)


def test_repeated_members_are_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        path = write_zip(tmp_path / "a.npz", [("v.npy", npy_bytes(np.zeros(2)))] * 2)
    with pytest.raises(StudyError, match="more than one member 'v'"):
        NpzReader(path)


def test_unusual_compression_and_encryption_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.npz", [("v.npy", npy_bytes(np.zeros(2)))], zipfile.ZIP_LZMA)
    with pytest.raises(StudyError, match="compressed by another method"):
        NpzReader(path)
    path = write_zip(tmp_path / "b.npz", [("v.npy", npy_bytes(np.zeros(2)))])
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(StudyError, match="'v' is encrypted"):
        NpzReader(path)


def test_missing_file_folder_and_non_zip(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none\.npz: no such file"):
        NpzReader(tmp_path / "none.npz")
    with pytest.raises(StudyError, match="is not a regular file"):
        NpzReader(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StudyError, match="is not a regular file"):
        NpzReader(tmp_path / "pipe")
    (tmp_path / "a.npz").write_bytes(npy_bytes(np.zeros(100)))
    with pytest.raises(StudyError, match="is not an NPZ file, or is truncated"):
        NpzReader(tmp_path / "a.npz")
    write_npz(tmp_path / "b.npz", {"v": np.zeros(3)})
    with NpzReader(tmp_path / "b.npz") as reader, pytest.raises(StudyError, match="has no 'w'; it holds v"):
        reader.load("w")


def read_all(path: Path) -> None:
    with NpzReader(path) as reader:
        for key in reader:
            reader.header(key)
            reader.load(key)


def test_other_files_of_arrays_are_refused_by_their_own_name(tmp_path: Path) -> None:
    starts = (b"\x89HDF\r\n", b"\x93NUMPY\x01", b"MATLAB 5.0", b"version https://git-lfs.github.com/spec/v1")
    hints = ("it is HDF5", "it is a single array", "it is MATLAB's", "it only names the data: git lfs pull")
    for start, hint in zip(starts, hints, strict=True):
        (tmp_path / "scan.npz").write_bytes(start + bytes(1000))
        with pytest.raises(StudyError, match=rf"scan\.npz: is not an NPZ file.*; {hint}"):
            NpzReader(tmp_path / "scan.npz")


def test_damage_anywhere_gives_the_right_values_or_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    path = tmp_path / "a.npz"
    write_npz(path, {"v": rng.poisson(2, (30, 8, 8)).astype(np.float32), "w": np.arange(5)})
    content = path.read_bytes()
    with NpzReader(path) as reader:
        good = {key: reader.load(key).tobytes() for key in reader}
    refusals: list[str] = []
    for size in range(0, len(content), 61):
        path.write_bytes(content[:size])
        with pytest.raises(StudyError, match="truncated"):
            read_all(path)
    for _ in range(250):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            with NpzReader(path) as reader:
                for key in set(good) & set(reader):
                    assert reader.load(key).tobytes() == good[key]
        except StudyError as error:
            refusals.append(str(error))
    assert len(refusals) > 200
    assert not any("\n" in message for message in refusals)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            header_bytes("(1000000000,)") + bytes(16),
            r"144 bytes, but float32 \(1000000000,\) needs 4000000128",
        ),
        (header_bytes("(2,)") + bytes(16), "144 bytes, but float32"),
        (header_bytes("(-1, -4)") + bytes(16), "impossible shape"),
        (header_bytes("(0, 99999999999999999999)"), "impossible shape"),
        (header_bytes("(" + "1, " * 33 + ")") + bytes(4), "impossible shape with 33 axes"),
        (header_bytes("(4,)", "'<U0'"), "expected numbers or text"),
        (header_bytes("(4,)", "[('a', '<f4')]") + bytes(16), "expected numbers or text"),
        (header_bytes("(2,)", "'<M8[s]'") + bytes(16), "expected numbers or text"),
        (header_bytes("__import__('os')"), "a header that is not NumPy's"),
        (header_bytes("(" * 90), "a header that is not NumPy's"),
        (header_bytes("(4,)", "'<z9'") + bytes(16), "a header that is not NumPy's"),
        (b"\x93NUMPY\x01\x00\xff\xff" + bytes(70000), "declares a header of 65535 bytes"),
        (b"\x93NUMPY\x07\x00" + bytes(70), "not an array in NumPy's format"),
        (b"plain text, no array", "not an array in NumPy's format"),
        (b"", "damaged or truncated .it ends early"),
    ],
)
def test_headers_that_lie_are_refused_before_memory_is_taken(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = write_zip(tmp_path / "a.npz", [("v.npy", content)])
    with NpzReader(path) as reader:
        for use in (reader.load, reader.header, lambda key: next(reader.stream(key, 1))):
            with pytest.raises(StudyError, match=message):
                use("v")


def test_declared_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = header_bytes("(2097152,)") + bytes(2**23)
    path = write_zip(tmp_path / "a.npz", [("v.npy", bomb)], zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    true, lie = (header_bytes(f"({n},)") for n in (2097152, 250000000))
    assert len(true) == len(lie)
    smaller = content.replace(struct.pack("<I", len(bomb)), struct.pack("<I", len(bomb) - 4))
    path.write_bytes(smaller)
    with NpzReader(path) as reader, pytest.raises(StudyError, match="damaged or truncated"):
        reader.load("v")
    boast = write_zip(tmp_path / "b.npz", [("v.npy", lie)], zipfile.ZIP_DEFLATED)
    size = struct.pack("<I", len(lie))
    boast.write_bytes(boast.read_bytes().replace(size, struct.pack("<I", len(lie) + 10**9)))
    with NpzReader(boast) as reader, pytest.raises(StudyError, match="bytes cannot unpack to 1000000128"):
        reader.load("v")
    monkeypatch.setattr(npz, "MAX_TOTAL_BYTES", 2**20)
    with pytest.raises(StudyError, match=r"declares .* bytes of arrays, more than"):
        NpzReader(boast)
    monkeypatch.setattr(npz, "MAX_MEMBERS", 0)
    with pytest.raises(StudyError, match="has 1 members, at most 0"):
        NpzReader(boast)


def test_text_beyond_unicode_is_refused(tmp_path: Path) -> None:
    content = npy_bytes(np.array("ab")).replace("b".encode("utf-32-le"), b"\xff" * 4)
    path = write_zip(tmp_path / "a.npz", [("v.npy", content)])
    with NpzReader(path) as reader, pytest.raises(StudyError, match=r"'v' is damaged .* .it is not text"):
        reader.load("v")


def test_stream_arguments(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", {"scalar": np.float32(1), "v": np.zeros(3)})
    with NpzReader(tmp_path / "a.npz") as reader:
        with pytest.raises(StudyError, match="'scalar' is a scalar"):
            next(reader.stream("scalar", 1))
        with pytest.raises(StudyError, match="at least 1, got 0"):
            next(reader.stream("v", 0))


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_atomic_path_keeps_the_old_file_on_failure(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_text_atomic(path, "old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            assert (temporary.parent, temporary.suffix) == (path.parent, ".txt")
            temporary.write_text("half")
            raise failure

    with pytest.raises(failure):
        write_half()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_atomic_path_replaces_links_and_follows_the_umask(tmp_path: Path) -> None:
    original = tmp_path / "cache"
    original.write_text("kept")
    original.chmod(0o444)
    link = tmp_path / "a.txt"
    link.symlink_to(original)
    old_mask = os.umask(0o027)
    try:
        write_text_atomic(link, "new")
    finally:
        os.umask(old_mask)
    assert original.read_text() == "kept"
    assert link.read_text() == "new"
    assert stat.S_IMODE(link.stat().st_mode) == 0o640


def test_unwritable_targets_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match=r"a\.txt: cannot be written"):
        write_text_atomic(tmp_path / "file" / "a.txt", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StudyError, match="it is a folder"):
        write_text_atomic(tmp_path / "folder", "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def fill() -> None:
        with atomic_path(tmp_path / "a.txt"):
            raise OSError(28, os.strerror(28))

    with pytest.raises(StudyError, match=r"a\.txt: cannot be written .No space left on device"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_json_is_sorted_strict_and_hashed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json_atomic(path, {"b": 1, "a": [1.5]})
    assert path.read_text() == '{\n  "a": [\n    1.5\n  ],\n  "b": 1\n}\n'
    assert json.loads(path.read_text()) == {"a": [1.5], "b": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_atomic(path, {"a": float("nan")})
    (tmp_path / "abc").write_text("abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(MissingFileError, match="no such file"):
        sha256_of(tmp_path / "none")
