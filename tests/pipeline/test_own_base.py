"""A user's measured file drives the whole study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fly64_dose_overlap import provenance
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.dataset import read_base, read_scan, read_truth
from study_copy import StudyCopy, make_study, stages_run

pytestmark = pytest.mark.slow

SIDE, STEPS, PITCH_PX = 32, 20, 6.0
RAMP_RAD_PER_PX = (0.06, -0.04)
"""Of the object, downwards and to the right; the probe is to take it."""


def write_measured_file(path: Path) -> dict[str, Any]:
    """Write what a beamline's file looks like: counts, three probe modes, a reconstructed object."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    gauss = np.exp(-(x**2 + y**2) / 60 + 0.05j * (x**2 + y**2))
    modes = np.stack([gauss, 0.3 * gauss * x / 6, 0.2 * gauss * y / 6])
    extent = int(STEPS * PITCH_PX) + SIDE + 4
    rows, columns = np.mgrid[:extent, :extent]
    phase = 0.4 * np.sin(rows / 5) * np.cos(columns / 7)
    phase += RAMP_RAD_PER_PX[0] * rows + RAMP_RAD_PER_PX[1] * columns
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


def test_the_object_of_a_file_drives_a_simulated_study(tmp_path: Path) -> None:
    arrays = write_measured_file(tmp_path / "measured.npz")
    study = make_study(tmp_path)
    study.change_params(base__source=str(tmp_path / "measured.npz"), base__frames="simulated")
    assert stages_run(study.dvc("repro", "evaluate")) >= {"base", "train@refined", "evaluate"}

    base = read_base(study.root / "data/base/base.npz")
    assert base.amplitude is None
    path = study.root / "data/views/10000/dense/test.npz"
    view, truth = read_scan(path), read_truth(path)
    (gauge,) = (s["parameters"] for s in base.record["data_transformations"] if s["tool"] == "gauge")
    assert np.allclose(gauge["ramp_rad_per_px"], RAMP_RAD_PER_PX, atol=0.005)
    measured = np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)
    assert np.array_equal(view.positions_px, measured[view.scan_index])
    # Factor and ramp have only moved from the object into the probe: exit waves are those of the file.
    for corner in np.rint(view.positions_px[:: len(view) // 5]).astype(int) - SIDE // 2:
        window = tuple(slice(start, start + SIDE) for start in corner)
        wave, given = view.probe * truth[window], arrays["probeGuess"] * arrays["objectGuess"][window]
        alike = abs(np.vdot(wave, given)) / (np.linalg.norm(wave) * np.linalg.norm(given))
        assert alike == pytest.approx(1, abs=1e-6)
    assert set(provenance.steps(view.record)) >= {"transpose_rename_convert", "simulate", "split_dataset"}
    assert (study.root / "reports/comparison.png").stat().st_size > 10_000
    assert stages_run(study.dvc("repro", "evaluate")) == set()


def test_other_content_under_the_same_name_is_read(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    file = tmp_path / "mine.npz"
    arrays, digests = write_measured_file(file), list[str]()
    for scale in (1, 2):
        np.savez(file, **{**arrays, "counts": scale * arrays["counts"]})
        study.change_params(base__source=str(file))
        study.dvc("repro", "base")
        digests.append(sha256_of(study.root / "data/base/base.npz"))
        study.change_params(base__source="synthetic")
        study.dvc("repro", "base")
    assert digests[0] != digests[1]


def test_a_missing_file_is_named(study: StudyCopy) -> None:
    study.change_params(base__source="nowhere/mine.npz")
    refused = study.dvc("repro", "evaluate", check=False)
    assert refused.returncode != 0
    errors = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: Base dataset not found: nowhere/mine.npz")
    assert "Traceback" not in refused.stderr + refused.stdout
    assert stages_run(refused) <= {"check", "base"}
