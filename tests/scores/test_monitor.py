"""Scores of a training's images, which no training may fail for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tiny_scan
from fly64_dose_overlap.files.dataset import write_scan
from fly64_dose_overlap.scores.monitor import TruthMonitor


@pytest.mark.parametrize(
    ("frames", "scores"),
    [([], set()), ([40], set()), ([40, 41], set()), (range(81), {"val/psnr", "val/ssim"})],
)
def test_frames_with_no_whole_pixel_between_them_have_no_scores(
    frames: list[int], scores: set[str], tmp_path: Path
) -> None:
    scan, truth = tiny_scan.scan(), tiny_scan.truth()
    write_scan(tmp_path / "train.npz", scan, truth)
    monitor = TruthMonitor(tmp_path / "train.npz", scan, (slice(None), slice(None)))
    assert monitor(truth, np.array(frames, np.int64)).keys() == scores
