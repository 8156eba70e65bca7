"""The mosaic of groups."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np
import pytest
import torch
from fly64_dose_overlap.learning.scan import Estimate, Scan, covering_groups, load_scan

import tiny_scan
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.learning.mosaic import GroupStart
from fly64_dose_overlap.physics import scan as scan_model
from fly64_dose_overlap.physics.propagation import centre

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads() -> Generator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def mosaic_of(scan: Scan, fraction: float = 1.0, iterations: int = 3) -> Estimate:
    return GroupStart(iterations)(scan, scan.counts, fraction=fraction, label="test")


def test_frames_become_whole_photons_with_the_zero_frequency_in_the_corner() -> None:
    dataset = tiny_scan.scan_dataset()
    scan = load_scan(dataset, CPU)
    photons = centre(scan.counts[:]).numpy()
    assert np.array_equal(photons, np.round(photons))
    np.testing.assert_allclose(np.sqrt(photons), dataset.amplitude[:], rtol=1e-6)
    assert scan.geometry.support_side == 28
    assert load_scan(dataset, CPU, support_side=32).geometry.support_side == 32
    assert scan.fluence.sum() == pytest.approx(81 * np.sum(np.abs(dataset.probe) ** 2), rel=0.02)


def test_groups_that_hold_every_frame_are_enough() -> None:
    groups = np.array([[0, 1], [1, 0], [1, 2], [4, 3], [0, 4]])
    assert covering_groups(groups).tolist() == [[0, 1], [1, 2], [4, 3]]
    assert covering_groups(np.arange(5)[:, None]).tolist() == [[0], [1], [2], [3], [4]]
    many = np.random.default_rng(0).integers(0, 50, (400, 4))
    kept = covering_groups(many)
    assert set(kept.ravel()) == set(many.ravel())
    assert len(kept) <= 40


def test_a_dataset_without_groups_is_refused() -> None:
    with pytest.raises(StudyError, match="training data: hold no groups; make the view again"):
        load_scan(replace(tiny_scan.scan_dataset(), groups=None), CPU)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_bytes_do_not_depend_on_the_number_of_threads(gridsize: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_model, "FRAMES_PER_BATCH", 16)
    scan = load_scan(tiny_scan.scan_dataset(gridsize), CPU)
    found: list[Estimate] = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(mosaic_of(scan))
        assert torch.get_num_threads() == threads
    for other in found[1:]:
        assert other.early.tobytes() == found[0].early.tobytes()
        assert other.late.tobytes() == found[0].late.tobytes()


def test_late_is_closer_to_the_truth_than_an_empty_object() -> None:
    dataset = tiny_scan.scan_dataset()
    made = mosaic_of(load_scan(dataset, CPU), iterations=12)
    truth = dataset.obj[26:74, 26:74]

    def error(image: np.ndarray) -> float:
        phase = np.vdot(image, truth)
        return float(np.linalg.norm(image * phase / abs(phase) - truth))

    assert error(made.late[26:74, 26:74]) < 0.7 * error(np.ones_like(truth))
    assert made.late[0, 0] == 1


def test_the_fraction_scales_the_probe_and_the_fluence() -> None:
    """Half of the photons of a probe half as bright show the same object."""
    scan = load_scan(tiny_scan.scan_dataset(), CPU)
    part = mosaic_of(scan, fraction=0.5)
    np.testing.assert_allclose(part.fluence, 0.5 * scan.fluence)
    dimmer = replace(scan, probe=scan.probe * 0.5**0.5)
    assert mosaic_of(dimmer).late.tobytes() == part.late.tobytes()


def test_the_truth_is_not_looked_at() -> None:
    dataset = tiny_scan.scan_dataset()
    noise = np.random.default_rng(0).normal(size=dataset.obj.shape).astype(np.complex64)
    seen = mosaic_of(load_scan(replace(dataset, obj=noise), CPU))
    assert seen.late.tobytes() == mosaic_of(load_scan(dataset, CPU)).late.tobytes()
