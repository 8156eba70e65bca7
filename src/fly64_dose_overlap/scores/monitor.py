"""Scores of a training's images as they come, which steer nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import read_truth
from fly64_dose_overlap.scan import Scan
from fly64_dose_overlap.scores.align import align_to
from fly64_dose_overlap.scores.region import scan_region
from fly64_dose_overlap.scores.scores import WINDOW_TAPS, score

REGION_THRESHOLD = 0.1
REGISTRATION_UPSAMPLING = 10


class TruthMonitor:
    """Compares images of a scan with its true object, where some of its frames lie.

    A network without ground truth is watched by it and never sees it: what it returns is
    logged and nothing else. The scan is that of the dataset ``path``, on the part ``window``
    of the object's grid.
    """

    def __init__(self, path: Path, scan: Scan, window: tuple[slice, slice]) -> None:
        self._truth = read_truth(path)[window]
        self._scan = scan
        self._illumination = scan.illumination()

    def __call__(self, image: NDArray[np.complex64], frames: NDArray[np.int64]) -> dict[str, float]:
        """Return PSNR and SSIM of the phase, as ``val/psnr`` and ``val/ssim``.

        The image, (y, x), is scored in the bounding box of the frames. Frames with no lit pixel
        between them, a strip narrower than the window of SSIM, a phase without contrast in the
        truth and an image that is not finite have no scores.
        """
        try:
            region = scan_region(self._illumination, self._scan.positions_px[frames], REGION_THRESHOLD)
        except StudyError:
            return {}
        if min(region.shape) < WINDOW_TAPS or not np.isfinite(image).all():
            return {}
        aligned = align_to(self._truth, image, region, upsampling=REGISTRATION_UPSAMPLING)
        phase = score(self._truth, aligned.field, region)["phase"]
        found = {"val/psnr": phase["psnr_db"], "val/ssim": phase["ssim"]}
        return {name: value for name, value in found.items() if value is not None}
