"""How well a reconstruction explains the counted photons of other frames, where nobody knows the object."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Complex
from numpy.typing import NDArray

from fly64_dose_overlap.physics.fit import Fit, fit
from fly64_dose_overlap.scan import Scan


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
