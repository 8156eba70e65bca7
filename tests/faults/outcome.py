"""What an injected fault or a bad input led to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """One row of the table of `docs/reliability.md`.

    Attributes
    ----------
    kind : str
        The fault or the input.
    tried, survived : int
        What is neither is lost.
    seconds : float
        The longest that one took.
    mib : float
        The largest resident memory, in MiB.
    lost : tuple of str
        One line for each that was lost.
    """

    kind: str
    tried: int
    survived: int
    seconds: float
    mib: float
    lost: tuple[str, ...] = ()


def tell(outcomes: Iterable[Outcome]) -> int:
    """Print what was lost and how much was tried; return the exit status."""
    found = list(outcomes)
    losses = [f"{outcome.kind}: {line}" for outcome in found for line in outcome.lost]
    print("\n".join(losses))
    print(f"{sum(outcome.tried for outcome in found)} tried, {len(losses)} lost")
    return int(bool(losses))
