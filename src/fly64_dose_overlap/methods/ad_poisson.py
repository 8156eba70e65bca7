"""Automatic differentiation of pty-chi: Adam on the Poisson likelihood."""

from __future__ import annotations

from fly64_dose_overlap.methods.base import settings_of
from fly64_dose_overlap.methods.ptychi import PtychiIteration


class AdPoisson(PtychiIteration):
    """Automatic differentiation of pty-chi: Adam on the Poisson likelihood.

    Its own corrections of probe and positions diverge in a few epochs: it is given what joint MAP finds.
    """

    name = "ad_poisson"
    label = "AD Poisson"
    algorithm = "autodiff"
    refines = False
    batch_frames = 25
    step = 0.04
    background_photons = 0.125
    Settings = settings_of(epochs=30)
