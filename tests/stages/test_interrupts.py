"""Ctrl-C ends a command in order, within seconds, and at once when it comes twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from fly64_dose_overlap.pipeline.stages import _interrupts

DEADLINE_S = 60.0
MAIN = """
import atexit, hashlib, sys, time
from fly64_dose_overlap.pipeline.stages import _interrupts
from fly64_dose_overlap.pipeline.stages._cli import run

_interrupts.ORDERLY_END_S = {seconds}

def main() -> None:
    try:
        {before}
        print("ready", flush=True)
        {work}
    finally:
        {cleaning}

run(main)
"""
COMPILED = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2_000_000_000)"
"""Minutes of one call, in which Python cannot raise."""
SHORT_S = 1.0
"""Of the command that is not to end in order, for which a test would wait."""


@contextmanager
def started(
    folder: Path,
    work: str,
    cleaning: str = "pass",
    *,
    before: str = "pass",
    seconds: float = _interrupts.ORDERLY_END_S,
) -> Generator[subprocess.Popen[str]]:
    """Run a command in a process group of its own and yield it when it works."""
    script = folder / "command.py"
    script.write_text(MAIN.format(work=work, cleaning=cleaning, before=before, seconds=seconds))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests are a shell's background job Ctrl-C is ignored, by children too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if work == COMPILED:
            # From the message into the call.
            time.sleep(0.5)
        yield process
    finally:
        process.kill()
        process.wait()


def told(process: subprocess.Popen[str]) -> str:
    """Return what the command printed until it ended by itself."""
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.count("interrupted:") == 1
    assert "the same command can be repeated" in errors
    return errors


def test_an_interrupt_ends_in_order(tmp_path: Path) -> None:
    with started(tmp_path, "time.sleep(600)", "print('cleaned', file=sys.stderr)") as process:
        process.send_signal(signal.SIGINT)
        assert told(process).splitlines()[0] == "cleaned"


def test_an_error_of_what_was_interrupted_half_way_is_an_interrupt_too(tmp_path: Path) -> None:
    with started(tmp_path, "time.sleep(600)", "raise AttributeError('half made')") as process:
        process.send_signal(signal.SIGINT)
        told(process)


def test_exit_functions_run_after_an_interrupt(tmp_path: Path) -> None:
    at_exit = "atexit.register(print, 'at exit', file=sys.stderr)"
    with started(tmp_path, "time.sleep(600)", before=at_exit) as process:
        process.send_signal(signal.SIGINT)
        assert told(process).splitlines()[1:] == ["at exit"]


def test_compiled_code_that_goes_on_is_stopped(tmp_path: Path) -> None:
    assert _interrupts.ORDERLY_END_S < 5, "as docs/reliability.md promises"
    with started(tmp_path, COMPILED, seconds=SHORT_S) as process:
        process.send_signal(signal.SIGINT)
        assert f"stopped what did not end in {SHORT_S:g} s" in told(process)


def test_a_second_interrupt_ends_compiled_code_at_once(tmp_path: Path) -> None:
    with started(tmp_path, COMPILED) as process:
        process.send_signal(signal.SIGINT)
        # Two signals in one moment are one to the system.
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert "stopped at once" in told(process)


def test_a_second_interrupt_ends_what_cleans_up(tmp_path: Path) -> None:
    with started(tmp_path, "time.sleep(600)", "print('going', flush=True); time.sleep(600)") as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "going\n"
        process.send_signal(signal.SIGINT)
        # By the watch or, if Python is faster, in order; what did not end in time is another message.
        assert "what did not end" not in told(process)


def test_a_command_without_interrupt_ends_as_ever(tmp_path: Path) -> None:
    with started(tmp_path, "pass") as process:
        output, errors = process.communicate(timeout=DEADLINE_S)
        assert (process.returncode, output, errors) == (0, "", "")
