"""Bad checkpoints and model bundles, and what reads them."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from faults.mutations import Payload, fresh_path, json_bytes, mutate_bytes, mutate_tree
from fly64_dose_overlap.learning.bundle import DIGEST, METADATA_KEY, ModelInfo, bundle_digest, save_bundle
from fly64_dose_overlap.learning.checkpoint import DIGEST_BYTES, CheckpointStore, sealed
from fly64_dose_overlap.learning.correction import CorrectorInfo, bundle_name, load_corrector
from fly64_dose_overlap.learning.corrector import build_corrector
from fly64_dose_overlap.learning.mosaic import GroupStart
from fly64_dose_overlap.methods.supervised import BUNDLE, Supervised, build_supervised


def checkpoint_state() -> dict[str, Any]:
    """Return a state such as the trainer saves."""
    network = build_corrector(4, 0)
    return {
        "weights": network.state_dict(),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-3}]},
        "history": [{"train/loss": 1.0}],
        "best_epoch": 1,
        "best_loss": 0.5,
        "best_weights": network.state_dict(),
        "spent": {"seconds": 1.0, "cpu_seconds": 1.0},
    }


def make_checkpoint(rng: random.Random) -> str:
    """Write two checkpoints, the newer one bad, some with a digest that fits what is bad."""
    store = CheckpointStore(Path("checkpoints"))
    store.clear()
    store.save(checkpoint_state())
    store.save(checkpoint_state())
    path = Path("checkpoints/last.pt")
    kind = rng.choice(("blind", "payload", "payload", "pickle", "state"))
    if kind == "blind":
        what, changed = mutate_bytes(rng, path.read_bytes())
    elif kind == "payload":
        what, payload = mutate_bytes(rng, path.read_bytes()[DIGEST_BYTES:])
        changed = hashlib.sha256(payload).digest() + payload
    elif kind == "pickle":
        what, changed = kind, sealed({"weights": Payload()})
    else:
        what, changed = kind, sealed(rng.choice((None, [], {}, "text", {"weights": 1}, torch.zeros(3))))
    path.write_bytes(changed)
    return what


def use_checkpoint() -> None:
    """Load the newest whole checkpoint."""
    state = CheckpointStore(Path("checkpoints")).load()
    assert isinstance(state, dict)


ABOUT = {"seed": 1}, {"schema_version": "1"}
CORRECTOR = CorrectorInfo(4, 32, 28, 1000.0, *ABOUT, None, 2, {"iterations": 2})
SUPERVISED = ModelInfo(4, 16, 12, 1000.0, *ABOUT)
METHOD = "refined"


def use_corrector() -> None:
    """Read a corrector's bundle, and write it again."""
    network, info, _ = load_corrector(Path("bundle"), METHOD, GroupStart)
    _write_again(network, info, bundle_name(METHOD))


def use_supervised() -> None:
    """Have the method take up its bundle."""
    Supervised().load(Path("bundle"))


def bundle_maker(info: ModelInfo) -> Callable[[random.Random], str]:
    """Return what makes a bad model bundle, some with a digest that fits what is bad."""

    def make(rng: random.Random) -> str:
        path = fresh_path("bundle")
        if isinstance(info, CorrectorInfo):
            network, name = build_corrector(4, 0), bundle_name(METHOD)
        else:
            network, name = build_supervised(info, 0), BUNDLE
        save_bundle(path, network, info, name)
        content = path.read_bytes()
        if rng.random() < 0.4:
            what, changed = mutate_bytes(rng, content)
            path.write_bytes(changed)
            return what
        size = struct.unpack("<Q", content[:8])[0]
        header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
        if rng.random() < 0.5:
            what, header = mutate_tree(rng, header)
        else:
            metadata = json.loads(header["__metadata__"][METADATA_KEY])
            del metadata[DIGEST]
            what, metadata = mutate_tree(rng, metadata)
            header["__metadata__"][METADATA_KEY] = _with_digest(metadata, network.state_dict())
        text = json_bytes(rng, header)
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)
        return what

    return make


def _with_digest(metadata: Any, tensors: dict[str, torch.Tensor]) -> str:
    if not isinstance(metadata, dict):
        return json.dumps(metadata)
    weights = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        return json.dumps({**metadata, DIGEST: bundle_digest(metadata, weights)})
    except ValueError:
        return json.dumps(metadata)


def _write_again(network: torch.nn.Module, info: Any, name: str) -> None:
    """Write a bundle that was read; its information is JSON then."""
    json.dumps(asdict(info), allow_nan=False)
    save_bundle(Path("again"), network, info, name)
