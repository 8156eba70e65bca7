"""Images of a trained network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import Dataset
from fly64_dose_overlap.learning.bundle import BundleInfo
from fly64_dose_overlap.learning.corrector import Corrector, correct_image, input_planes
from fly64_dose_overlap.learning.scan import Scan, Start, load_scan
from fly64_dose_overlap.physics.counts import Counts


@dataclass(frozen=True, eq=False)
class Imager:
    """A network and the scan that it makes images of.

    Attributes
    ----------
    scan : Scan
    network : Corrector
    start : Start
        Makes what the network corrects.
    coarse_photons : float or None, photons per pixel
        See `correct`.
    """

    scan: Scan
    network: Corrector
    start: Start
    coarse_photons: float | None

    def images(self, counts: Counts, fraction: float) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
        """Return the network's image and the late one of the estimate that it corrects.

        Parameters
        ----------
        counts : Counts
            Of all frames of the scan.
        fraction : float
            Expected part of the scan's photons that ``counts`` holds.
        """
        estimate = self.start(self.scan, counts, fraction=fraction, label="classical iterations")
        planes = input_planes(estimate).to(self.scan.probe.device)
        return correct_image(self.network, planes, self.coarse_photons), estimate.late


def load_imager(
    dataset: Dataset, network: Corrector, info: BundleInfo, start: Start, *, where: Path, device: str
) -> Imager:
    """Bring a network and a dataset together.

    The truth in ``dataset`` gives the size of the grid and nothing else.

    Parameters
    ----------
    dataset : Dataset
        With groups.
    network, info
        From `load_bundle`.
    start : Start
        Of the kind and with the settings that ``info`` names.
    where : Path
        File of the dataset, for errors.
    device : str
        "auto", "cpu" or "cuda".

    Raises
    ------
    StudyError
        If the network was trained for other frames or groups.
    """
    side = dataset.amplitude.shape[-1]
    if side != info.frame_side_px:
        raise StudyError(
            str(where), f"frames are {side} px wide, the network was trained on {info.frame_side_px} px"
        )
    if dataset.groups is None or dataset.groups.shape[1] != info.gridsize**2:
        found = 0 if dataset.groups is None else dataset.groups.shape[1]
        raise StudyError(
            str(where),
            f"holds groups of {found} frames, the network was trained on groups of {info.gridsize**2}",
            "train on this view: dvc repro train",
        )
    target = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    scan = load_scan(dataset, target, info.support_side_px)
    return Imager(scan, network.to(target).eval(), start, info.coarse_photons)
