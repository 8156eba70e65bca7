"""Processes that end when they should: with who started them, or all together.

As a script, ``python -m ...processes FOLDER PID...``, it ends the given processes, then all
that work below the folder, and cannot be interrupted itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

POLL_S = 0.5
PATIENCE_S = 1.5
"""How long processes may take to end by themselves: Ctrl-C is to end the matrix in five seconds."""


def end_with_parent(parent: int) -> None:
    """Watch the process that started this one, and end this one when it is gone, however that comes about.

    Where this process leads a group, the whole group is killed, children included.
    """
    threading.Thread(target=_wait_for_end_of, args=(parent,), daemon=True).start()


def _wait_for_end_of(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def kill_group(leader: int) -> None:
    """Kill what is left of a process group."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def runs(pid: int, word: str) -> bool:
    """Whether a process runs whose command line has ``word``; numbers are used again after a reboot."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and word in process.cmdline()
    except psutil.Error:
        return False


def end(processes: Iterable[psutil.Process]) -> None:
    """End processes and what they started; kill those that take too long."""
    families: set[psutil.Process] = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            families |= {process, *process.children(recursive=True)}
    for member in families:
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    for member in psutil.wait_procs(families, timeout=PATIENCE_S)[1]:
        with suppress(psutil.NoSuchProcess):
            member.kill()


def end_below(folder: Path) -> None:
    """End the processes whose working folder lies below ``folder``."""
    known = [(process, process.info["cwd"]) for process in psutil.process_iter(["cwd"])]
    end([process for process, cwd in known if cwd and folder.resolve() in Path(cwd).parents])


def main(folder: str, *pids: str) -> None:
    """End the processes, then what works below the folder: that may have been started meanwhile."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    numbers = set(map(int, pids))
    end([process for process in psutil.process_iter() if process.pid in numbers])
    end_below(Path(folder))


def ending(folder: Path, pids: Sequence[int]) -> list[str]:
    """Return the command line that does so in a process of its own."""
    return [sys.executable, "-m", __name__, str(folder), *map(str, pids)]


if __name__ == "__main__":
    main(*sys.argv[1:])
