"""Named, independent random streams; the global generators are never touched."""

from __future__ import annotations

import hashlib

import numpy as np


def stream_entropy(seed: int, *names: str | int) -> list[int]:
    """Return the entropy words of the stream ``names`` under ``seed``.

    Names are hashed, so that adding a stream never shifts another one.
    """
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return [seed, *np.frombuffer(digest[:16], dtype="<u4").tolist()]


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return the NumPy generator of a named stream.

    Parameters
    ----------
    seed : int, >= 0
        Seed from ``params.yaml``.
    *names : str or int
        Path of the stream, for example ``"simulate", "counts", block``.

    Examples
    --------
    >>> bool(generator(42, "scan").random() == generator(42, "scan").random())
    True
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(stream_entropy(seed, *names))))


def torch_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for a ``torch.Generator`` of the named stream."""
    sequence = np.random.SeedSequence(stream_entropy(seed, *names))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
