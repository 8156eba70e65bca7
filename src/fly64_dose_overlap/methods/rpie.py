"""The regularised ptychographic iterative engine of pty-chi."""

from __future__ import annotations

from fly64_dose_overlap.methods.base import settings_of
from fly64_dose_overlap.methods.ptychi import PtychiIteration


class Rpie(PtychiIteration):
    """The regularised ptychographic iterative engine of pty-chi."""

    name = "rpie"
    label = "rPIE"
    algorithm = "rpie"
    batch_frames = 10
    alpha = 0.5
    step = 0.45
    Settings = settings_of(epochs=30)
