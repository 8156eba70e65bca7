"""A scan of 2,000 frames through all phases; `python -m faults --only load` takes up to 200,000."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import load
from faults.load import LIMIT_MIB, measure, prepare, run
from faults.load_phase import PHASES
from fly64_dose_overlap.config import load_params
from fly64_dose_overlap.study.base import make_synthetic_base
from fly64_dose_overlap.study.split import split_scan


@pytest.mark.slow
def test_every_phase_stays_below_the_limit() -> None:
    outcomes = list(run(quick=True))
    assert [outcome.lost for outcome in outcomes] == [()] * len(PHASES)
    assert all(0 < outcome.mib < LIMIT_MIB for outcome in outcomes)


@pytest.mark.parametrize("frames", [500, 2000, 25_000])
def test_the_scan_has_as_many_frames_as_it_is_called_after(frames: int, tmp_path: Path) -> None:
    prepare(tmp_path, frames)
    params = load_params(tmp_path / "params.yaml")
    assert params.expose.guard_gap_px == 0
    base = make_synthetic_base(params.base)
    split = split_scan(base.positions_px, fraction=params.expose.split_fraction, guard_gap_px=0)
    assert frames <= len(split.test) < 1.1 * frames
    assert len(split.train) > 0


def test_a_phase_that_fails_is_lost(tmp_path: Path) -> None:
    prepare(tmp_path, 500)
    outcome = measure("network image", tmp_path, 500)
    assert (outcome.tried, outcome.survived) == (1, 0)
    assert outcome.lost == ("network image, 500 frames: ended with status 1",)


def test_a_phase_above_the_limit_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "LIMIT_MIB", 10)
    prepare(tmp_path, 500)
    outcome = measure("simulation", tmp_path, 500)
    assert outcome.survived == 0
    assert "MiB, limit 10" in outcome.lost[0]
