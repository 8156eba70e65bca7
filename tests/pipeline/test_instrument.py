"""Methods are told the scan with the probe that `probe.from` names, and with what they may find."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import factories
import tiny_scan
from fly64_dose_overlap.config import NOTHING_TO_REFINE, ProbeParams
from fly64_dose_overlap.errors import MissingFileError, StudyError
from fly64_dose_overlap.files.dataset import write_scan
from fly64_dose_overlap.files.reconstruction import Reconstruction, write_reconstruction
from fly64_dose_overlap.pipeline.instrument import Instrument, as_told, described
from fly64_dose_overlap.scan import Optics, Scan, Unknown

BASE = "data/base/base.npz"


def params(file: str = BASE, **refine: float) -> Instrument:
    return Instrument(
        probe=ProbeParams.model_validate({"from": file}),
        calibration=factories.study_params().calibration,
        refine=NOTHING_TO_REFINE.model_copy(update=refine),
    )


def brighter() -> Scan:
    """Return the scan with a probe that is shifted and a thousand times as bright."""
    scan = tiny_scan.scan()
    return replace(scan, probe=(30 * np.roll(scan.probe, 2, axis=1)).astype(np.complex64))


def test_by_default_a_scan_is_told_as_it_is() -> None:
    scan = tiny_scan.scan()
    found = as_told(scan, params(), where="here")
    assert found.probe is scan.probe
    assert not found.unknown
    assert described(params())["sha256"] is None


def test_what_is_to_be_found_is_said() -> None:
    found = as_told(tiny_scan.scan(), params(probe=True, positions=0.5, flux=0.1), where="here")
    assert found.unknown == Unknown(True, 0.5, 0.1)


@pytest.mark.parametrize("kind", ["dataset", "reconstruction"])
def test_the_probe_of_a_file_is_taken_at_the_power_of_the_scan(kind: str, tmp_path: Path) -> None:
    scan, other, path = tiny_scan.scan(), brighter(), tmp_path / "bright.npz"
    if kind == "dataset":
        write_scan(path, other, tiny_scan.truth())
    else:
        image = np.ones(scan.object_shape, np.complex64)
        made = Reconstruction(
            "map", "MAP", "iterative", image, other.probe, scan.positions_px, np.zeros(0), {}, scan.record
        )
        write_reconstruction(path, made)
    found = as_told(scan, params(str(path)), where="here")
    wanted = np.roll(scan.probe, 2, axis=1)
    np.testing.assert_allclose(found.probe, wanted, atol=1e-5 * np.abs(wanted).max())
    assert found.counts is scan.counts
    assert "probe" in str(found.record)
    assert described(params(str(path)))["sha256"] is not None


def test_a_file_without_a_probe_that_fits_is_refused(tmp_path: Path) -> None:
    path, scan = tmp_path / "other.npz", tiny_scan.scan()
    with pytest.raises(MissingFileError):
        as_told(scan, params(str(path)), where="here")
    files: list[tuple[dict[str, Any], str]] = [
        ({"x": np.ones(3)}, "has neither reconstructed_probe nor probeGuess"),
        ({"probeGuess": np.ones((6, 6), np.complex64)}, "its probe has 6 x 6 pixels, frames have"),
        ({"probeGuess": np.zeros(scan.probe.shape, np.complex64)}, "its probe is zero everywhere"),
    ]
    for arrays, message in files:
        np.savez(path, **arrays)
        with pytest.raises(StudyError, match=message):
            as_told(scan, params(str(path)), where="here")


def test_the_probe_of_a_lens_is_made(tmp_path: Path) -> None:
    path, scan = tmp_path / "lens.yaml", tiny_scan.scan()
    scan = replace(scan, optics=Optics(wavelength_m=1.4e-10, object_pixel_m=1e-7))
    path.write_text("rim_mrad: 0.4\nstop_mrad: 0.1\ndefocus_um: 20\n")
    found = as_told(scan, params(str(path)), where="here")
    assert found.probe.shape == (1, scan.side, scan.side)
    assert np.linalg.norm(found.probe) == pytest.approx(np.linalg.norm(scan.probe), rel=1e-5)
    assert "lens" in str(found.record)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rim_mrad: 0.4\n", "defocus_um: key is missing"),
        ("rim_mrad: 0.4\ndefocus: 20\ndefocus_um: 20\n", "defocus: unknown key"),
        ("rim_mrad: 0.4\nstop_mrad: 0.5\ndefocus_um: 20\n", "lens.yaml: half-angles must .* got 0.5 and 0.4"),
        ("rim_mrad: -0.4\ndefocus_um: 20\n", "lens.yaml: half-angles must be 0 <= stop_mrad .* and -0.4"),
        ("rim_mrad: 2000.0\ndefocus_um: 20\n", "rim_mrad < 1571, got 0 and 2000"),
        ("rim_mrad: 0.4\ndefocus_um: .nan\n", "defocus_um: .*finite"),
        ("rim_mrad: 0.0004\ndefocus_um: 20\n", "detector pixels from the middle; .* a detector pixel is"),
        ("rim_mrad: 0.4\ndefocus_um: 20000\n", "spreads the beam over .* stay below"),
    ],
)
def test_a_lens_that_makes_no_sense_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    path, scan = tmp_path / "lens.yaml", tiny_scan.scan()
    path.write_text(text)
    scan = replace(scan, optics=Optics(wavelength_m=1.4e-10, object_pixel_m=1e-7))
    with pytest.raises(StudyError, match=problem):
        as_told(scan, params(str(path)), where="here")


def test_a_lens_needs_optics_and_its_file(tmp_path: Path) -> None:
    path, scan = tmp_path / "lens.yaml", replace(tiny_scan.scan(), optics=None)
    with pytest.raises(MissingFileError, match=r"check probe\.from"):
        as_told(scan, params(str(path)), where="here")
    path.write_text("rim_mrad: 0.4\ndefocus_um: 20\n")
    with pytest.raises(StudyError, match="no wavelength and object pixel; give it optics"):
        as_told(scan, params(str(path)), where="here")
