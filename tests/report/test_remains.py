"""Maps of what methods leave unexplained, and the instrument that they found."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import factories
import tiny_scan
from fly64_dose_overlap.report.page import page
from fly64_dose_overlap.report.remains import members_of, remains_of
from fly64_dose_overlap.report.study import Run, Study
from fly64_dose_overlap.scores.evaluation import evaluate
from made_reconstructions import DOSE, limit_of, reconstructions
from report_runs import evaluation, new_run, pictured_run, study_of

FRAMES = 9


def run_with(folder: Path, *found: str) -> Run:
    """Return a run of three methods, of which some have found the instrument."""
    run = pictured_run(folder)
    assert run.reconstruction is not None
    maps: dict[str, Any] = {"positions_px": np.argwhere(np.ones((3, 3))) * 1.0, "frames": np.arange(FRAMES)}
    for key in ("network", "lsqml", "rpie"):
        maps |= {f"{key}_by_frame": np.ones(FRAMES), f"{key}_by_pixel": np.ones((8, 8))}
        if key in found:
            probe = np.full((2, 8, 8), 1 + (key == "rpie"), np.complex64)
            maps |= {
                f"{key}_probe": probe,
                f"{key}_away_px": np.zeros((FRAMES, 2)),
                f"{key}_flux": np.ones(FRAMES),
            }
    np.savez(run.reconstruction, **{**np.load(run.reconstruction), **maps})
    return run


def study(folder: Path, *found: str) -> Study:
    return study_of(run_with(folder, *found))


def test_an_instrument_is_shown_once_under_the_names_of_all_who_have_it(tmp_path: Path) -> None:
    for found, pictures in (((), 0), (("network", "lsqml"), 1), (("network", "lsqml", "rpie"), 2)):
        own = study(tmp_path, *found)
        remains = remains_of(own, own.done[0])
        assert remains is not None
        assert len(remains.instruments) == pictures
        assert remains == remains_of(own, own.done[0])


def test_the_page_says_what_is_wrong_and_shows_what_is_left(tmp_path: Path) -> None:
    run = run_with(tmp_path, "network")
    told = {**evaluation(), "diagnosis": {"sentence": "the probe is out of focus"}}
    html = page([study_of(replace(run, evaluation=told))], {})
    assert "By its frames alone: the probe is out of focus." in html
    assert len(re.findall(r'<img class="wide"', html)) == 2


@pytest.mark.parametrize("run", [new_run(1000, "dense"), None])
def test_a_run_without_maps_has_none(run: Run | None, tmp_path: Path) -> None:
    own = study_of(run or pictured_run(tmp_path))
    assert remains_of(own, own.done[0]) is None


def test_what_is_drawn_is_what_was_evaluated() -> None:
    """A method that says nothing new of the instrument has none; the truth is at noise on fresh photons."""
    first, second = reconstructions()
    moved = replace(second, positions_px=second.positions_px + np.eye(len(second.positions_px), 2))
    params = factories.study_params().evaluate
    found = evaluate(tiny_scan.scan(), tiny_scan.truth(), [first, moved], params, limit=limit_of(), dose=DOSE)
    assert list(found.instruments) == ["lsqml_held_out"]
    assert found.metrics["methods"]["network"]["fit"]["chi_square"] == pytest.approx(1, abs=0.05)
    assert found.metrics["methods"]["LSQML held-out"]["fit"]["chi_square"] > 1.1
    members = dict(members_of(found))
    assert members["network_by_frame"].shape == (len(tiny_scan.scan()),)
    assert members["lsqml_held_out_away_px"].shape == (len(tiny_scan.scan()), 2)
