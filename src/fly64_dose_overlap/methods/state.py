"""What methods find, on the way and in the end."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fly64_dose_overlap.arrays import described
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.reconstruction import Kind
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.timing import Timing


@dataclass(frozen=True, eq=False)
class State:
    """What a method has found.

    Attributes
    ----------
    obj : (y, x) complex64
        On the scan's grid, one where no light falls; all may be reused for the next state.
    probe : (mode, y, x) complex64, sqrt(photons), optional
        Where the method refines it.
    positions_px : (frame, 2) float64, object pixels, optional
        Where the method refines them.
    """

    obj: Tensor
    probe: Tensor | None = None
    positions_px: NDArray[np.float64] | None = None

    def finite_copy(self, where: str) -> State:
        """Return the state with arrays of its own.

        Raises
        ------
        StudyError
            If one is not finite; ``where`` names the work.
        """
        found = (self.obj, self.probe, self.positions_px)
        own: list[Any] = [each.clone() if isinstance(each, Tensor) else deepcopy(each) for each in found]
        for name, each in zip(("object", "probe", "list of positions"), own, strict=True):
            if each is not None and not bool(torch.isfinite(torch.as_tensor(each)).all()):
                raise StudyError(where, f"the {name} is not finite", "do probe and counts belong together?")
        return State(*own)


def fitting(state: Any, scan: Scan, where: str) -> State:
    """Return what a method gives for its state, once it fits the scan; it need not be finite.

    Raises
    ------
    StudyError
        If it is no `State`, or an array has another type, precision or shape than its scan asks for.
    """
    if not isinstance(state, State):
        raise StudyError(where, f"run must yield State, got {described(state)}")
    for name, found, kind, dtype, shape in (
        ("obj", state.obj, Tensor, torch.complex64, scan.object_shape),
        ("probe", state.probe, Tensor, torch.complex64, scan.probe.shape),
        ("positions_px", state.positions_px, np.ndarray, np.dtype(np.float64), (len(scan), 2)),
    ):
        if found is None and name != "obj":
            continue
        if not isinstance(found, kind) or found.dtype != dtype or found.shape != shape:
            wanted = f"{kind.__name__} of {dtype} {shape}"
            raise StudyError(where, f"the {name} of a state must be a {wanted}, got {described(found)}")
    probe = None if state.probe is None else state.probe.detach().resolve_conj()
    return State(state.obj.detach().resolve_conj(), probe, state.positions_px)


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
