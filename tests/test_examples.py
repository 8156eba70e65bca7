"""What lies in examples/ runs: the notebook, and a method that another package brings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tiny_scan
from fly64_dose_overlap.files.dataset import write_scan
from tiny_study import ROOT, write_params

EXAMPLES = ROOT / "examples"
PACKAGE = EXAMPLES / "amplitude_flow"
MOST_LINES = 60
STAGES = "fly64_dose_overlap.pipeline.stages"

FRONT_DOOR = """
import json
import fly64_dose_overlap as fdo

scan, truth = fdo.simulate(1e5, seed=1, field_px=40, frame_side_px=32, defocus_um=200)
result = fdo.reconstruct(scan, "amplitude_flow", epochs=20)
flat = fdo.reconstruct(scan, "amplitude_flow", epochs=1)
scores = [fdo.score(each, truth).complex_nrmse for each in (result, flat)]
print(json.dumps({"methods": fdo.methods(), "label": result.label, "scores": scores}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that the example package is installed in, as pip installs any other."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    shutil.copytree(PACKAGE, source)
    target = folder / "site"
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options, str(source)],
        check=True,
    )
    return target


def run(installed: Path, folder: Path, *line: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with the example package installed."""
    paths = os.pathsep.join([str(ROOT / "src"), str(installed)])
    found = subprocess.run(
        [sys.executable, *line],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found


def test_the_example_package_is_small() -> None:
    files = [path for path in PACKAGE.iterdir() if path.suffix in (".py", ".toml")]
    assert {path.name for path in files} == {"pyproject.toml", "amplitude_flow.py"}
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) < MOST_LINES


@pytest.mark.slow
def test_its_method_is_one_of_all_and_reconstructs(installed: Path, tmp_path: Path) -> None:
    found = json.loads(run(installed, tmp_path, "-c", FRONT_DOOR).stdout)
    assert {"amplitude_flow", "map", "ml", "refined"} <= set(found["methods"])
    assert found["label"] == "Amplitude flow"
    converged, first = found["scores"]
    assert converged < 0.5 * first


@pytest.mark.slow
def test_params_yaml_can_name_it(installed: Path, tmp_path: Path) -> None:
    settings = {"epochs": 3, "momentum": 0.8, "background": 0.1}
    write_params(
        tmp_path, dose=1000, doses=[1000], iterative=["amplitude_flow"], methods={"amplitude_flow": settings}
    )
    (tmp_path / ".git").mkdir()
    for stage in ("check", "base", "reference", "expose --dose 1000", "overlap --dose 1000 --view dense"):
        name, *arguments = stage.split()
        run(installed, tmp_path, "-m", f"{STAGES}.{name}", *arguments)
    code = json.loads((tmp_path / "metrics" / "check" / "amplitude_flow.json").read_text(encoding="utf-8"))
    assert code["amplitude-flow"] == "0.1"
    assert len(code["amplitude_flow"]) == 64
    run(installed, tmp_path, "-m", f"{STAGES}.reconstruct", "--method", "amplitude_flow")
    results = sorted(path.name for path in (tmp_path / "reconstructions" / "amplitude_flow").glob("*.npz"))
    assert results == ["amplitude_flow.npz", "amplitude_flow_held_out.npz"]


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    import jupytext
    from nbclient import NotebookClient

    # Stages set it, and other tests call them in this process.
    monkeypatch.delenv("MPLBACKEND", raising=False)

    notebook = jupytext.read(EXAMPLES / "first_steps.py")
    resources = {"metadata": {"path": str(ROOT)}}
    executed = NotebookClient(notebook, timeout=300, resources=resources).execute()
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert "MAP: phase PSNR" in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3


@pytest.mark.slow
def test_a_dose_series_goes_on_where_it_was(tmp_path: Path) -> None:
    scan = tiny_scan.scan(1)
    write_scan(tmp_path / "scan.npz", scan, np.ones(scan.object_shape, np.complex64))
    line = [str(EXAMPLES / "dose_series.py"), "scan.npz", "--epochs", "5", "--methods", "ml", "--parts"]
    first = run(tmp_path, tmp_path, *line, "1").stdout.splitlines()
    assert [row.split(" | ")[:2] for row in first[2:4]] == [["| 1", "ML"], ["| 1", "ML held-out"]]
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("reports/dose_series/ml-1-*.npz")}
    assert len(kept) == 1
    second = run(tmp_path, tmp_path, *line, "1", "0.5").stdout.splitlines()
    assert second[:4] == first[:4]
    assert second[4].startswith("| 0.5 | ML | ")
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    (damaged,) = kept
    damaged.write_bytes(damaged.read_bytes()[:1000])
    again = run(tmp_path, tmp_path, *line, "1", "1")
    assert f"{damaged.relative_to(tmp_path)} is damaged and made again" in again.stderr
    assert again.stdout.splitlines()[:4] == first[:4]
    assert again.stdout.count("| ML held-out |") == 1
    assert Path(tmp_path, second[-1].removeprefix("picture: ")).is_file()
