"""Reconstructions of a test half."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fly64_dose_overlap.data.contract import Dataset
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.networks.bundle import BundleInfo
from fly64_dose_overlap.networks.corrector import Corrector, correct_image, input_planes
from fly64_dose_overlap.networks.mosaic import load_scan, make_mosaic

NETWORK = "network"
GROUP_START = "group start"
FLAT = "flat object"
Reconstructions = dict[str, NDArray[np.complex64]]


def reconstruct(
    dataset: Dataset, network: Corrector, info: BundleInfo, *, where: Path, device: str
) -> Reconstructions:
    """Reconstruct the scanned object by every method of this arm.

    The truth in ``dataset`` gives the size of the grid and nothing else.

    Parameters
    ----------
    dataset : Dataset
        The test half, with groups.
    network, info
        From `load_bundle`.
    where : Path
        File of the dataset, for errors.
    device : str
        "auto", "cpu" or "cuda".

    Returns
    -------
    dict of (y, x) complex64
        ``network``; ``group start``, the stitched classical iterations that the network
        starts from; ``flat object``, the empty object that a method must beat.

    Raises
    ------
    StudyError
        If the bundle was trained for other frames or groups.
    """
    _require_fit(dataset, info, where)
    target = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    scan = load_scan(dataset, target, info.support_side_px)
    mosaic = make_mosaic(
        scan, scan.counts, fraction=1.0, iterations=info.start_iterations, label="reconstruct groups"
    )
    corrected = correct_image(network.to(target).eval(), input_planes(mosaic).to(target))
    return {NETWORK: corrected, GROUP_START: mosaic.late, FLAT: np.ones_like(mosaic.late)}


def _require_fit(dataset: Dataset, info: BundleInfo, where: Path) -> None:
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
