"""What an injected fault or a bad input led to."""

from __future__ import annotations

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
