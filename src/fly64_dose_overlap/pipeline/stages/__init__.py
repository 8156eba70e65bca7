"""One thin module per DVC stage: parse, load the parameters, call, write.

SciPy, torch and matplotlib take seconds to import, which --help and refused arguments need not
wait for: what brings them is imported in ``main``.
"""

from __future__ import annotations

import sys
from types import TracebackType


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in one line that a stage was interrupted while it was still being imported."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    print("interrupted: nothing was begun, the same command can be repeated", file=sys.stderr)


# Later on `_cli.refusing` answers, but importing what it needs takes a second by itself.
sys.excepthook = _show
