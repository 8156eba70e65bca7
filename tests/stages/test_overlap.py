"""Stage overlap: view files and the measured overlap."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from fly64_dose_overlap import provenance
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.dataset import read_scan
from fly64_dose_overlap.pipeline.cells import dose_file
from fly64_dose_overlap.pipeline.stages import base, expose, overlap
from fly64_dose_overlap.pipeline.stages._cli import command
from tiny_study import write_params

DOSE = 1000
VIEWS: dict[str, tuple[float, int | None, int]] = {
    "baseline": (1.0, None, 1),
    "dense": (0.6, None, 4),
    "sparse": (0.3, 40, 4),
}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    before = Path.cwd()
    os.chdir(root)
    try:
        params = write_params(root)
        base.main(params)
        expose.main(DOSE, params)
    finally:
        os.chdir(before)
    return root


@pytest.fixture(autouse=True)
def study(simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dose").symlink_to(simulated / "data" / "dose")
    return write_params(tmp_path)


def metrics(view: str) -> dict[str, dict[str, Any]]:
    return json.loads(Path(f"metrics/overlap/{DOSE}-{view}.json").read_text())


@pytest.mark.parametrize("view", list(VIEWS))
@pytest.mark.parametrize("half", ["train", "test"])
def test_a_view_keeps_frames_of_its_half_in_groups(study: Path, view: str, half: str) -> None:
    overlap.main(DOSE, view, study)
    s_img, n_groups, frames_per_group = VIEWS[view]
    whole = read_scan(dose_file(DOSE, half))
    kept = read_scan(f"data/views/{DOSE}/{view}/{half}.npz")
    rows = np.searchsorted(whole.scan_index, kept.scan_index)
    assert len(rows) == int(s_img * len(whole.scan_index))
    np.testing.assert_array_equal(kept.counts[:], whole.counts[rows])
    np.testing.assert_array_equal(kept.positions_px, whole.positions_px[rows])
    assert kept.groups is not None
    assert kept.groups.shape == (n_groups or len(rows), frames_per_group)
    assert provenance.steps(kept.record) == ["gauge", "simulate", "split_dataset", "overlap_view"]
    found = metrics(view)[half]
    assert found["n_images_total"] == len(whole.scan_index)
    assert found["n_images_subsampled"] == len(rows)
    assert 0 < found["metric_2_image_based_avg"] <= 1


def test_the_same_parameters_give_the_same_bytes(study: Path) -> None:
    overlap.main(DOSE, "dense", study)
    files = [Path(f"data/views/{DOSE}/dense/{half}.npz") for half in ("train", "test")]
    files.append(Path(f"metrics/overlap/{DOSE}-dense.json"))
    first = [path.read_bytes() for path in files]
    overlap.main(DOSE, "dense", study)
    assert [path.read_bytes() for path in files] == first


@pytest.mark.filterwarnings("default")
def test_fewer_groups_than_wanted_are_one_line_of_warning(study: Path, tmp_path: Path) -> None:
    views = {
        "baseline": {"s_img": 1.0, "n_groups": 5000, "gridsize": 1},
        "dense": {"s_img": 0.6, "n_groups": None, "gridsize": 2},
        "sparse": {"s_img": 0.3, "n_groups": 40, "gridsize": 2},
    }
    write_params(tmp_path, overlap={"views": views})
    result = CliRunner().invoke(command(overlap.main), ["--dose", str(DOSE), "--view", "baseline"])
    assert result.exit_code == 0, result.stderr
    warned = [text for text in result.stderr.splitlines() if text.startswith("warning: 5000 groups of one")]
    assert warned
    assert "warnings.warn" not in result.stderr
    assert all(text.startswith(("warning: ", "overlap: ")) for text in result.stderr.splitlines())


def test_a_view_without_frames_is_named(study: Path, tmp_path: Path) -> None:
    views = {
        name: {"s_img": 1e-6, "n_groups": None, "gridsize": 1} for name in ("baseline", "dense", "sparse")
    }
    write_params(tmp_path, overlap={"views": views})
    wanted = rf"^overlap, dose {DOSE}, view sparse, train half: s_img=1e-06 keeps none of \d+ frames; keep"
    with pytest.raises(StudyError, match=wanted):
        overlap.main(DOSE, "sparse", study)


def test_a_dose_that_is_not_simulated_is_named(study: Path) -> None:
    with pytest.raises(MissingFileError, match=r"data/dose/10000/train.npz: no such file"):
        overlap.main(10000, "dense", study)


def test_a_dose_without_a_stage_is_refused(study: Path) -> None:
    with pytest.raises(StudyError, match=r"--dose: 3000 is not among doses"):
        overlap.main(3000, "dense", study)


def test_a_probe_without_a_width_is_warned_of(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fly64_dose_overlap.study.geometry.probe_fwhm_px", lambda probe: None)
    with pytest.warns(
        UserWarning, match=r"no width at half maximum in its frame, taken is 0\.6 N = 19\.2 px; set"
    ):
        overlap.main(DOSE, "sparse", study)
