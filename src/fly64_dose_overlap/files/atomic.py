"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from fly64_dose_overlap.errors import NO_ROOM, MissingFileError, StudyError

MAX_JSON_BYTES = 16 * 2**20
"""Of what is read back; the longest of the study has 20 KiB."""
LEFTOVER_AGE_S = 86_400.0
"""A temporary file that nobody has written to for this long belongs to a process that was killed."""


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Generator[Path, None, None]:
    """Yield a temporary path that becomes ``path`` when the block ends without an exception.

    It is that of an empty file in the same folder, which is created. The content is on the disk
    before the name is, so that a power failure leaves the old file or the new one. On any failure,
    an interrupt included, the temporary file goes and whatever stood at ``path`` stays as it was.
    What a killed process left goes with the next writing of the same file, after a day. A place
    where nothing can be written, and a full disk, are a `StudyError`.
    """
    target = Path(path)
    # The suffix stays, because writers of pictures take the format from it.
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.tmp{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Unlike tempfile's, these permissions follow the user's umask.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise _refusal(target, error) from None
    try:
        _remove_leftovers(target)
        yield temporary
        _sync(temporary)
        if target.is_dir():
            raise StudyError(str(target), "cannot be written (it is a folder)")
        os.replace(temporary, target)
        _sync(target.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise _refusal(target, error) from None
        raise


def _refusal(target: Path, error: OSError) -> StudyError:
    free = ""
    if error.errno in NO_ROOM and target.parent.is_dir():
        free = f", {shutil.disk_usage(target.parent).free / 2**20:.1f} MiB free"
    problem = f"cannot be written ({error.strerror}{free})"
    return StudyError(str(target), problem, NO_ROOM.get(error.errno or 0, ""))


def _remove_leftovers(target: Path) -> None:
    pattern = f".{glob.escape(target.stem)}.*.tmp{glob.escape(target.suffix)}"
    for leftover in target.parent.glob(pattern):
        # Another process may remove it at the same time.
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > LEFTOVER_AGE_S:
                leftover.unlink()


def _sync(path: Path) -> None:
    """Have the file's (or folder's) content on the disk before the next step."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text_atomic(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json_atomic(path: Path | str, obj: Any) -> None:
    """Write ``obj`` as JSON: sorted keys, two spaces, a final newline.

    NaN and infinity are refused by a ValueError; nothing is written then.
    """
    write_text_atomic(path, json.dumps(obj, sort_keys=True, indent=2, allow_nan=False) + "\n")


def read_text(path: Path | str, most_bytes: int, *, missing: str = "", damaged: str = "") -> str:
    """Return the content of a text file of ``most_bytes`` at most.

    ``missing`` and ``damaged`` say what to do about a file that is not there, or is not one that the
    study wrote.

    Raises
    ------
    MissingFileError
        If there is no such file.
    StudyError
        If it is no regular file, longer than ``most_bytes``, or not text.
    """
    where = str(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise StudyError(where, "is not a regular file", damaged)
        with Path(path).open("rb") as stream:
            content = stream.read(most_bytes + 1)
    except FileNotFoundError:
        raise MissingFileError(where, "no such file", missing) from None
    except OSError as error:
        raise StudyError(where, f"cannot be read ({error.strerror})", damaged) from None
    if len(content) > most_bytes:
        raise StudyError(where, f"is longer than {most_bytes / 2**20:g} MiB", damaged)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StudyError(where, f"is not text ({error})", damaged) from None


def read_json(path: Path | str, *, missing: str = "", damaged: str = "") -> Any:
    """Return the content of a JSON file of `MAX_JSON_BYTES` at most, refuse what is none; see `read_text`."""
    text = read_text(path, MAX_JSON_BYTES, missing=missing, damaged=damaged)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StudyError(str(path), f"is not valid JSON ({error})", damaged) from None


def sha256_of(path: Path | str) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits; `MissingFileError` if there is none."""
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise MissingFileError(str(path), "no such file") from None
