"""What the user can put right is told from a bug."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3

import numpy as np
import pytest
import torch

from fly64_dose_overlap.errors import StudyError, as_refusal


def too_much_for_numpy() -> None:
    np.empty(2**62, np.uint8)


def too_much_for_torch() -> None:
    torch.empty(2**62, dtype=torch.uint8)


@pytest.mark.parametrize("ask", [too_much_for_numpy, too_much_for_torch])
def test_a_lack_of_memory_is_one_line_with_its_amount(ask: object) -> None:
    assert callable(ask)
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        ask()
    refusal = as_refusal(caught.value)
    assert refusal is not None
    assert str(refusal).startswith("memory: ")
    assert "4294967296.00 GiB" in str(refusal) or "4.00 EiB" in str(refusal)
    assert "repeat the command" in str(refusal)
    assert "\n" not in str(refusal)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "memory: none is left; close other programs"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "memory: none is left; "),
        (RuntimeError("can't start new thread"), "memory: can't start new thread; "),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore"),
            "memory: CUDA out of memory. Tried to allocate 20.00 GiB.; ",
        ),
        (ImportError("libx.so: failed to map segment from shared object"), "memory: libx.so: failed to map"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a"),
            "a: No space left on device; free some space",
        ),
        (OSError(errno.EFBIG, "File too large"), "disk: File too large; raise the limit"),
        (
            sqlite3.OperationalError("database or disk is full"),
            "DVC's state: cannot be written (disk is full); free some space",
        ),
        (sqlite3.OperationalError("disk I/O error"), "DVC's state: cannot be written (disk I/O error); "),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            "temporary files: cannot be written (No usable temporary directory); free some space",
        ),
        (OSError(errno.EACCES, "Permission denied", "b"), "b: Permission denied; mend that"),
        (StudyError("c", "d"), "c: d"),
    ],
)
def test_what_the_user_can_put_right(error: Exception, message: str) -> None:
    assert str(as_refusal(error)).startswith(message)


def test_an_error_that_got_lost_tells_of_memory_only_where_that_is_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unloaded = OSError("Could not find/load shared object file 'libllvmlite.so'")
    lost = SystemError("error return without exception set")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**30, 2**30))
    for error in (lost, unloaded):
        assert str(as_refusal(error)).startswith("memory: none is left; ")
    assert as_refusal(SystemError("bad argument")) is None
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    for error in (lost, unloaded):
        assert as_refusal(error) is None


SQL = sqlite3.OperationalError("no such table: x")


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes differ"), KeyError("x"), OSError(errno.EBADF, "bad"), ImportError("no x")],
)
def test_a_bug_is_no_refusal(error: Exception) -> None:
    assert as_refusal(error) is None


def test_a_message_is_one_line_that_commands_no_terminal() -> None:
    message = str(StudyError("a\x1b[2J\x00\udcff.npz", "two\nlines\t\u202e and \u00b5m", "hint"))
    assert message == r"a\x1b[2J\x00\udcff.npz: two lines \u202e and µm; hint"


def test_a_message_keeps_its_measure_and_its_hint() -> None:
    message = str(StudyError("a.npz", "x" * 100_000, "copy it again"))
    assert message.startswith("a.npz: xxx")
    assert message.endswith("x...; copy it again")
    assert len(message) < 1000
