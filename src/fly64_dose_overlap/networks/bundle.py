"""Model bundles: weights and everything needed to use them, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from fly64_dose_overlap.data.atomic import atomic_path
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.networks.corrector import Corrector, build_corrector
from fly64_dose_overlap.networks.supervised import SupervisedInfo, SupervisedNetwork, build_supervised
from fly64_dose_overlap.provenance import Record

FORMAT = "fly64-dose-overlap/1"
SUPERVISED_FORMAT = "fly64-dose-overlap-supervised/1"
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


Info = TypeVar("Info", BundleInfo, SupervisedInfo)
Network = TypeVar("Network", bound=nn.Module)


def save_bundle(path: Path, network: nn.Module, info: BundleInfo | SupervisedInfo) -> None:
    """Write a bundle; equal weights and info give equal bytes."""
    name = FORMAT if isinstance(info, BundleInfo) else SUPERVISED_FORMAT
    metadata = json.dumps({"format": name, **asdict(info)}, sort_keys=True, allow_nan=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_path(path) as temporary:
        # save_file would make a file of its own, which only its owner may read.
        temporary.write_bytes(save(tensors, metadata={METADATA_KEY: metadata}))


def load_bundle(path: Path) -> tuple[Corrector, BundleInfo]:
    """Read a corrector's bundle without executing anything from it.

    Raises
    ------
    MissingFileError
        If there is no such file.
    StudyError
        If it is no bundle of this study, or its weights do not fit its network.
    """
    return _load(path, FORMAT, BundleInfo, lambda info: build_corrector(info.width, seed=0), stage="train")


def load_supervised(path: Path) -> tuple[SupervisedNetwork, SupervisedInfo]:
    """Read a supervised network's bundle; see `load_bundle`."""
    return _load(
        path,
        SUPERVISED_FORMAT,
        SupervisedInfo,
        lambda info: build_supervised(info, seed=0),
        stage="supervise",
    )


def _load(
    path: Path, expected: str, info_type: type[Info], build: Callable[[Info], Network], *, stage: str
) -> tuple[Network, Info]:
    if not path.is_file():
        raise MissingFileError(str(path), "no such model bundle", f"train one with: dvc repro {stage}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if not isinstance(metadata, dict) or metadata.pop("format", None) != expected:
            raise StudyError(str(path), f"is no model bundle of format {expected}", "train again")
        info = info_type(**metadata)
        network = build(info)
        network.load_state_dict(tensors)
    except (SafetensorError, OSError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise StudyError(
            str(path), f"is not a readable model bundle ({error})", "restore it: dvc pull"
        ) from None
    return network.eval(), info
