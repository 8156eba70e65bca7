"""What holds for every test: checked array shapes, repeatable examples, clean random state."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from beartype._check.code import codemain
from hypothesis import settings
from jaxtyping import install_import_hook

# Operations of tests are small: threads would only wait for one another, and spin while
# they do. OpenMP reads this once, when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before anything imports the package: shapes and dtypes in its signatures are then
# checked at every call. Compiled loops have none, and no decorator may come between.
# The checker looks at items of a sequence at random, with a generator of its own.
codemain.getrandbits = random.Random(0).getrandbits  # pyright: ignore[reportPrivateImportUsage]
PHYSICS = Path(__file__).resolve().parents[1] / "src" / "fly64_dose_overlap" / "physics"
CHECKED = [path.stem for path in PHYSICS.glob("*.py") if path.stem not in ("__init__", "kernels")]
install_import_hook(
    [*(f"fly64_dose_overlap.physics.{name}" for name in CHECKED), "fly64_dose_overlap.scan"],
    "beartype.beartype",
)

settings.register_profile("study", derandomize=True, deadline=None)
settings.load_profile("study")


def _numpy_state() -> list[object]:
    state = np.random.get_state()  # noqa: NPY002 - the state under guard
    return [part.tobytes() if isinstance(part, np.ndarray) else part for part in state]


def _global_states() -> dict[str, object]:
    states: dict[str, object] = {"random": random.getstate(), "numpy.random": _numpy_state()}
    if "torch" in sys.modules:
        states["torch"] = sys.modules["torch"].get_rng_state().numpy().tobytes()
    return states


@contextmanager
def global_random_state_kept() -> Generator[None]:
    """Fail if the block draws from, or seeds, a global generator."""
    before = _global_states()
    yield
    after = _global_states()
    touched = [name for name, state in before.items() if after[name] != state]
    assert not touched, f"global random state of {', '.join(touched)} was changed"


@pytest.fixture(autouse=True)
def _global_random_state_kept() -> Generator[None]:
    with global_random_state_kept():
        yield


@pytest.fixture
def random_state_guard() -> Callable[[], AbstractContextManager[None]]:
    """Return the guard that stands around every test."""
    return global_random_state_kept
