"""Validation on a strip of the training half that is held back.

The loss decides when training stops and which network is kept; it needs no ground
truth. PSNR and SSIM of the strip do need it and are logged only, of the image of those
photons that the network sees there: about half.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fly64_dose_overlap.config import TrainParams
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import Dataset
from fly64_dose_overlap.learning.corrector import Complex64, correct_image
from fly64_dose_overlap.learning.examples import CropSampler, Realisation
from fly64_dose_overlap.learning.scan import Scan
from fly64_dose_overlap.physics.likelihood import amplitude_error, poisson_deviance
from fly64_dose_overlap.scores.align import align_to
from fly64_dose_overlap.scores.region import Region, scan_region
from fly64_dose_overlap.scores.scores import WINDOW_TAPS, score
from fly64_dose_overlap.seeding import generator

CROPS = 24
REGION_THRESHOLD = 0.1
REGISTRATION_UPSAMPLING = 10


def split_frames(
    positions_px: NDArray[np.float64], fraction: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide the frames of a training half: the last ``fraction`` of the y range validates.

    Returns
    -------
    training, validation : (frame,) int64
        Frame indices.

    Raises
    ------
    StudyError
        If one of the two is empty.
    """
    y = positions_px[:, 0]
    held_back = y > y.max() - fraction * np.ptp(y)
    training, validation = np.flatnonzero(~held_back), np.flatnonzero(held_back)
    if not len(training) or not len(validation):
        raise StudyError(
            "train.validation_fraction",
            f"{fraction} leaves {len(training)} training and {len(validation)} validation frames",
            "change it, or keep more frames in the view",
        )
    return training, validation


def loss_of(config: TrainParams, expected: Tensor, counts: Tensor) -> Tensor:
    """Return the configured loss between expected and counted photons."""
    return (
        poisson_deviance(expected, counts) if config.loss == "poisson" else amplitude_error(expected, counts)
    )


class Validation:
    """Fixed validation examples, prepared once per training.

    Parameters
    ----------
    dataset : Dataset
        The training half.
    scan : Scan
        The same frames, ready for the inner loops.
    frames : (frame,) int64
        Validation frames.
    config : TrainParams
    realisations : sequence of Realisation
        Of the same scan; training on them may not score the validation frames. The strip's scores
        are those of the first.
    coarse_photons : float or None, photons per pixel
        See `correct`.
    """

    def __init__(
        self,
        dataset: Dataset,
        scan: Scan,
        frames: NDArray[np.int64],
        config: TrainParams,
        realisations: Sequence[Realisation],
        coarse_photons: float | None,
    ) -> None:
        self._config = config
        self._coarse_photons = coarse_photons
        self._truth = dataset.obj
        rng = generator(config.seed, "train", "validation")
        sampler = CropSampler(scan, frames, config.crop_px, config.frames_per_step)
        self._crops = [sampler.draw(each, rng) for each in islice(cycle(realisations), CROPS)]
        self._planes = realisations[0].planes
        self._region = scan_region(scan.fluence, scan.positions_px[frames], REGION_THRESHOLD)

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Return the validation loss, and the `strip_scores` of the corrected image."""
        network.eval()
        with torch.no_grad():
            losses = [
                float(loss_of(self._config, crop.predict(network, self._coarse_photons), crop.target))
                for crop in self._crops
            ]
        image = correct_image(network, self._planes, self._coarse_photons)
        network.train()
        return {"val/loss": float(np.mean(losses)), **strip_scores(self._truth, image, self._region)}


def strip_scores(truth: Complex64, image: Complex64, region: Region) -> dict[str, float]:
    """Return PSNR and SSIM of the phase of a strip, as ``val/psnr`` and ``val/ssim``.

    A strip narrower than the window of SSIM, a phase without contrast in the truth and
    an image that is not finite have no scores.

    Parameters
    ----------
    truth, image : (y, x) complex64
    region : Region
    """
    if min(region.shape) < WINDOW_TAPS or not np.isfinite(image).all():
        return {}
    aligned = align_to(truth, image, region, upsampling=REGISTRATION_UPSAMPLING)
    phase = score(truth, aligned.field, region)["phase"]
    found = {"val/psnr": phase["psnr_db"], "val/ssim": phase["ssim"]}
    return {name: value for name, value in found.items() if value is not None}
