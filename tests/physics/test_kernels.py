"""Compiled loops, where they are installed for reading only."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from numba.core import caching  # pyright: ignore[reportMissingTypeStubs]

from fly64_dose_overlap.physics import kernels


def test_loops_are_compiled_where_their_code_can_be_kept_in_no_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    spec = importlib.util.spec_from_file_location("kernels_again", kernels.__file__)
    assert spec is not None
    assert spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    field, seen, ratio = np.ones((1, 1, 8), np.float32), np.full((1, 4), 6, np.float32), np.empty((1, 4))
    again.ratios(field, seen, 1.0, np.ones(4, np.float32), ratio)
    assert ratio.tolist() == [[2.0] * 4]
