"""Inject faults, feed bad input, load the machine; print the table of docs/reliability.md and write it.

make faults                     # everything
make faults ARGS=--quick        # a few of each
make faults ARGS='--only kills'
"""

from __future__ import annotations

import argparse
import importlib
import sys

from faults.outcome import Outcome
from faults.table import DOCUMENT, with_rows
from fly64_dose_overlap.files.atomic import write_text_atomic
from fly64_dose_overlap.progress import say

PARTS = ("kills", "interrupt", "limits", "storage", "crowd", "fuzz", "wrong", "load")


def main() -> None:
    """Run the parts that were asked for; exit with status 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="a few of each; writes no table")
    parser.add_argument("--only", action="append", choices=PARTS, help="only this part; may be repeated")
    options = parser.parse_args()
    modules = [importlib.import_module(f"faults.{name}") for name in options.only or PARTS]
    outcomes: list[Outcome] = []
    for module in modules:
        for outcome in module.run(quick=options.quick):
            say(describe(outcome))
            outcomes.append(outcome)
            if not options.quick:
                text = DOCUMENT.read_text(encoding="utf-8")
                write_text_atomic(DOCUMENT, with_rows(text, [outcome]))
    lost = [f"{outcome.kind}: {line}" for outcome in outcomes for line in outcome.lost]
    print("\n".join([*map(describe, outcomes), *(f"lost: {line}" for line in lost)]))
    print(f"{sum(each.tried for each in outcomes)} tried, {len(lost)} lost")
    sys.exit(bool(lost))


def describe(outcome: Outcome) -> str:
    """Return an outcome as one line."""
    return (
        f"{outcome.kind}: {outcome.tried} tried, {outcome.survived} survived, "
        f"{outcome.tried - outcome.survived} lost, {outcome.seconds:.1f} s, {outcome.mib:.0f} MiB at most"
    )


if __name__ == "__main__":
    main()
