"""Model bundles: weights and everything needed to use them, in one safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fly64_dose_overlap.config import FrameSide, first_problem
from fly64_dose_overlap.errors import MissingFileError, StudyError, as_refusal
from fly64_dose_overlap.files.atomic import atomic_path
from fly64_dose_overlap.learning.layers import Network
from fly64_dose_overlap.provenance import Record, dumps

METADATA_KEY = "bundle"
"""One key only: the format keeps no order among several, and bytes would differ."""
DIGEST = "sha256"
"""Entry of the metadata: of the weights and all other entries."""

Width = Annotated[int, Field(ge=4, le=512, multiple_of=4)]
SupportSide = Annotated[int, Field(ge=4, le=1024)]
Photons = Annotated[float, Field(gt=0, le=1e15)]


@dataclass(frozen=True)
class ModelInfo:
    """What the weights of a network belong to."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    width: Width
    """Channels of the network's first scale."""
    frame_side_px: FrameSide
    """N."""
    support_side_px: SupportSide
    """Side of the centred square of a frame in which the object is found."""
    photons_per_frame: Photons
    """Mean measured dose of the training frames."""
    training: dict[str, Any]
    """Settings and outcome of the training."""
    record: Record
    """Provenance of the training data."""


Info = TypeVar("Info")


def save_bundle(path: Path, network: nn.Module, info: Any, name: str) -> None:
    """Write a bundle; equal weights and info, a dataclass that JSON can hold, give equal bytes.

    The name is that of the method and the version of its format, which `load_bundle` asks for.
    """
    content = {"format": name, **asdict(info)}
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    metadata = dumps({**content, DIGEST: bundle_digest(content, tensors)})
    with atomic_path(path) as temporary:
        # save_file would make a file of its own, which only its owner may read.
        temporary.write_bytes(save(tensors, metadata={METADATA_KEY: metadata}))


def bundle_digest(content: dict[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of weights, by name, type and shape, and of the other metadata.

    Weights are contiguous and in main memory.
    """
    digest = hashlib.sha256(dumps(content).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_bundle(
    path: Path, name: str, info_type: type[Info], build: Callable[[Info], Network]
) -> tuple[Network, Info]:
    """Read a bundle without executing anything from it.

    ``name`` is the one that it was saved under, ``info_type`` the dataclass of what the weights belong
    to, whose fields are checked. ``build`` returns the network for such weights, with any weights.

    Raises
    ------
    MissingFileError
        If there is no such file.
    StudyError
        If it is no bundle of this name, if it was damaged or changed after it was written,
        or if its weights do not fit its network.
    """
    if not path.is_file():
        raise MissingFileError(str(path), "no such model bundle", "train the method first")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: Any = json.loads((file.metadata() or {}).get(METADATA_KEY, "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        if not isinstance(metadata, dict) or metadata.get("format") != name:
            raise StudyError(str(path), f"is no model bundle of format {name}", "train again")
        content = cast(dict[str, Any], metadata)
        if content.pop(DIGEST, None) != bundle_digest(content, tensors):
            raise ValueError("its SHA-256 differs from the one it carries, it was damaged or changed")
        del content["format"]
        info = TypeAdapter(info_type).validate_json(dumps(content))
        _check_weights(tensors, lambda: build(info))
        network = build(info)
        network.load_state_dict(tensors)
    except ValidationError as error:
        raise unreadable(path, first_problem(error)) from None
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        if as_refusal(error) is not None:
            raise
        raise unreadable(path, str(error)) from None
    return network.eval(), info


def unreadable(path: Path, why: str) -> StudyError:
    """Return the error of a bundle that cannot be used."""
    return StudyError(str(path), f"is not a readable model bundle ({why})", "restore it: dvc pull")


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
