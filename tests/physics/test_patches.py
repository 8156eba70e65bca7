"""Bilinear patches."""

from __future__ import annotations

import numpy as np
import torch

from fly64_dose_overlap.physics.patches import bilinear_patches


def test_whole_places_cut_y_before_x() -> None:
    windows = torch.view_as_complex(torch.from_numpy(np.random.default_rng(0).normal(size=(4, 9, 9, 2))))
    places = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    patches = bilinear_patches(windows, places)
    for patch, window, (y, x) in zip(patches, windows, places.int().tolist(), strict=True):
        assert torch.equal(patch, window[y : y + 8, x : x + 8])


def test_fractions_are_bilinear() -> None:
    y, x = torch.meshgrid(*[torch.arange(9, dtype=torch.float64)] * 2, indexing="ij")
    fractions = torch.tensor([[0.25, 0.5]], dtype=torch.float64)
    patch = bilinear_patches(torch.complex(3 * y + x, x * y)[None], fractions)[0]
    y, x = y[:8, :8] + 0.25, x[:8, :8] + 0.5
    torch.testing.assert_close(patch, torch.complex(3 * y + x, x * y), rtol=1e-12, atol=1e-12)
