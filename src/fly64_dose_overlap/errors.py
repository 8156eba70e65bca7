"""Errors that a user can act on: where, which rule, the value found, what to do."""

from __future__ import annotations

import errno
import re
import resource
import sqlite3

MAX_PROBLEM = 800
"""Characters of a problem that are told; libraries quote what they read, which may be anything."""


class StudyError(ValueError):
    """Refuse bad input in one line.

    Command-line entry points print the message and exit with status 1; every
    other exception is a bug and keeps its traceback.

    Parameters
    ----------
    where : str
        File, key or argument at fault, as the user knows it.
    problem : str
        The rule that was broken and the value found.
    hint : str, optional
        What to do next.
    """

    def __init__(self, where: str, problem: str, hint: str = "") -> None:
        self.where = where
        self.problem = problem
        self.hint = hint
        told = problem if len(problem) <= MAX_PROBLEM else f"{problem[:MAX_PROBLEM]}..."
        message = f"{where}: {told}" + (f"; {hint}" if hint else "")
        super().__init__(_one_line(message))

    def __reduce__(self) -> tuple[type[StudyError], tuple[str, str, str]]:
        """Return what makes the error anew in another process."""
        return type(self), (self.where, self.problem, self.hint)


def _one_line(text: str) -> str:
    """Return text for a terminal, which characters of a hostile file name or key cannot command."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


class MissingFileError(StudyError, FileNotFoundError):
    """A file that the study needs is not there."""

    def __str__(self) -> str:
        return str(self.args[0])


NO_ROOM = {
    errno.ENOSPC: "free some space and repeat the command",
    errno.EDQUOT: "free some space or have the quota raised, and repeat the command",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f) and repeat the command",
}
"""A file that cannot grow, with what to do."""

_REMEDIES = {
    **NO_ROOM,
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "mend that and repeat the command"),
    errno.EIO: "check the disk and repeat the command",
}
_ROOM = "free some space, or raise the limit on the size of files (ulimit -f), and repeat the command"
_NO_ROOM_ELSEWHERE: tuple[tuple[type[Exception], str, str], ...] = (
    (sqlite3.OperationalError, "disk is full", "DVC's state"),
    (sqlite3.OperationalError, "disk I/O error", "DVC's state"),
    (FileNotFoundError, "No usable temporary directory", "temporary files"),
)
"""Exceptions without a number of the system: type, part of the message, and what could not be written."""
_LESS_MEMORY = (
    "close other programs, or lower crop_px or frames_per_step of the method, "
    "and repeat the command; what was finished is kept"
)
_TORCH_MEMORY = re.compile(r"can't allocate memory: you tried to allocate (?P<bytes>\d+) bytes")
_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|bad_alloc|failed to map segment|"
    r"can't start new thread|could not create a primitive",
    re.IGNORECASE,
)
"""What torch, oneDNN, the dynamic linker and threads say when memory has run out, as other exceptions."""
_LOST_ERROR = re.compile("without exception set|without setting an exception|load shared object file")
"""What Python and llvmlite say when there was no memory, or when an extension has a fault."""


def as_refusal(error: BaseException) -> StudyError | None:
    """Return what the user can put right as one line; None stands for a bug.

    Besides a `StudyError` itself that is a lack of memory, of room for a file, or of the
    right to read or write one.
    """
    if isinstance(error, StudyError):
        return error
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        return StudyError(str(error.filename or "disk"), str(error.strerror), _REMEDIES[error.errno])
    for kind, part, where in _NO_ROOM_ELSEWHERE:
        if isinstance(error, kind) and part in str(error):
            return StudyError(where, f"cannot be written ({part})", _ROOM)
    wanted = _memory_wanted(error)
    return None if wanted is None else StudyError("memory", wanted, _LESS_MEMORY)


def _memory_wanted(error: BaseException) -> str | None:
    """Return how much memory could not be had, as far as it is known, or None if that was not it."""
    message = str(error).split("\n")[0]
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return "none is left"
    if isinstance(error, MemoryError):
        return message or "none is left"
    is_limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    if isinstance(error, SystemError | OSError) and _LOST_ERROR.search(message) and is_limited:
        return "none is left"
    if not isinstance(error, RuntimeError | ImportError | OSError) or not _NO_MEMORY.search(message):
        return None
    asked = _TORCH_MEMORY.search(message)
    return f"{int(asked['bytes']) / 2**30:.2f} GiB could not be allocated" if asked else message
