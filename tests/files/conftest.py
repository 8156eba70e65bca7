"""A valid dataset by the keys of its file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

FRAMES, SIDE, OBJECT_SHAPE = 6, 8, (20, 24)


@pytest.fixture
def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    ramp = np.exp(1j * rng.uniform(-1, 1, OBJECT_SHAPE))
    probe = rng.normal(size=(SIDE, SIDE)) + 1j * rng.normal(size=(SIDE, SIDE))
    return {
        "diffraction": np.sqrt(rng.poisson(4, (FRAMES, SIDE, SIDE))).astype(np.float32),
        "objectGuess": ramp.astype(np.complex64),
        "probeGuess": probe.astype(np.complex64),
        "xcoords": np.linspace(4, 20, FRAMES),
        "ycoords": np.linspace(4, 15.5, FRAMES),
    }
