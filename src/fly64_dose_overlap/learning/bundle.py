"""Model bundles: weights and everything needed to use them, in one safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fly64_dose_overlap.config import (
    CoarsePhotons,
    FrameSide,
    PriorWeight,
    StartIterations,
    Width,
    first_problem,
)
from fly64_dose_overlap.errors import MissingFileError, StudyError, as_refusal
from fly64_dose_overlap.files.atomic import atomic_path
from fly64_dose_overlap.learning.corrector import Corrector, build_corrector
from fly64_dose_overlap.learning.supervised import (
    Photons,
    SupervisedInfo,
    SupervisedNetwork,
    SupportSide,
    build_supervised,
)
from fly64_dose_overlap.provenance import Record

FORMAT = "fly64-dose-overlap/5"
SUPERVISED_FORMAT = "fly64-dose-overlap-supervised/2"
METADATA_KEY = "bundle"
"""One key only: the format keeps no order among several, and bytes would differ."""
DIGEST = "sha256"
"""Entry of the metadata: of the weights and all other entries."""


@dataclass(frozen=True)
class BundleInfo:
    """What the weights belong to.

    Attributes
    ----------
    width : int
        Channels of the network's first scale.
    start : "groups" or "joint"
        What the network corrects: groups reconstructed one by one, or all frames at once.
    start_iterations : int
        Classical iterations before the network.
    start_weight : float
        Relative weight of their prior, 0 for none.
    coarse_photons : float or None, photons per pixel
        Where half of the correction's coarse part is left, None: all everywhere.
    frame_side_px, support_side_px, gridsize : int
        Geometry of the groups.
    photons_per_frame : float
        Mean measured dose of the training frames, photons per frame.
    training : dict
        The ``train`` section of params.yaml and the outcome of training.
    record : dict
        Provenance of the training data.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    width: Width
    start: Literal["groups", "joint"]
    start_iterations: StartIterations
    start_weight: PriorWeight
    coarse_photons: CoarsePhotons | None
    frame_side_px: FrameSide
    support_side_px: SupportSide
    gridsize: Annotated[int, Field(ge=1, le=2)]
    photons_per_frame: Photons
    training: dict[str, Any]
    record: Record


Info = TypeVar("Info", BundleInfo, SupervisedInfo)
Network = TypeVar("Network", bound=nn.Module)


def save_bundle(path: Path, network: nn.Module, info: BundleInfo | SupervisedInfo) -> None:
    """Write a bundle; equal weights and info give equal bytes."""
    name = FORMAT if isinstance(info, BundleInfo) else SUPERVISED_FORMAT
    content = {"format": name, **asdict(info)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    metadata = _dumps({**content, DIGEST: bundle_digest(content, tensors)})
    with atomic_path(path) as temporary:
        # save_file would make a file of its own, which only its owner may read.
        temporary.write_bytes(save(tensors, metadata={METADATA_KEY: metadata}))


def bundle_digest(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of weights, by name, type and shape, and of what they belong to.

    Parameters
    ----------
    content : mapping
        The metadata without their digest, JSON-able.
    tensors : mapping
        Weights by name, contiguous and in main memory.
    """
    digest = hashlib.sha256(_dumps(content).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _dumps(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, allow_nan=False)


def load_bundle(path: Path, start: Literal["groups", "joint"] = "groups") -> tuple[Corrector, BundleInfo]:
    """Read a corrector's bundle without executing anything from it.

    Parameters
    ----------
    path : Path
    start : "groups" or "joint"
        What the network must correct.

    Raises
    ------
    MissingFileError
        If there is no such file.
    StudyError
        If it is no bundle of this study, if it was damaged or changed after it was written,
        or if its weights do not fit its network.
    """
    stage = "train" if start == "groups" else "refine"
    network, info = _load(
        path, FORMAT, BundleInfo, lambda info: build_corrector(info.width, seed=0), stage=stage
    )
    if info.start != start:
        raise StudyError(str(path), f"corrects {info.start} iterations, not {start} ones", "train again")
    return network, info


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
            metadata: Any = json.loads((file.metadata() or {}).get(METADATA_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if not isinstance(metadata, dict) or metadata.get("format") != expected:
            raise StudyError(str(path), f"is no model bundle of format {expected}", "train again")
        info = _checked_info(cast(dict[str, Any], metadata), tensors, info_type)
        _check_weights(tensors, lambda: build(info))
        network = build(info)
        network.load_state_dict(tensors)
    except ValidationError as error:
        raise _unreadable(path, first_problem(error)) from None
    except StudyError:
        raise
    except (SafetensorError, OSError, RuntimeError, ValueError, RecursionError) as error:
        if as_refusal(error) is not None:
            raise
        raise _unreadable(path, str(error)) from None
    return network.eval(), info


def _unreadable(path: Path, why: str) -> StudyError:
    return StudyError(str(path), f"is not a readable model bundle ({why})", "restore it: dvc pull")


def _checked_info(metadata: dict[str, Any], tensors: Mapping[str, Tensor], info_type: type[Info]) -> Info:
    """Return what the weights belong to, once the digest is known to be right."""
    content = {key: value for key, value in metadata.items() if key != DIGEST}
    if metadata.get(DIGEST) != bundle_digest(content, tensors):
        raise ValueError("its SHA-256 differs from the one it carries, it was damaged or changed")
    del content["format"]
    return TypeAdapter(info_type).validate_json(_dumps(content))


def _check_weights(tensors: Mapping[str, Tensor], build: Callable[[], nn.Module]) -> None:
    """Refuse weights that are not finite or not those of the network, before memory is taken for it."""
    with torch.device("meta"):
        wanted = {name: (tensor.shape, tensor.dtype) for name, tensor in build().state_dict().items()}
    found = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if differing:
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise ValueError(f"{differing[0]!r}{more} is not as its network has it")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name!r} has NaN or infinite values")
