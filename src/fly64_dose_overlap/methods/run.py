"""Run a method on a scan and keep what it gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from fly64_dose_overlap.arrays import described
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.reconstruction import LOSS, Reconstruction, check_heading
from fly64_dose_overlap.files.rules import check_reals
from fly64_dose_overlap.methods.base import Method
from fly64_dose_overlap.methods.held_out import HeldOut
from fly64_dose_overlap.methods.state import Result, fitting
from fly64_dose_overlap.parallel import one_torch_thread
from fly64_dose_overlap.provenance import with_step
from fly64_dose_overlap.scan import Scan, embedded
from fly64_dose_overlap.timing import Timing


def run_method(method: Method, scan: Scan, stop: HeldOut) -> Iterator[tuple[Reconstruction, Timing]]:
    """Yield everything that a method makes of all frames of a scan, and the time that it took.

    A learned method has its model loaded. It works on the part of the object's grid that the scan
    reaches; outside a reconstruction is one.

    Raises
    ------
    StudyError
        If the method gives no result, or one that does not fit the scan or is not finite.
    """
    result: Any = None
    with one_torch_thread():
        scan = method.taken(scan)
        reached, window = scan.cropped()
        for result in method.results(reached.lent(), stop):
            if not isinstance(result, Result):
                raise StudyError(method.label, f"results must yield Result, got {described(result)}")
            check_heading(method.label, result.name, result.label, result.kind, result.settings)
            state = fitting(result.state, reached, method.label).finite_copy(method.label)
            yield _reconstruction(replace(result, state=state), scan, window), result.timing
    if result is None:
        raise StudyError(method.label, "gives no result")


def _reconstruction(result: Result, scan: Scan, window: tuple[slice, slice]) -> Reconstruction:
    probe, positions = result.state.probe, result.state.positions_px
    if positions is not None:
        positions = positions + np.array([window[0].start, window[1].start])
    return Reconstruction(
        method=result.name,
        label=result.label,
        kind=result.kind,
        obj=embedded(result.state.obj.cpu().numpy(), window, scan.object_shape),
        probe=scan.probe if probe is None else probe.cpu().numpy(),
        positions_px=scan.positions_px if positions is None else positions,
        flux=scan.flux,
        loss=check_reals(result.label, LOSS, np.array(result.loss)),
        settings=result.settings,
        record=with_step(scan.record, "reconstruct", result.label, **result.settings),
    )
