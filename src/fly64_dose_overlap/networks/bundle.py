"""Model bundles: weights and everything needed to use them, in one safetensors file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fly64_dose_overlap.data.atomic import atomic_path
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.networks.corrector import Corrector, build_corrector
from fly64_dose_overlap.provenance import Record

FORMAT = "fly64-dose-overlap/1"
METADATA_KEY = "bundle"
"""One key only: the format keeps no order among several, and bytes would differ."""


@dataclass(frozen=True)
class BundleInfo:
    """What the weights belong to.

    Attributes
    ----------
    width : int
        Channels of the network's first scale.
    start_iterations : int
        Classical iterations before the network.
    frame_side_px, support_side_px, gridsize : int
        Geometry of the groups.
    photons_per_frame : float
        Mean measured dose of the training frames, photons per frame.
    training : dict
        The ``train`` section of params.yaml and the outcome of training.
    record : dict
        Provenance of the training data.
    """

    width: int
    start_iterations: int
    frame_side_px: int
    support_side_px: int
    gridsize: int
    photons_per_frame: float
    training: dict[str, Any]
    record: Record


def save_bundle(path: Path, network: Corrector, info: BundleInfo) -> None:
    """Write a bundle; equal weights and info give equal bytes."""
    metadata = json.dumps({"format": FORMAT, **asdict(info)}, sort_keys=True, allow_nan=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_path(path) as temporary:
        # save_file would make a file of its own, which only its owner may read.
        temporary.write_bytes(save(tensors, metadata={METADATA_KEY: metadata}))


def load_bundle(path: Path) -> tuple[Corrector, BundleInfo]:
    """Read a bundle without executing anything from it.

    Raises
    ------
    MissingFileError
        If there is no such file.
    StudyError
        If it is no bundle of this study, or its weights do not fit its network.
    """
    if not path.is_file():
        raise MissingFileError(str(path), "no such model bundle", "train one with: dvc repro train")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if not isinstance(metadata, dict) or metadata.pop("format", None) != FORMAT:
            raise StudyError(str(path), f"is no model bundle of format {FORMAT}", "train again")
        info = BundleInfo(**metadata)
        network = build_corrector(info.width, seed=0)
        network.load_state_dict(tensors)
    except (SafetensorError, OSError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise StudyError(
            str(path), f"is not a readable model bundle ({error})", "restore it: dvc pull"
        ) from None
    return network.eval(), info
