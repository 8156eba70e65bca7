"""The mosaic of groups."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny_scan
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.learning.estimate import Estimate, GroupedScan, covering_groups, grouped_scan
from fly64_dose_overlap.learning.mosaic import GroupStart
from fly64_dose_overlap.physics import model as scan_model

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads() -> Generator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def mosaic_of(grouped: GroupedScan, fraction: float = 1.0, iterations: int = 3) -> Estimate:
    return GroupStart(iterations)(grouped, grouped.scan.counts, fraction=fraction, label="test")


def test_groups_are_laid_out_on_the_support_of_the_probe() -> None:
    scan = tiny_scan.scan()
    grouped = grouped_scan(scan, CPU)
    assert grouped.geometry.support_side == 28
    assert grouped_scan(scan, CPU, support_side=32).geometry.support_side == 32
    assert grouped.fluence.sum() == pytest.approx(81 * np.sum(np.abs(scan.probe) ** 2), rel=1e-5)
    assert grouped.model is scan.model


def test_groups_that_hold_every_frame_are_enough() -> None:
    groups = np.array([[0, 1], [1, 0], [1, 2], [4, 3], [0, 4]])
    assert covering_groups(groups).tolist() == [[0, 1], [1, 2], [4, 3]]
    assert covering_groups(np.arange(5)[:, None]).tolist() == [[0], [1], [2], [3], [4]]
    many = np.random.default_rng(0).integers(0, 50, (400, 4))
    kept = covering_groups(many)
    assert set(kept.ravel()) == set(many.ravel())
    assert len(kept) <= 40


def test_a_scan_without_groups_is_refused() -> None:
    with pytest.raises(StudyError, match=r"^scan: has no groups; make a view of it$"):
        grouped_scan(replace(tiny_scan.scan(), groups=None), CPU)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_bytes_do_not_depend_on_the_number_of_threads(gridsize: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_model, "FRAMES_PER_BATCH", 16)
    grouped = grouped_scan(tiny_scan.scan(gridsize), CPU)
    found: list[Estimate] = []
    for threads in (1, 2, 3):
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        torch.set_num_threads(threads)
        found.append(mosaic_of(grouped))
        assert torch.get_num_threads() == threads
    for other in found[1:]:
        assert other.early.tobytes() == found[0].early.tobytes()
        assert other.late.tobytes() == found[0].late.tobytes()


def test_late_is_closer_to_the_truth_than_an_empty_object() -> None:
    made = mosaic_of(grouped_scan(tiny_scan.scan(), CPU), iterations=12)
    truth = tiny_scan.truth()[26:74, 26:74]

    def error(image: np.ndarray) -> float:
        phase = np.vdot(image, truth)
        return float(np.linalg.norm(image * phase / abs(phase) - truth))

    assert error(made.late[26:74, 26:74]) < 0.7 * error(np.ones_like(truth))
    assert made.late[0, 0] == 1


def test_the_fraction_scales_the_probe_and_the_fluence() -> None:
    """Half of the photons of a probe half as bright show the same object."""
    scan = tiny_scan.scan()
    part = mosaic_of(grouped_scan(scan, CPU), fraction=0.5)
    np.testing.assert_allclose(part.fluence, 0.5 * scan.illumination())
    dimmer = mosaic_of(grouped_scan(scan.with_counts(scan.counts, 0.5), CPU))
    np.testing.assert_allclose(dimmer.late, part.late, atol=1e-5)
