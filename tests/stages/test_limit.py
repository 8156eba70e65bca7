"""Stage limit: the bounds of a view's test half."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fly64_dose_overlap.config import NOTHING_TO_REFINE
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.dataset import write_scan
from fly64_dose_overlap.pipeline.stages import limit
from fly64_dose_overlap.scores.limit import read_limit
from fly64_dose_overlap.scores.region import scan_region
from tiny_scan import DOSE, scan, truth
from tiny_study import write_params

SETTINGS = {"seed": 1, "vectors": 1, "iterations": 40, "tolerance": 0.01}


@pytest.fixture(autouse=True)
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_scan(tmp_path / f"data/views/{DOSE}/dense/test.npz", scan(), truth())
    return write_params(tmp_path, limit=SETTINGS, doses=[DOSE])


def test_limit_of_a_view_is_written_for_the_scored_region(study: Path) -> None:
    limit.main("dense", study)
    found, data = read_limit("metrics/limit/dense.json"), scan()
    fluence = data.illumination()
    region = scan_region(fluence, data.positions_px, found.region["illumination_threshold"])
    assert found.region["pixels"] == region.pixels
    assert found.photons_per_pixel_at(DOSE) == pytest.approx(fluence[region.mask].mean(), rel=1e-5)
    assert 1 < found.kappa < 20
    assert np.all(np.diff(found.bayesian["phase"]) < 0)


def test_the_same_parameters_give_the_same_bytes(study: Path) -> None:
    path = Path("metrics/limit/dense.json")
    limit.main("dense", study)
    first = path.read_bytes()
    limit.main("dense", study)
    assert path.read_bytes() == first


def test_what_is_to_be_found_besides_has_a_price(tmp_path: Path) -> None:
    told = {**dict(NOTHING_TO_REFINE), "positions": 0.5}
    limit.main("dense", write_params(tmp_path, limit=SETTINGS, doses=[DOSE], refine=told))
    price = read_limit("metrics/limit/dense.json").price
    assert price is not None
    assert all(1 < value < 100 for value in price.values())


def test_a_view_of_too_few_frames_is_named_with_what_to_raise(study: Path) -> None:
    few = scan().frames(np.array([40]))
    write_scan(Path(f"data/views/{DOSE}/sparse/test.npz"), few, truth())
    begin = "view sparse, test half of 1 frames: scoring region: no pixel of .* lies between the 1 scan pos"
    with pytest.raises(StudyError, match=rf"^{begin}.*; keep more frames"):
        limit.main("sparse", study)


def test_a_view_without_data_is_named(study: Path) -> None:
    with pytest.raises(MissingFileError, match=r"data/views/10000/sparse/test.npz: no such file"):
        limit.main("sparse", study)
