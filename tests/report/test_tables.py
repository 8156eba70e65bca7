"""Tables: right numbers in right places, signs printed, the best marked."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from fly64_dose_overlap.report import tables
from fly64_dose_overlap.report.study import Run
from fly64_dose_overlap.report.tables import Entry, Row, Table, delta_entry
from fly64_dose_overlap.scores.catalogue import (
    COMPLEX_NRMSE,
    FRC_HALF_BIT,
    PHASE_MAE,
    PHASE_MS_SSIM,
    PHASE_PSNR,
    SCORES,
    Score,
)
from report_runs import METHODS, VIEWS, full_study, new_run, study_of


def _row(table: Table, head: str) -> Row:
    return next(row for row in table.rows if row.head == head)


@pytest.mark.parametrize(
    ("score", "first", "second", "expected"),
    [
        (PHASE_MS_SSIM, 0.950, 0.930, Entry("+0.020", "better")),
        (PHASE_MS_SSIM, 0.930, 0.950, Entry("-0.020", "worse")),
        (PHASE_MAE, 0.025, 0.030, Entry("-0.005000", "better")),
        (PHASE_MAE, 0.030, 0.025, Entry("+0.005000", "worse")),
        (COMPLEX_NRMSE, 0.05, 0.08, Entry("-0.0300", "better")),
        (PHASE_PSNR, 20.0, 20.001, Entry("-0.00", "")),
        (PHASE_PSNR, 20.0, 20.0, Entry("+0.00", "")),
    ],
)
def test_difference_has_its_sign_and_says_whom_it_favours(
    score: Score, first: float, second: float, expected: Entry
) -> None:
    assert delta_entry(first - second, score) == expected


def test_direction_is_stated_for_every_score() -> None:
    higher = {score.key for score in SCORES if score.direction == "higher is better"}
    assert {key for key in higher if "psnr" in key or "ssim" in key} == higher - {
        "frc50_nyquist",
        "frc_half_bit_nyquist",
        "frc_one_seventh_nyquist",
        "halves_frc_half_bit_nyquist",
        "halves_frc_one_seventh_nyquist",
        "dose_efficiency",
    }
    assert {score.direction for score in SCORES if score.key not in higher} == {"lower is better"}
    assert len({score.key for score in SCORES}) == len(SCORES)


def test_summary_has_a_row_per_method_and_a_column_per_cell() -> None:
    table = tables.summary_tables(full_study())[0]
    assert [row.head for row in table.rows] == ["limit", "network", "LSQML", "rPIE", "flat object"]
    assert table.groups == [(f"{dose} photons per frame", 3) for dose in ("1,000", "10,000", "100,000")]
    assert _row(table, "network").entries == (Entry("24.00", "best"),) * 9
    assert _row(table, "rPIE").entries == (Entry("21.00"),) * 9
    assert _row(table, "limit").entries == (Entry("28.00"),) * 9


def test_differences_say_in_words_whom_they_favour() -> None:
    notes = {table.title: table.note for table in tables.delta_tables(full_study())}
    psnr, nrmse = notes["phase PSNR (dB): network minus method"], notes["complex NRMSE: network minus method"]
    assert psnr == "Higher is better: a positive difference favours network."
    assert nrmse == "Lower is better: a negative difference favours network."


def test_resolution_is_given_both_ways() -> None:
    table = next(table for table in tables.summary_tables(full_study()) if "FRC50" in table.title)
    assert _row(table, "rPIE").entries[0].text == "0.600 (95.3 nm)"


def test_curve_that_never_crosses_reads_at_least_one() -> None:
    assert FRC_HALF_BIT.write(1.0) == "≥ 1"
    assert FRC_HALF_BIT.write(0.999) == "0.999"


def test_cells_without_result_say_why() -> None:
    runs = [new_run(1000, "baseline"), new_run(1000, "dense", state="failed")]
    table = tables.summary_tables(study_of(*runs))[0]
    entries = _row(table, "network").entries
    assert entries == (Entry("24.00", "best"), Entry("failed", "absent"))


def test_method_of_one_cell_only_is_blank_in_the_others() -> None:
    more = {**METHODS, "MAP": ("iterative", 25.0, 0.04)}
    runs = [new_run(1000, "baseline"), new_run(1000, "dense", methods=more)]
    table = tables.summary_tables(study_of(*runs))[0]
    assert [entry.text for entry in _row(table, "MAP").entries] == ["-", "25.00"]


BETTER = {**METHODS, "network": ("learned", 26.0, 0.04)}


def test_repeats_are_printed_with_spread_and_their_number_once() -> None:
    runs = [new_run(1000, "baseline"), new_run(1000, "baseline", seed=43, methods=BETTER)]
    study = study_of(*runs)
    table = tables.summary_tables(study)[0]
    assert _row(table, "network").entries[0].text == "25.00 ± 1.41"
    assert table.note.endswith("Mean ± standard deviation of 2 trainings with different seeds.")
    assert _row(tables.delta_tables(study)[0], "LSQML").entries[0] == Entry("+2.00", "better")


def test_unequal_numbers_of_repeats_stand_with_each_value() -> None:
    runs = [new_run(1000, view) for view in VIEWS]
    runs += [new_run(1000, view, seed=43, methods=BETTER) for view in ("baseline", "dense")]
    assert _texts(runs) == ["25.00 ± 1.41 (n = 2)", "25.00 ± 1.41 (n = 2)", "24.00"]
    runs += [new_run(1000, "dense", seed=44, methods=BETTER)]
    assert _texts(runs) == ["25.00 ± 1.41 (n = 2)", "25.33 ± 1.15 (n = 3)", "24.00"]


def _texts(runs: list[Run]) -> list[str]:
    table = tables.summary_tables(study_of(*runs))[0]
    assert "trainings" not in table.note
    return [entry.text for entry in _row(table, "network").entries[:3]]


def test_what_no_seed_changes_has_no_spread() -> None:
    runs = [new_run(1000, "baseline", seed=seed) for seed in (42, 43)]
    table = tables.summary_tables(study_of(*runs))[0]
    assert _row(table, "rPIE").entries[0].text == "21.00"
    assert "trainings" not in table.note


def test_csv_holds_every_score_in_full_precision_and_marks_none_as_trained() -> None:
    odd = {**METHODS, "network": ("learned", 24.123456789, 0.05)}
    study = study_of(new_run(1000, "dense", methods=odd))
    rows = list(csv.DictReader(io.StringIO(tables.csv_text([study], {}))))
    own = [row for row in rows if row["method"] == "network"]
    assert [row["metric"] for row in own] == [
        score.key for score in SCORES if score.path[0] not in ("beyond_noise", "fit", "halves", "instrument")
    ]
    assert float(own[0]["mean"]) == 24.123456789
    lsqml = {row["metric"]: row for row in rows if row["method"] == "LSQML"}
    assert float(lsqml["phase_psnr_db"]["leader_minus_method"]) == pytest.approx(1.123456789)
    assert float(lsqml["complex_nrmse"]["leader_minus_method"]) == pytest.approx(-0.01)
    limits = {row["metric"]: float(row["mean"]) for row in rows if row["method"] == "limit"}
    assert limits == {"phase_psnr_db": 28.0, "amplitude_psnr_db": 19.0, "complex_nrmse": 0.03}
    assert "dose_efficiency" not in {row["metric"] for row in rows if row["method"] == "flat object"}


def test_markdown_keeps_the_table_whole() -> None:
    table = Table("t", "", "method", (("", "a|b"),), (Row("x|<y>", "", (Entry("1", "best"),)),))
    assert tables.markdown(table).splitlines() == [
        r"| method | a\|b |",
        "|---|---:|",
        r"| x\|\<y\> | **1** |",
    ]


def test_times_not_measured_are_shown_as_such() -> None:
    study = full_study()
    methods = study.done[1].first.evaluation["methods"]
    methods["network"] |= {"sha256": "a1", "settings": {"model_sha256": "b2"}}
    methods["LSQML"] |= {"sha256": "c3", "settings": {}}
    table = tables.time_table(study, {"a1": 1.2345, "b2": 200.4, "c3": 60.0})
    assert [entry.text for entry in _row(table, "network").entries[:2]] == ["-", "1.23 + 200"]
    assert _row(table, "LSQML").entries[1].text == "60"
    assert [row.head for row in table.rows] == ["network", "LSQML"], (
        "the others were not measured in any cell"
    )
    assert not tables.time_table(study, {}).rows
    rows = csv.DictReader(io.StringIO(tables.csv_text([study], {"a1": 1.2345, "b2": 200.4, "c3": 60.0})))
    found = {
        (row["method"], row["metric"]): float(row["mean"]) for row in rows if row["metric"] in tables.TIMES
    }
    assert found == {
        ("network", "cpu_seconds"): 1.2345,
        ("network", "training_cpu_seconds"): 200.4,
        ("LSQML", "cpu_seconds"): 60.0,
    }


def test_failed_experiment_is_listed() -> None:
    runs = [new_run(1000, "baseline"), new_run(1000, "dense", state="failed")]
    table = tables.runs_table(study_of(*runs))
    assert _row(table, "1000-dense").entries[0] == Entry("failed", "worse")
    assert _row(table, "1000-baseline").entries[0] == Entry("success")


def test_table_in_short_has_four_rows_the_leader_and_a_limit_among_them() -> None:
    more = {**METHODS, "refined": ("learned", 27.0, 0.03), "MAP": ("iterative", 25.0, 0.04)}
    table = tables.brief_table(study_of(new_run(1000, "dense", methods=more)))
    assert [row.head for row in table.rows] == ["limit", "refined", "MAP", "LSQML"]


def test_trials_stand_in_one_table_beside_the_same_cell() -> None:
    better = {**METHODS, "network": ("learned", 25.0, 0.04)}
    longer = study_of(
        new_run(1000, "dense", methods=better), variant="ab12cd", changes=("train.epochs: 5 → 9",)
    )
    lost = study_of(new_run(1000, "sparse", state="failed"), variant="ef34ab")
    table = tables.trials_table([longer, lost], full_study())
    found = {row.head: [entry.text for entry in row.entries] for row in table.rows}
    assert found == {
        "1000-dense": ["train.epochs: 5 → 9", "1,000", "dense", "42", "network", "25.00", "+1.00", "success"],
        "1000-sparse": ["code or base set", "1,000", "sparse", "42", "-", "-", "-", "failed"],
    }


def test_a_trial_is_compared_only_with_what_was_scored_on_the_same_data_in_the_same_way() -> None:
    plain = full_study()

    def difference(run: Run) -> str:
        table = tables.trials_table([study_of(run, variant="ab12cd")], plain)
        return _row(table, run.name).entries[6].text

    run = new_run(1000, "dense", methods=BETTER)
    assert difference(replace(run, data={**run.data, "data/dose/3000/test.npz": "f1"})) == "+2.00"
    for data in ({"data/base/base.npz": "0a0a"}, {}):
        assert difference(replace(run, data=data)) == "-"
    measured = {**run.evaluation["conventions"], "frames": "measured", "against": "the reference"}
    assert difference(replace(run, evaluation={**run.evaluation, "conventions": measured})) == "-"
