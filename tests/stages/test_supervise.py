"""The stage that trains the supervised network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tiny_scan
from fly64_dose_overlap.data.atomic import sha256_of
from fly64_dose_overlap.data.contract import write_dataset
from fly64_dose_overlap.stages import supervise
from fly64_dose_overlap.stages._cli import command
from tiny_study import write_params


@pytest.fixture(autouse=True)
def _in_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    changes = {"epochs": 2, "steps_per_epoch": 1, "frames_per_step": 8, "validation_fraction": 0.4}
    write_params(tmp_path, dose=10000, view="dense", train=changes)


def test_bundle_manifest_and_curves_lie_where_the_pipeline_looks() -> None:
    for half in ("train", "test"):
        write_dataset(Path(f"data/views/10000/dense/{half}.npz"), tiny_scan.scan_dataset())
    found = CliRunner().invoke(command(supervise.main), [])
    assert found.exit_code == 0, found.output
    bundle = Path("models/supervised/model.safetensors")
    manifest = json.loads(Path("models/supervised/manifest.json").read_text())
    result = manifest["jobs"][0]["result"]
    assert (manifest["jobs"][0]["dose"], manifest["jobs"][0]["view"]) == (10000, "dense")
    assert result["sha256"] == sha256_of(bundle)
    assert "resumed_from_epoch" not in result
    metrics = json.loads(Path("metrics/supervised/metrics.json").read_text())
    assert metrics["val"]["loss"] > 0
    assert metrics["train"]["loss"] > 0
    curves = {path.relative_to("metrics/supervised").as_posix() for path in Path("metrics").rglob("*.tsv")}
    assert curves >= {f"plots/metrics/{name}.tsv" for name in ("train/loss", "val/loss", "val/psnr")}
    assert not Path("models/cell").exists()


def test_missing_data_are_refused_in_one_line() -> None:
    found = CliRunner().invoke(command(supervise.main), [])
    assert found.exit_code == 1
    assert found.stderr.startswith("error: data/views/10000/dense/train.npz, data/views/10000/dense/test.npz")
    assert "Traceback" not in found.stderr
