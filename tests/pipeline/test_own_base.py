"""A user's measured file drives the whole study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fly64_dose_overlap import provenance
from fly64_dose_overlap.files.dataset import read_base, read_scan, read_truth
from fly64_dose_overlap.files.own_npz import strongest_mode
from study_copy import StudyCopy, make_study, stages_run

pytestmark = pytest.mark.slow

SIDE, STEPS, PITCH_PX = 32, 20, 6.0


def write_measured_file(path: Path) -> dict[str, Any]:
    """Write what a beamline's file looks like: counts, three probe modes, a reconstructed object."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    gauss = np.exp(-(x**2 + y**2) / 60 + 0.05j * (x**2 + y**2))
    modes = np.stack([gauss, 0.3 * gauss * x / 6, 0.2 * gauss * y / 6])
    extent = int(STEPS * PITCH_PX) + SIDE + 4
    rows, columns = np.mgrid[:extent, :extent]
    phase = 0.4 * np.sin(rows / 5) * np.cos(columns / 7)
    obj = (0.9 + 0.1 * np.cos(rows / 9)) * np.exp(1j * phase)
    raster = SIDE / 2 + PITCH_PX * np.arange(STEPS)
    positions = np.stack(np.meshgrid(raster, raster, indexing="ij"), axis=-1).reshape(-1, 2)
    positions += rng.uniform(0, 1, positions.shape)
    arrays: dict[str, Any] = {
        "counts": rng.poisson(0.7, (len(positions), SIDE, SIDE)).astype(np.uint16),
        "xcoords": positions[:, 1],
        "ycoords": positions[:, 0],
        "probeGuess": modes.astype(np.complex64),
        "objectGuess": obj.astype(np.complex64),
    }
    np.savez_compressed(path, **arrays)
    return arrays


def test_a_measured_file_drives_the_study(tmp_path: Path) -> None:
    arrays = write_measured_file(tmp_path / "measured.npz")
    study = make_study(tmp_path)
    study.change_params(base__source=str(tmp_path / "measured.npz"))
    assert stages_run(study.dvc("repro", "evaluate")) >= {"base", "train@refined", "evaluate"}

    base = read_base(study.root / "data/base/base.npz")
    assert base.amplitude is not None
    assert np.allclose(base.amplitude[:] ** 2, arrays["counts"], atol=1e-4)
    assert {"keep_strongest_mode", "square_root", "rename"} <= {
        step["operation"] for step in base.record["data_transformations"]
    }
    path = study.root / "data/views/10000/dense/test.npz"
    view = read_scan(path)
    # But for the gauge: a factor, and a phase ramp.
    truth = read_truth(path)
    assert np.allclose(
        np.abs(truth) / np.abs(arrays["objectGuess"]),
        np.abs(truth).flat[0] / np.abs(arrays["objectGuess"]).flat[0],
        rtol=1e-5,
    )
    measured = np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)
    assert np.array_equal(view.positions_px, measured[view.scan_index])
    mode, fraction = strongest_mode(arrays["probeGuess"])
    assert 0.5 < fraction < 1
    shape = np.abs(view.probe[0]) / np.linalg.norm(view.probe)
    assert np.allclose(shape, np.abs(mode) / np.linalg.norm(mode), atol=1e-5)
    assert set(provenance.steps(view.record)) >= {"transpose_rename_convert", "simulate", "split_dataset"}
    assert (study.root / "reports/comparison.png").stat().st_size > 10_000
    assert stages_run(study.dvc("repro", "evaluate")) == set()


def test_a_missing_file_is_named(study: StudyCopy) -> None:
    study.change_params(base__source="nowhere/mine.npz")
    refused = study.dvc("repro", "evaluate", check=False)
    assert refused.returncode != 0
    errors = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: Base dataset not found: nowhere/mine.npz")
    assert "Traceback" not in refused.stderr + refused.stdout
    assert stages_run(refused) <= {"check", "base"}
