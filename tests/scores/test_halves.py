"""Halves of the photons, each reconstructed by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_scan
from factories import study_params
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.dataset import write_scan
from fly64_dose_overlap.files.reconstruction import Reconstruction, read_reconstructions
from fly64_dose_overlap.methods.registry import make_method
from fly64_dose_overlap.pipeline.cells import PARTS
from fly64_dose_overlap.pipeline.halves import reconstruct_halves
from fly64_dose_overlap.pipeline.instrument import Instrument
from fly64_dose_overlap.scores.halves import agreement_of_halves
from fly64_dose_overlap.scores.region import scan_region

PARAMS = study_params()


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    write_scan(tmp_path / "scan.npz", tiny_scan.scan(), tiny_scan.truth())


def made(name: str, **settings: Any) -> list[list[Reconstruction]]:
    """Return what a method makes of both halves."""

    def make() -> Any:
        method = make_method(name)
        return make_method(name, {**method.settings.model_dump(), **settings})

    stops = PARAMS.stops
    instrument = Instrument(PARAMS.probe, PARAMS.calibration, PARAMS.refine)
    reconstruct_halves(make, Path("scan.npz"), Path("halves"), stops=stops, instrument=instrument, seed=1)
    return [list(read_reconstructions(Path("halves") / part)) for part in PARTS]


def agreed(first: list[Reconstruction], second: list[Reconstruction]) -> dict[str, dict[str, Any]]:
    scan = tiny_scan.scan()
    region = scan_region(scan.illumination(), scan.positions_px, 0.1)
    return agreement_of_halves(first, second, region, upsampling=20, pixel_nm=50.0)


def test_halves_of_an_iteration_agree_in_coarse_detail() -> None:
    first, second = made("ml", epochs=8)
    assert [each.method for each in first] == ["ml", "ml_held_out"]
    found = agreed(first, second)["ml"]
    assert 0.1 < found["frc_half_bit"] < 1
    assert found["frc_half_bit_nm"] == pytest.approx(50 / found["frc_half_bit"])
    assert not np.array_equal(first[0].obj, second[0].obj)


def test_a_network_is_trained_on_each_half_and_one_of_both_is_refused() -> None:
    first, second = made("refined", **tiny_scan.SETTINGS["refined"])
    models = [each[0].settings["model_sha256"] for each in (first, second)]
    assert models[0] != models[1]
    assert agreed(first, second)["refined"]["frc50"] > 0
    shared = [replace(second[0], settings={**second[0].settings, "model_sha256": models[0]})]
    message = (
        "halves of refined: both were made by one network, and agree in what it invents; train it on either"
    )
    with pytest.raises(StudyError, match=message):
        agreed(first, shared)


def test_a_method_that_learns_from_the_truth_has_no_halves() -> None:
    with pytest.raises(
        StudyError, match=r"^supervised: learns from the true object, which halves would share"
    ):
        made("supervised", **tiny_scan.SETTINGS["supervised"])
