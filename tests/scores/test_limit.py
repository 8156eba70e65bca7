"""Limits at a dose, and their file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.scores.limit import Limit, read_limit, write_limit

ROOT = Path(__file__).resolve().parents[2]
LIMIT = Limit(
    unbiased={"phase": 20.0, "amplitude": 10.0, "complex": 40.0},
    doses=[10.0, 100.0, 1000.0],
    bayesian={"phase": [0.1, 0.08, 0.01], "amplitude": [0.02, 0.015, 0.009], "complex": [0.2, 0.1, 0.03]},
    prior={"std_real": 0.2, "std_imaginary": 0.3},
    peak={"phase": 1.0, "amplitude": 0.5},
    photons_per_pixel=0.05,
    frequency=[0.25, 0.5],
    signal=[3.0, 0.0],
    noise=[1000.0, 100.0],
    window="hann",
    region={"pixels": 100, "rows": [0, 10], "columns": [0, 10]},
    solver={"seed": 42, "unbiased": {"converged": [True, True]}},
)


def test_unbiased_error_falls_with_the_dose() -> None:
    assert LIMIT.mean_squared_error("phase", 1000) == pytest.approx(0.02)
    assert LIMIT.nrmse(1000) == pytest.approx(0.2)
    assert LIMIT.nrmse(4000) == pytest.approx(0.1)


def test_psnr_has_the_range_of_the_truth_as_peak() -> None:
    assert LIMIT.psnr_db("phase", 2000) == pytest.approx(20)
    assert LIMIT.psnr_db("amplitude", 1000) == pytest.approx(10 * np.log10(25))
    assert replace(LIMIT, peak={"phase": 0.0, "amplitude": 0.5}).psnr_db("phase", 2000) is None
    with pytest.raises(
        StudyError, match=r"^limit: there is no PSNR of 'complex'; there is that of phase, amp"
    ):
        LIMIT.psnr_db("complex", 2000)  # pyright: ignore[reportArgumentType] - as a notebook may


def test_kappa_compares_with_shot_noise_at_the_mean_fluence() -> None:
    assert LIMIT.kappa == pytest.approx(2.0)
    assert LIMIT.photons_per_pixel_at(1e4) == pytest.approx(500)


def test_bayesian_bound_is_interpolated_in_logarithms() -> None:
    assert LIMIT.mean_squared_error("phase", 100, prior=True) == pytest.approx(0.08)
    between = LIMIT.mean_squared_error("phase", 10**2.5, prior=True)
    assert between == pytest.approx((0.08 * 0.01) ** 0.5)
    assert LIMIT.nrmse(1000, prior=True) == pytest.approx(0.03**0.5)
    assert LIMIT.psnr_db("phase", 1000, prior=True) == pytest.approx(20)


@pytest.mark.parametrize("dose", [9.0, 1001.0])
def test_bayesian_bound_is_not_extrapolated(dose: float) -> None:
    with pytest.raises(StudyError, match=f"tabulated from 10 to 1000 photons per frame, got {dose:g}"):
        LIMIT.nrmse(dose, prior=True)


@pytest.mark.parametrize("dose", [0.0, -1.0, float("nan")])
def test_dose_must_be_positive(dose: float) -> None:
    with pytest.raises(StudyError, match="dose: must be > 0 photons per frame, got"):
        LIMIT.nrmse(dose)
    with pytest.raises(StudyError, match="dose: must be > 0 photons per frame, got"):
        LIMIT.frc(dose)


def test_expected_frc_is_half_where_noise_is_three_times_the_signal() -> None:
    np.testing.assert_allclose(LIMIT.frc(1000 / 9), [0.5, 0])
    np.testing.assert_allclose(LIMIT.frc(1e12), [1, 0])


def test_dose_efficiency_is_one_at_the_bound() -> None:
    error = LIMIT.mean_squared_error("phase", 500)
    assert LIMIT.dose_efficiency("phase", error, 500) == pytest.approx(1)
    assert LIMIT.dose_efficiency("phase", 2 * error, 500) == pytest.approx(0.5)
    assert LIMIT.dose_efficiency("phase", error / 4, 500) == pytest.approx(4)
    with pytest.raises(StudyError, match="mean squared error: must be > 0, got 0"):
        LIMIT.dose_efficiency("phase", 0.0, 500)


def test_file_round_trip_is_exact(tmp_path: Path) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    write_limit(paths[0], LIMIT)
    found = read_limit(paths[0])
    assert found == LIMIT
    write_limit(paths[1], found)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert json.loads(paths[0].read_text())["kappa"] == LIMIT.kappa


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"dense.json: no such file; make it with: dvc repro limit"):
        read_limit(tmp_path / "dense.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "is no limit"),
        ('{"format_version": 1, "kappa": 1}', r"is no limit \(unbiased: key is missing \(and 11 more\)\)"),
        ('{"format_version": 99}', "has format version 99, expected 1"),
        ('{"format_version": true}', "has format version True, expected 1"),
    ],
)
def test_damaged_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "dense.json"
    path.write_text(text)
    with pytest.raises(StudyError, match=rf"dense.json: {message}.*; remake it with: dvc repro limit"):
        read_limit(path)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"photons_per_pixel": float("nan")}, "photons_per_pixel: input should be a finite number, got nan"),
        ({"photons_per_pixel": "1"}, "photons_per_pixel: input should be a valid number, got '1'"),
        ({"unbiased": {**LIMIT.unbiased, "phase": -1.0}}, "unbiased.phase: input should be greater than 0"),
        (
            {"unbiased": {"phase": 20.0}},
            "unbiased: dictionary should have at least 3 items after validation, not 1",
        ),
        (
            {"unbiased": {**LIMIT.unbiased, "colour": 1.0}},
            "unbiased.colour.[key]: input should be 'phase', 'amplitude' or 'complex'",
        ),
        ({"peak": {"phase": 1.0}}, "peak: dictionary should have at least 2 items after validation, not 1"),
        ({"doses": [10.0, 10.0, 20.0]}, "doses do not rise"),
        ({"doses": [10.0, 20.0]}, "bayesian.amplitude has 3 entries for 2 doses"),
        ({"noise": [1.0]}, "noise has 1 entries for 2 frequencies"),
        ({"region": {"pixels": 5}}, "rows: key is missing"),
        ({"solver": {"seed": 1}}, "unbiased: key is missing"),
        ({"more": 1}, "more: unknown key"),
        ({"kappa": 3.0}, "kappa is 3.0, but its entries give 2"),
        ({"kappa": None}, "kappa is None, but its entries give 2"),
    ],
)
def test_a_limit_that_does_not_hold_together_is_refused(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    path = tmp_path / "dense.json"
    write_limit(path, LIMIT)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(StudyError) as caught:
        read_limit(path)
    assert str(caught.value).startswith(f"{path}: is no limit ({why}")
    assert str(caught.value).endswith("; remake it with: dvc repro limit")


def test_the_limits_of_the_study_are_whole() -> None:
    assert [read_limit(path).converged for path in sorted((ROOT / "metrics/limit").glob("*.json"))]
