"""A few classical iterations on each group by itself, from an empty object."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from fly64_dose_overlap.physics.groups import GroupModel
from fly64_dose_overlap.physics.likelihood import BACKGROUND_PHOTONS
from fly64_dose_overlap.physics.propagation import intensity

WEAK_ILLUMINATION = 0.05
"""Part of the largest illumination that damps the preconditioner where few photons fall."""


def group_start(
    model: GroupModel, counts: Float[Tensor, "group frame y x"], iterations: int
) -> tuple[Complex[Tensor, "group h w"], Complex[Tensor, "group h w"]]:
    """Reconstruct groups by accelerated amplitude projections.

    Each iteration replaces the far-field amplitudes by the measured ones (with a
    background under both, so that empty pixels at low dose do not pull at full
    strength), goes back, and divides by the illumination; Nesterov momentum halves
    the iterations. All frames of a group update one canvas.

    Parameters
    ----------
    counts : (group, frame, y, x) float, photons
        Zero frequency at [N/2, N/2].

    Returns
    -------
    early, late : (group, h, w) complex
        The canvas after a quarter of the iterations, where little noise is fitted yet,
        and after all of them. One outside the illumination.
    """
    peak = model.illumination.amax(dim=(-2, -1), keepdim=True)
    step = (model.illumination + WEAK_ILLUMINATION * peak).reciprocal().to(model.support.dtype)
    early = ahead = current = torch.ones_like(step)
    for iteration in range(iterations):
        field = model.far_field(ahead)
        expected = model.pixels.expected(intensity(field).sum(dim=2))
        measured = model.pixels.filled(counts, expected)
        ratio = ((measured + BACKGROUND_PHOTONS) / (expected + BACKGROUND_PHOTONS)).sqrt_().sub_(1)
        updated = ahead + step * model.back_project(field * ratio[:, :, None])
        ahead = torch.lerp(current, updated, 1 + iteration / (iteration + 3))
        current = updated
        if iteration + 1 == max(1, iterations // 4):
            early = current
    return early, current
