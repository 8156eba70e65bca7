"""What is said of a file: in words, as a picture, and which way its axes run."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fly64_dose_overlap as fdo
from fly64_dose_overlap.config import TurnName
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.files.mending import subsets
from fly64_dose_overlap.pipeline import inspection
from fly64_dose_overlap.pipeline.inspection import TRIED, described, draw, judged, turns

Way = tuple[TurnName, ...]
WAYS = list(subsets(TRIED))


@cache
def case() -> fdo.Scan:
    return fdo.simulate(1e4, seed=1, field_px=50, frame_side_px=32, defocus_um=200)[0]


def test_every_fact_has_its_unit() -> None:
    scan = case()
    lines = dict(line.split(": ", 1) for line in described(scan))
    assert lines["frames"] == f"{len(scan)} of 32 x 32 pixels"
    assert lines["photons per frame"].startswith(f"{scan.photons_per_frame:.4g} on average, ")
    assert lines["probe"].startswith("1 modes (100 % of the power), ")
    assert "measured overlap 0." in lines["step"]
    assert lines["object"].endswith("nm a pixel")
    assert lines["the file does not say"] == "mask"
    mask = np.ones((32, 32), bool)
    mask[3, 4:7] = False
    more = dict(line.split(": ", 1) for line in described(replace(scan, mask=mask, optics=None)))
    assert more["mask"] == "3 of 1024 pixels do not count"
    assert more["the file does not say"] == "optics"


def test_the_picture_is_one(tmp_path: Path) -> None:
    draw(case(), tmp_path / "scan.png", "a scan")
    with Image.open(tmp_path / "scan.png") as image:
        assert min(image.size) > 500


def is_undone(way: Way, changes: Way) -> bool:
    """Return whether changes undo a turn of the scan, but for half a turn with the conjugate probe."""
    scan = case()
    found = inspection._turned(inspection._turned(scan, way), changes)
    twin = inspection._turned(scan, ("flip_frames_y", "flip_frames_x", "conjugate_probe"))
    return any(
        np.array_equal(found.counts, each.counts) and np.array_equal(found.probe, each.probe)
        for each in (replace(scan, counts=scan.counts[:]), twin)
    )


FEW = (WAYS[0], WAYS[5])
OTHERS = [pytest.param(way, marks=pytest.mark.slow) for way in WAYS if way not in FEW]


@pytest.mark.parametrize("way", [*FEW, *OTHERS])
def test_the_orientation_is_found_without_an_object(way: Way) -> None:
    found = min(turns(inspection._turned(case(), way))[0], key=lambda turn: turn.fit.deviance)
    assert is_undone(way, found.changes)


def test_the_best_is_named_with_its_margin() -> None:
    scan = case()
    lines = list(judged(scan, np.ones(scan.object_shape, np.complex64)))
    assert lines[0].endswith("as it is (best) (the file)")
    assert lines[-1].startswith("of photons held out, after 20 epochs of ML; the next is ")
    bright = fdo.simulate(1e6, seed=1, field_px=50, frame_side_px=32, defocus_um=200)[0]
    late = replace(bright, counts=np.roll(bright.counts[:], 1, axis=0))
    lines = list(judged(late, np.ones(scan.object_shape, np.complex64)))
    assert not any("(best)" in line for line in lines)
    assert lines[-1].startswith("none of these fits: the mean of all frames has ")
    with pytest.raises(StudyError, match="a single frame tells none"):
        turns(scan.frames(np.array([3])))
