"""What methods find, on the way and in the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.reconstruction import Kind
from fly64_dose_overlap.timing import Timing


@dataclass(frozen=True, eq=False)
class State:
    """What a method has found.

    Attributes
    ----------
    obj : (y, x) complex64
        On the scan's grid, one where no light falls; may be reused for the next state.
    probe : (mode, y, x) complex64, sqrt(photons), optional
        Where the method refines it.
    positions_px : (frame, 2) float64, object pixels, optional
        Where the method refines them.
    """

    obj: Tensor
    probe: Tensor | None = None
    positions_px: NDArray[np.float64] | None = None

    def finite_copy(self, where: str) -> State:
        """Return the state with an object of its own.

        Raises
        ------
        StudyError
            If the object is not finite; ``where`` names the work.
        """
        if not bool(torch.isfinite(torch.view_as_real(self.obj)).all()):
            raise StudyError(where, "the object is not finite", "do probe and counts belong together?")
        return State(self.obj.clone(), self.probe, self.positions_px)


@dataclass(frozen=True, eq=False)
class Result:
    """One reconstruction that a method gives.

    Attributes
    ----------
    name, label, kind
        Of the result: a method may give several.
    settings : dict
        What it was made with, JSON-able.
    loss : tuple of float
        Whatever was followed, by epoch.
    timing : Timing
        What this result alone took to make.
    """

    name: str
    label: str
    kind: Kind
    state: State
    settings: dict[str, Any]
    loss: tuple[float, ...] = ()
    timing: Timing = field(default_factory=Timing)
