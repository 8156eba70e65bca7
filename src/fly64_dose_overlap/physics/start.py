"""A few classical iterations on each group by itself, from an empty object."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fly64_dose_overlap.physics.groups import GroupModel
from fly64_dose_overlap.physics.likelihood import BACKGROUND_PHOTONS
from fly64_dose_overlap.physics.propagation import intensity

WEAK_ILLUMINATION = 0.05
"""Part of the largest illumination that damps the preconditioner where few photons fall."""


def group_start(
    model: GroupModel, counts: Float[Tensor, "group frame y x"], iterations: int
) -> tuple[Float[Tensor, "group 2 h w"], Float[Tensor, "group 2 h w"]]:
    """Reconstruct groups by accelerated amplitude projections.

    Each iteration replaces the far-field amplitudes by the measured ones (with a
    background under both, so that empty pixels at low dose do not pull at full
    strength), goes back, and divides by the illumination; Nesterov momentum halves
    the iterations. All frames of a group update one canvas.

    Parameters
    ----------
    model : GroupModel
    counts : (group, frame, y, x) float, photons
        Zero frequency in the corner.
    iterations : int

    Returns
    -------
    early, late : (group, 2, h, w) float
        The canvas after a quarter of the iterations, where little noise is fitted yet,
        and after all of them. One outside the illumination.
    """
    peak = model.illumination.amax(dim=(-2, -1), keepdim=True)
    step = (model.illumination + WEAK_ILLUMINATION * peak).reciprocal()[:, None]
    current = torch.zeros(counts.shape[0], 2, *model.illumination.shape[-2:], device=counts.device)
    current[:, 0] = 1
    early = ahead = current
    for iteration in range(iterations):
        field = model.far_field(ahead)
        ratio = ((counts + BACKGROUND_PHOTONS) / (intensity(field) + BACKGROUND_PHOTONS)).sqrt()
        updated = ahead + step * model.back_project(field * (ratio - 1))
        ahead = updated + iteration / (iteration + 3) * (updated - current)
        current = updated
        if iteration + 1 == max(1, iterations // 4):
            early = current
    return early, current
