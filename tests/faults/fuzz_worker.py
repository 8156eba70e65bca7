"""Read bad input in a process of its own, whose memory and time are bounded.

``python -m faults.fuzz_worker SEED BATCHES`` prints a line of JSON before and after each
case, so that a crash or a hang is known by the case that it came in.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from faults.fuzz_cases import HYPOTHESIS
from faults.fuzz_readers import TARGETS, hypothetical_params, prepare
from faults.mutations import MARK
from fly64_dose_overlap.config import parse_params
from fly64_dose_overlap.errors import as_refusal

CASE_LIMIT_S = 10.0
"""On the processor: on a busy machine a case may wait for it."""
WAIT_LIMIT_S = 60
MEMORY_LIMIT = 2**30


def tell(**values: Any) -> None:
    """Print a line for the process that counts."""
    print(json.dumps(values), flush=True)


def judge(read: Callable[[], Any]) -> tuple[str, str]:
    """Read, and return "accepted", "refused" or "lost" with what was said."""
    try:
        read()
    except Exception as error:
        refusal = as_refusal(error)
        if refusal is None:
            return "lost", f"{type(error).__name__}: {error}"[:300]
        message = str(refusal)
        if len(message.splitlines()) != 1 or len(message) > 2000:
            return "lost", f"not one line: {message[:300]!r}"
        return "refused", message
    return "accepted", ""


def try_case(reader: str, number: int, what: str, read: Callable[[], Any]) -> None:
    """Read once, within the time and memory that a reader may take, and tell the verdict."""
    tell(reader=reader, number=number, what=what[:200])
    forget_peak()
    started = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, CASE_LIMIT_S)
    signal.alarm(WAIT_LIMIT_S)
    verdict, message = judge(read)
    signal.alarm(0)
    signal.setitimer(signal.ITIMER_PROF, 0)
    if os.path.isdir(MARK):
        verdict, message = "lost", "code was executed"
        os.rmdir(MARK)
    seconds = time.process_time() - started
    tell(reader=reader, number=number, verdict=verdict, message=message, seconds=seconds, mib=peak_mib())


def forget_peak() -> None:
    """Have the system measure the largest resident memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """Return the largest resident memory of this process since then, in MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def run_target(root_seed: str, reader: str, numbers: range) -> None:
    """Try the cases of one reader."""
    target = TARGETS[reader]
    for number in numbers:
        what = target.make(random.Random(f"{root_seed} {reader} {number}"))
        try_case(reader, number, what, target.read)


def run_hypothesis(root_seed: str, numbers: range) -> None:
    """Try parameters that hypothesis makes."""
    left = iter(numbers)

    @seed(f"{root_seed} {numbers.start}")
    @settings(
        max_examples=len(numbers),
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.large_base_example,
            HealthCheck.data_too_large,
        ],
    )
    @given(st.data())
    def example(data: st.DataObject) -> None:
        content = hypothetical_params(data.draw)
        number = next(left, None)
        if number is not None:
            try_case(HYPOTHESIS, number, ascii(content)[-200:], lambda: parse_params(content))

    example()


def bound_memory() -> None:
    """Have the system refuse more than a gigabyte beyond what the imports took."""
    limit = psutil.Process().memory_info().vms + MEMORY_LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> None:
    """Work in the current folder, with the messages of what is read in a file of it."""
    root_seed, batches = sys.argv[1], json.loads(sys.argv[2])
    warnings.simplefilter("ignore")
    prepare()
    bound_memory()
    with (
        Path("messages.txt").open("w", encoding="utf-8", errors="backslashreplace") as messages,
        contextlib.redirect_stderr(messages),
    ):
        for reader, first, count in batches:
            numbers = range(first, first + count)
            if reader == HYPOTHESIS:
                run_hypothesis(root_seed, numbers)
            else:
                run_target(root_seed, reader, numbers)
    tell(end=True)


if __name__ == "__main__":
    main()
