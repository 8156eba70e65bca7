"""The extended ptychographic iterative engine of pty-chi."""

from __future__ import annotations

from fly64_dose_overlap.methods.base import settings_of
from fly64_dose_overlap.methods.ptychi import PtychiIteration


class Epie(PtychiIteration):
    """The extended ptychographic iterative engine of pty-chi."""

    name = "epie"
    label = "ePIE"
    algorithm = "epie"
    batch_frames = 10
    alpha = 0.5
    Settings = settings_of(epochs=30)
