"""Processes end with who started them, and all together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from fly64_dose_overlap.pipeline.processes import end, ending

DEADLINE_S = 30.0
CHILD = """
import os, subprocess, sys, time
from fly64_dose_overlap.pipeline.processes import end_with_parent
end_with_parent(int(sys.argv[1]))
print(subprocess.Popen(["sleep", "600"]).pid, os.getpid(), flush=True)
time.sleep(600)
"""
PARENT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], start_new_session=True)
time.sleep(600)
"""


def wait_until(ready: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_a_group_ends_with_the_parent_of_its_leader_however_that_ends() -> None:
    line = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        family = [int(word) for word in parent.stdout.readline().split()]
        assert not any(map(is_gone, family))
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, family)))


def test_what_does_not_end_is_killed_with_its_children() -> None:
    stubborn = "import signal, subprocess; signal.signal(15, signal.SIG_IGN); "
    stubborn += "print(subprocess.Popen(['sleep', '600']).pid, flush=True); signal.pause(); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        end([psutil.Process(process.pid)])
    assert process.returncode == -signal.SIGKILL
    wait_until(lambda: is_gone(child))


def test_all_below_a_folder_and_nothing_beside_it_is_ended(tmp_path: Path) -> None:
    inside, beside = tmp_path / "copies" / "one", tmp_path / "copies two"
    for folder in (inside, beside):
        folder.mkdir(parents=True)
    victim, named, other = (subprocess.Popen(["sleep", "600"], cwd=cwd) for cwd in (inside, beside, beside))
    try:
        line = ending(tmp_path / "copies", [named.pid])
        subprocess.run(line, env=environment(), check=True)
        assert (victim.wait(DEADLINE_S), named.wait(DEADLINE_S)) == (-signal.SIGTERM, -signal.SIGTERM)
        assert other.poll() is None
    finally:
        for process in (victim, named, other):
            process.kill()
            process.wait()
