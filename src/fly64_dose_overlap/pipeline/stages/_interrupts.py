"""Ctrl-C: an orderly end within seconds, and an end at once when it comes twice."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ORDERLY_END_S = 4.5
"""What has not ended this long after Ctrl-C is ended by force."""
EXIT_INTERRUPTED = 130
LAST_WORDS_S = 0.2
"""Left to the main thread for its last line, which it is about to print."""
HOW_TO_GO_ON = (
    "nothing half-written is left, the same command can be repeated and goes on from what was finished"
)


_told = threading.Lock()


def first_to_tell() -> bool:
    """Return whether nobody has told yet that the process is interrupted; the caller is to do so."""
    return _told.acquire(blocking=False)


@contextmanager
def bounded_interrupts() -> Generator[None]:
    """Have Ctrl-C raise `KeyboardInterrupt` and, if that does not end the process in time, end it.

    Python raises between two of its own steps, and one step may be minutes of compiled
    code. A thread is therefore told by the system itself. The second Ctrl-C ends the process
    at once; files stay whole, because they get their names last. Whatever else is raised once
    Ctrl-C came, by code that it met half-way, gives way to it.

    Only the main thread can listen; elsewhere, and where Ctrl-C is already handled in
    another way, this does nothing.
    """
    if _told.locked():  # by a command before this one in the same process
        _told.release()
    in_charge = threading.current_thread() is threading.main_thread()
    if not in_charge or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    came = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.set()
        signal.default_int_handler(number, frame)

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, interrupt)
    threading.Thread(target=_watch, args=(reader,), name="Ctrl-C", daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        # The watch goes on: what is left to do may take long too.
        raise
    except BaseException as error:
        if came.is_set():
            raise KeyboardInterrupt from error
        _end_watch(before)
        raise
    else:
        _end_watch(before)


def _end_watch(before: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.close(signal.set_wakeup_fd(before))


def _watch(reader: int) -> None:
    """Read the number of each signal that arrives; the end of the pipe ends the watch."""
    with os.fdopen(reader, "rb", buffering=0) as signals:
        if not _interrupted(signals):
            return
        ready, _, _ = select.select([signals], [], [], ORDERLY_END_S)
        if ready and not _interrupted(signals):
            return
        why = "at once" if ready else f"what did not end in {ORDERLY_END_S:g} s"
        if first_to_tell():
            # Not through `say`, whose lock the main thread may hold.
            os.write(2, f"\ninterrupted: stopped {why}; {HOW_TO_GO_ON}\n".encode())
        else:
            time.sleep(LAST_WORDS_S)
        os._exit(EXIT_INTERRUPTED)


def _interrupted(signals: Any) -> bool:
    """Wait for Ctrl-C; return False if the watch is to end."""
    return any(received[0] == signal.SIGINT for received in iter(lambda: signals.read(1), b""))
