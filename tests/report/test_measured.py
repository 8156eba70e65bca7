"""A report says first whether frames were measured, and what scores are against."""

from __future__ import annotations

import re
from typing import Any

from fly64_dose_overlap.report.findings import conventions, frames
from fly64_dose_overlap.report.page import markdown_text, page
from fly64_dose_overlap.report.study import Run, Study
from fly64_dose_overlap.report.tables import cell_table, dose_table, overlap_table, time_table
from fly64_dose_overlap.scores.catalogue import CHI_SQUARE, PHASE_PSNR_BEYOND
from report_runs import new_run, small_study, study_of

AGAINST = "the reference of 3.1e+05 photons per frame"


def measured_run(dose: int, noise_db: float | None) -> Run:
    run = new_run(dose, "dense")
    run.evaluation["conventions"] |= {"frames": "measured", "against": AGAINST, "split": "all"}
    run.evaluation["reference"] = {"noise": {"phase_psnr_db": noise_db}}
    own: dict[str, Any] = run.methods["network"]
    own["fit"] = {"chi_square": 1.25, "r_over_floor": 1.1, "divergence": 2e-3}
    own["beyond_noise"] = {"phase_psnr_db": 24.5, "complex_nrmse": 0.04}
    return run


def measured_study(*noise_db: float | None) -> Study:
    return study_of(*(measured_run(dose, value) for dose, value in zip((1000, 10000), noise_db, strict=True)))


def test_frames_are_said_to_be_simulated_or_measured() -> None:
    assert frames(small_study()) == "Frames were simulated, and scores are against the true object."
    found = frames(measured_study(38.12, 39.87))
    assert found == (
        f"Frames were measured, and thinned to each dose. Scores are against {AGAINST}, whose own noise lies "
        "at a phase PSNR of 38.1 to 39.9 dB; no photon is in both."
    )
    assert "own noise" not in frames(measured_study(None, None))


def test_it_stands_at_the_top_of_the_page_and_of_the_text() -> None:
    study = measured_study(38.0, 38.0)
    html, text = page([study], {}), markdown_text([study], {})
    assert html.index(AGAINST) < html.index("<nav")
    assert AGAINST in text
    assert "the reference's own range" in conventions(study.conventions)
    assert conventions(study.conventions).startswith("All frames, which networks were trained on too.")


def test_scores_that_need_no_truth_have_columns() -> None:
    columns = [title for _, title in cell_table(measured_study(38.0, 38.0).done[0]).columns]
    assert {CHI_SQUARE.label, PHASE_PSNR_BEYOND.label} <= set(columns)
    others = [title for _, title in cell_table(small_study().done[0]).columns]
    assert CHI_SQUARE.label not in others


def test_results_of_all_frames_are_not_said_to_be_of_a_half() -> None:
    study = measured_study(38.0, 38.0)
    digests = {name: {"sha256": name, **scores} for name, scores in study.done[0].first.methods.items()}
    study.done[0].first.methods.update(digests)
    seconds = {"network": 2.0}
    for content in (page([study], seconds), markdown_text([study], seconds)):
        assert not re.search("(test|training) half", content)
    assert [title for title, _ in dose_table(study).groups][1] == "all frames"
    assert overlap_table(study).note.startswith("All frames; overlap")
    assert time_table(study, seconds).note.startswith("Seconds on the processor for all frames;")
    of_half = small_study()
    assert [title for title, _ in dose_table(of_half).groups][1] == "test half"
    assert "overlap is that of neighbouring frames, measured on the test half" in page([of_half], {})
