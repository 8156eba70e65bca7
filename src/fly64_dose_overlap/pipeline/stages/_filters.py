"""Options that choose some of the study's cells."""

from __future__ import annotations

from typing import Annotated

import typer

DoseFilter = Annotated[
    list[int] | None, typer.Option("--dose", metavar="PHOTONS", help="Only this dose; may be repeated.")
]
ViewFilter = Annotated[
    list[str] | None, typer.Option("--view", metavar="NAME", help="Only this view; may be repeated.")
]
GridsizeFilter = Annotated[
    list[int] | None,
    typer.Option("--gridsize", metavar="SIDE", help="Only groups of this side; may be repeated."),
]
