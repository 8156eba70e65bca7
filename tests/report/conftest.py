"""A small repository of git and DVC whose cells are made up but whose experiments are real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from report_runs import BASELINE, evaluation
from study_copy import StudyCopy

FAILING_DOSE = 100000

PIPELINE = {
    "train": {
        "cmd": "python cell.py train",
        "params": ["dose", "view", "train"],
        "plots": [{"metrics/train/plots/metrics": {"cache": False}}],
    },
    "evaluate": {
        "cmd": "python cell.py evaluate",
        "deps": ["metrics/train/plots/metrics"],
        "params": ["dose", "view"],
        "outs": ["reports/reconstruction.npz"],
        "metrics": [{"metrics/evaluation.json": {"cache": False}}],
        "plots": [{"metrics/frc.csv": {"cache": False}}],
    },
}

CELL = f"""
import json, sys
from pathlib import Path
import numpy as np, yaml
params = yaml.safe_load(Path("params.yaml").read_text())
seed = params["train"]["seed"]
if sys.argv[1] == "train":
    if params["dose"] == {FAILING_DOSE}:
        sys.exit("no such luck")
    for name in ("train/loss", "val/loss"):
        path = Path(f"metrics/train/plots/metrics/{{name}}.tsv")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"step\\tloss\\n1\\t0.9\\n2\\t0.{{seed}}\\n")
else:
    found = json.loads(Path("scores.json").read_text())
    found["methods"]["network"]["phase"]["psnr_db"] = 20.0 + seed - 42
    Path("metrics/evaluation.json").write_text(json.dumps(found))
    keys = ["network", "flat_object", "lsqml", "rpie"]
    lines = [",".join(["nyquist_fraction", "half_bit", *keys]), "0.5,0.4,1,0,.8,.7", "1,0.3,.2,0,.1,.1"]
    Path("metrics/frc.csv").write_text("\\n".join(lines) + "\\n")
    y, x = np.mgrid[:60, :60]
    truth = ((0.8 + 0.2 * np.sin(x / 3)) * np.exp(0.5j * np.cos(y / 4))).astype(np.complex64)
    mask = np.zeros(truth.shape, bool)
    mask[10:40, 12:52] = True
    noisy = {{f"{{key}}_aligned": truth * np.exp(0.1j * np.sin(x + y)).astype(np.complex64) for key in keys}}
    Path("reports").mkdir(exist_ok=True)
    np.savez("reports/reconstruction.npz", objectGuess=truth, region=mask, **noisy)
"""


@pytest.fixture(scope="session")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> StudyCopy:
    """Run cells as experiments: two, a repeat, a variant, one without evaluation, one that fails."""
    study = StudyCopy(tmp_path_factory.mktemp("report") / "study")
    study.root.mkdir()
    _write(study.root)
    study.git("init", "--quiet", "--initial-branch", "main")
    study.dvc("init", "--quiet")
    study.dvc("repro", "--quiet")
    study.commit("one cell")
    sparse = ("-S", "dose=1000", "-S", "view=sparse")
    for line in (
        ("-n", "1000-sparse", *sparse),
        ("-n", "1000-sparse-seed44", *sparse, "-S", "train.seed=44"),
        ("-n", "longer", *sparse, "-S", "train.epochs=9"),
        ("-n", "trained-only", "-S", "dose=1000", "-S", "view=baseline", "train"),
        ("--queue", "-n", "lost", "-S", f"dose={FAILING_DOSE}", "-S", "view=dense"),
    ):
        study.dvc("exp", "run", *line)
        study.git("reset", "--quiet", "--hard")
    study.dvc("exp", "run", "--run-all", check=False)
    return study


def _write(root: Path) -> None:
    texts = {
        "params.yaml": yaml.safe_dump(BASELINE, sort_keys=False),
        "dvc.yaml": yaml.safe_dump({"stages": PIPELINE}),
        "cell.py": CELL,
        "scores.json": json.dumps(evaluation()),
        ".gitignore": "/reports\n",
        "metrics/dose/1000.json": json.dumps({"test": {"frames": 40}}),
        "metrics/overlap/1000-sparse.json": json.dumps({"test": {"metric_2_image_based_avg": 0.25}}),
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
