"""JSON that is read back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.atomic import MAX_JSON_BYTES, read_json, write_json_atomic


def test_round_trip(tmp_path: Path) -> None:
    write_json_atomic(tmp_path / "a.json", {"a": [1.5, None]})
    assert read_json(tmp_path / "a.json") == {"a": [1.5, None]}
    (tmp_path / "link").symlink_to("a.json")
    assert read_json(tmp_path / "link") == {"a": [1.5, None]}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none\.json: no such file; make it"):
        read_json(tmp_path / "none.json", missing="make it")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON"),
        (b"\xff\xfe\x00", "is not text"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"1" * 5000, "is not valid JSON"),
        (b" " * (MAX_JSON_BYTES + 1), "is longer than 16 MiB"),
    ],
)
def test_what_is_not_json_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(StudyError, match=rf"a\.json: {message}.*; remake it$"):
        read_json(path, damaged="remake it")


@pytest.mark.parametrize("target", [".", "/dev/zero", "pipe"])
def test_only_files_are_read(tmp_path: Path, target: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.json").symlink_to(target)
    with pytest.raises(StudyError, match="is not a regular file"):
        read_json(tmp_path / "a.json")


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").symlink_to("a.json")
    with pytest.raises(StudyError, match="cannot be read"):
        read_json(tmp_path / "a.json")
