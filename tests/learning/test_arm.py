"""Means over the frames of a dataset, in memory and on disk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fly64_dose_overlap.learning.arm import mean_amplitude, mean_photons_per_frame

import tiny_scan
from fly64_dose_overlap.arrays import spool
from fly64_dose_overlap.learning import arm


def test_means_do_not_depend_on_where_frames_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arm, "FRAMES_PER_BLOCK", 10)
    dataset = tiny_scan.scan_dataset()
    amplitude = dataset.amplitude[:]
    on_disk = replace(dataset, amplitude=spool(amplitude.shape, np.float32, [amplitude]))
    assert mean_photons_per_frame(on_disk) == mean_photons_per_frame(dataset)
    for each in (dataset, on_disk):
        expected = amplitude.mean(axis=0, dtype=np.float64).astype(np.float32)
        np.testing.assert_array_equal(mean_amplitude(each), expected)
    photons = np.square(amplitude.astype(np.float64)).sum(axis=(1, 2)).mean()
    assert mean_photons_per_frame(dataset) == pytest.approx(photons, rel=1e-12)
