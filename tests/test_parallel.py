"""Work in parts on a pool of threads."""

from __future__ import annotations

import os
import signal

import pytest

from fly64_dose_overlap.parallel import in_parts


def test_a_forked_process_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert in_parts(abs, [-1, -2]) == [1, 2]
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # ends it, should it wait for threads that are not there
        os._exit(in_parts(abs, [-1, -2]) != [1, 2])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
