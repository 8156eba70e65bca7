"""Commands of git and DVC: what they print, or one line that says why they failed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from fly64_dose_overlap.errors import StudyError

COMMAND_LIMIT_S = 600.0
"""Listing experiments has been seen to hang while a queue of them runs."""
FOREIGN = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "DVC_ROOT",
)
"""Variables, set by git within its hooks, that would lead git or DVC into another repository."""


def run_command(*line: str, root: Path | None = None, where: str = "") -> str:
    """Return what a command of dvc or git printed.

    Raises
    ------
    StudyError
        If it fails, with the last line that it printed; `where` names the work.
    """
    shown = " ".join(line)
    # Files and not pipes: workers outlive `dvc queue start` and would hold a pipe open.
    # What git prints is the user's text, in any encoding, whatever that of the terminal is.
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace") as output,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace") as errors,
    ):
        try:
            found = subprocess.run(
                line,
                cwd=root,
                env=activated(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                timeout=COMMAND_LIMIT_S,
                check=False,
            )
        except FileNotFoundError:
            raise _not_installed(line[0]) from None
        except subprocess.TimeoutExpired:
            raise StudyError(where or shown, f"no end after {COMMAND_LIMIT_S:.0f} s: {shown}") from None
        for file in (output, errors):
            file.seek(0)
        printed, complaint = output.read(), errors.read()
    if found.returncode:
        problem = f"{shown} ended with status {found.returncode}: {reason_in(complaint or printed)}"
        raise StudyError(where or line[0], problem)
    return printed


def become_command(*line: str) -> NoReturn:
    """Go on as a command of dvc or git, which then has the terminal and its signals to itself."""
    try:
        os.execvpe(line[0], line, activated())
    except FileNotFoundError:
        raise _not_installed(line[0]) from None


def activated() -> dict[str, str]:
    """Return the environment of a user who has activated this interpreter's own, in no repository's hook."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return {**kept, "PATH": path}


def _not_installed(program: str) -> StudyError:
    hint = "activate the project's environment" if program == "dvc" else "install it"
    return StudyError(program, "is not installed", hint)


def reason_in(text: str) -> str:
    """Return the error in what a program printed, which may be followed by advice; else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "error", "fatal"))]
    return (errors or lines or ["no message"])[-1]
