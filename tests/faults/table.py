"""The table of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Sequence

from faults.outcome import Outcome
from tiny_study import ROOT

DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN = "<!-- table: written by make faults -->"
END = "<!-- end of table -->"
HEADING = (
    "| kind of fault or input | tried | survived | lost | worst time (s) | worst memory (MiB) |",
    "|---|---:|---:|---:|---:|---:|",
)


def with_rows(text: str, outcomes: Sequence[Outcome]) -> str:
    """Return the document with the rows of these outcomes in the place of their former ones.

    Rows of other kinds stay, so that parts can be run one at a time.

    Raises
    ------
    ValueError
        If the document does not have both marks, each once.
    """
    before, begin, rest = text.partition(BEGIN)
    block, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"the document must have {BEGIN} and {END} once each")
    rows = {row.split("|")[1].strip(): row for row in block.splitlines() if row.startswith("| ")}
    rows.pop(HEADING[0].split("|")[1].strip(), None)
    rows.update({outcome.kind: _row(outcome) for outcome in outcomes})
    table = "\n".join([*HEADING, *rows.values()])
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def _row(outcome: Outcome) -> str:
    values = (outcome.tried, outcome.survived, outcome.tried - outcome.survived)
    counts = " | ".join(f"{value:,}" for value in values)
    return f"| {outcome.kind} | {counts} | {outcome.seconds:,.1f} | {outcome.mib:,.0f} |"
