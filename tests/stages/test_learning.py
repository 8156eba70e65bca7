"""The stages that train the refining and the supervised network."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

import tiny_scan
from fly64_dose_overlap.files.atomic import sha256_of
from fly64_dose_overlap.files.dataset import write_dataset
from fly64_dose_overlap.pipeline.stages import refine, supervise
from fly64_dose_overlap.pipeline.stages._cli import command
from tiny_study import write_params


@pytest.fixture(autouse=True)
def _in_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    changes = {**tiny_scan.TRAINING, "epochs": 2, "steps_per_epoch": 1}
    write_params(tmp_path, dose=10000, view="dense", train=changes)


STAGES = pytest.mark.parametrize(
    ("stage", "folder"), [(refine, "refiner"), (supervise, "supervised")], ids=["refine", "supervise"]
)


@STAGES
def test_bundle_manifest_and_curves_lie_where_the_pipeline_looks(stage: ModuleType, folder: str) -> None:
    for half in ("train", "test"):
        write_dataset(Path(f"data/views/10000/dense/{half}.npz"), tiny_scan.scan_dataset())
    found = CliRunner().invoke(command(stage.main), [])
    assert found.exit_code == 0, found.output
    bundle = Path(f"models/{folder}/model.safetensors")
    manifest = json.loads(Path(f"models/{folder}/manifest.json").read_text())
    result = manifest["jobs"][0]["result"]
    assert (manifest["jobs"][0]["dose"], manifest["jobs"][0]["view"]) == (10000, "dense")
    assert result["sha256"] == sha256_of(bundle)
    assert "resumed_from_epoch" not in result
    metrics = json.loads(Path(f"metrics/{folder}/metrics.json").read_text())
    assert metrics["val"]["loss"] > 0
    assert metrics["train"]["loss"] > 0
    curves = {path.relative_to(f"metrics/{folder}").as_posix() for path in Path("metrics").rglob("*.tsv")}
    assert curves >= {f"plots/metrics/{name}.tsv" for name in ("train/loss", "val/loss", "val/psnr")}
    assert not Path("models/cell").exists()


@STAGES
def test_missing_data_are_refused_in_one_line(stage: ModuleType, folder: str) -> None:
    del folder
    found = CliRunner().invoke(command(stage.main), [])
    assert found.exit_code == 1
    assert found.stderr.startswith("error: data/views/10000/dense/train.npz, data/views/10000/dense/test.npz")
    assert "Traceback" not in found.stderr
