"""How well a reconstruction explains photons that it was not made of."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Complex
from numpy.typing import NDArray

from fly64_dose_overlap.arrays import spool
from fly64_dose_overlap.physics.fit import Fit, fit
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.seeding import generator


def fit_of_others(
    scan: Scan,
    obj: Complex[NDArray[np.complex64], "h w"],
    probe: Complex[NDArray[np.complex64], "mode y x"],
    own: Scan,
    rng: np.random.Generator,
) -> Fit:
    """Compare a reconstruction's object and probe with the frames of a scan other than its ``own``.

    The probe is brought to the power of that scan; positions are the scan's.
    """
    power, given = (float((np.abs(each.probe) ** 2).sum(dtype=np.float64)) for each in (scan, own))
    probe = (probe * math.sqrt(power / given)).astype(np.complex64)
    return fit(replace(scan, probe=probe).model, scan.counts, torch.from_numpy(obj), rng)


def exposed_again(scan: Scan, truth: Complex[NDArray[np.complex64], "h w"]) -> Scan:
    """Return the scan with photons, on disk, drawn from the true object anew: no method saw them."""
    model, obj = scan.model, torch.from_numpy(truth)
    rng = generator(0, "fit", "exposed again")
    blocks = (
        rng.poisson(model.expected(obj, frames).double().numpy()).astype(np.float32)
        for frames in model.batches()
    )
    return replace(scan, counts=spool((len(scan), scan.side, scan.side), np.float32, blocks))


def fit_figures(found: Fit) -> dict[str, float]:
    """Return what stands among the scores of a method."""
    names = ("deviance", "deviance_floor", "r_factor", "r_floor", "chi_square", "divergence")
    return {**{name: getattr(found, name) for name in names}, "r_over_floor": found.r_factor / found.r_floor}
