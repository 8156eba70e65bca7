"""Least-squares maximum likelihood of pty-chi in random batches, the reference of the study."""

from __future__ import annotations

from fly64_dose_overlap.methods.ptychi import PtychiIteration


class Lsqml(PtychiIteration):
    """Least-squares maximum likelihood of pty-chi in random batches, the reference of the study."""

    name = "lsqml"
    label = "LSQML"
    algorithm = "lsqml"
    batch_frames = 96
