"""Least-squares maximum likelihood of pty-chi in compact batches, with momentum."""

from __future__ import annotations

from fly64_dose_overlap.methods.ptychi import PtychiIteration


class LsqmlCompact(PtychiIteration):
    """Least-squares maximum likelihood of pty-chi in compact batches, with momentum."""

    name = "lsqml_compact"
    label = "LSQML compact"
    algorithm = "lsqml"
    batch_frames = 100
    compact = True
    momentum = 0.5
