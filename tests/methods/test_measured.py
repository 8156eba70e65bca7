"""Measured frames with several probe modes and no ground truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fly64_dose_overlap.methods.measured import agreement, read_measurement
from typer.testing import CliRunner

import tiny_scan
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.reconstruction import read_reconstructions
from fly64_dose_overlap.methods.posterior import Posterior
from fly64_dose_overlap.physics.likelihood import r_factor
from fly64_dose_overlap.physics.model import ScanModel
from fly64_dose_overlap.physics.propagation import centre
from fly64_dose_overlap.pipeline.stages import measured
from fly64_dose_overlap.pipeline.stages._cli import command
from tiny_study import write_params

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return what writes a scan with two probe modes, of which the second is turned by 90 degrees."""

    def write_file(**changes: Any) -> Path:
        dataset = tiny_scan.scan_dataset()
        first = torch.from_numpy(dataset.probe)
        modes = torch.stack((first, 0.5 * torch.rot90(first) * torch.linspace(-1, 1, first.shape[0])))
        rows, columns = dataset.obj.shape
        model = ScanModel(modes, dataset.positions_px, (rows, columns))
        rate = model.expected(torch.from_numpy(dataset.obj), slice(0, model.frames))
        counts = np.random.default_rng(0).poisson(centre(rate).numpy()).astype(np.uint16)
        arrays: dict[str, Any] = {
            "counts": counts,
            "xcoords": dataset.positions_px[:, 1],
            "ycoords": dataset.positions_px[:, 0],
            "probeGuess": modes.numpy(),
            "objectGuess": np.ones_like(dataset.obj),
        }
        path = tmp_path / "scan.npz"
        np.savez(path, **{key: value for key, value in {**arrays, **changes}.items() if value is not None})
        return path

    return write_file


def test_all_modes_are_kept_and_the_object_is_not_used(write: Write) -> None:
    found = read_measurement(write(), 0.1)
    assert found.problem.probe.shape == (2, 32, 32)
    assert found.problem.counts.shape == (81, 32, 32)
    assert found.problem.object_shape == (100, 100)
    assert torch.all(found.problem.flat_object() == 1)


def test_frames_are_needed(write: Write) -> None:
    with pytest.raises(StudyError, match=r"scan\.npz: has no frames; add them as counts or diffraction"):
        read_measurement(write(counts=None), 0.1)


def test_fit_and_agreement_of_halves(write: Write) -> None:
    measurement = read_measurement(write(), 0.1)
    problem = measurement.problem
    found = agreement(measurement, Posterior(), epochs=8, seed=1, label="test")
    # The fit explains its own noise too, and so the frames better than the truth does, whose
    # R-factor of 0.156 is 0.745 of the empty object's. A bound below that would ask for bias.
    truth = torch.from_numpy(tiny_scan.scan_dataset().obj)
    assert found.r_factor < r_factor(problem.model(), problem.counts, truth)
    assert found.r_factor == r_factor(problem.model(), problem.counts, found.obj)
    assert list(found.frc) == ["even/odd", "thinned"]
    for curve in found.frc.values():
        assert curve.frc[:3].min() > 0.8


def test_r_factor_of_the_exact_frames_is_zero(write: Write) -> None:
    problem = read_measurement(write(), 0.1).problem
    model = problem.model()
    obj = problem.flat_object()
    exact = model.expected(obj, slice(0, model.frames))
    assert r_factor(model, exact, obj) < 1e-6
    assert r_factor(model, 4 * exact, obj) == pytest.approx(0.5, rel=1e-5)


def test_command_writes_what_it_prints(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write()
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, reconstruct={"epochs": {"ml": 2}})
    result = CliRunner().invoke(command(measured.main), [str(path), "--pixel-nm", "50"])
    assert result.exit_code == 0, result.stderr
    scores = json.loads(Path("reconstructions/measured/scores.json").read_text())
    assert scores["data"]["modes"] == 2
    assert f"r_factor {scores['methods']['ml']['r_factor']:.4g}" in result.stdout
    [found] = read_reconstructions(Path("reconstructions/measured"))
    assert found.probe.shape == (2, 32, 32)
    refused = CliRunner().invoke(command(measured.main), [str(path), "--method", "map"])
    assert refused.exit_code == 1
    assert "--method: must be one of ml, got map" in refused.stderr
